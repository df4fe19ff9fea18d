"""Random changes to one person's crop, in the order and with the distributions of the official training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastpose.data.affine import box_to_center_scale
from fastpose.errors import ConfigError
from fastpose.keypoints import KeypointSet

HALF_BODY_PADDING = 1.5


@dataclass(frozen=True)
class Augmentation:
    """What to change and how much; the defaults are those of the official COCO configurations, which leave
    the colours as they are.

    Scale and rotation are drawn from normal distributions, and clipped; the official MPII configurations turn
    the half-body cut off with a probability of 0. Raises ConfigError for numbers out of range.
    """

    scale_factor: float = 0.35  # spread of the scale, clipped at 1 +- this
    rotation_factor: float = 45.0  # spread of the rotation in degrees, clipped at twice this
    rotation_prob: float = 0.6  # share of samples that are rotated
    flip: bool = True  # mirror half of the samples
    half_body_prob: float = 0.3  # share of samples cut to the upper or lower body
    half_body_joints: int = 8  # which need more visible joints than this
    brightness: float = 0.0  # most that is added to all grey levels, as a part of 255
    contrast: float = 0.0  # most by which distances from the middle grey grow or shrink, as a part
    tint: float = 0.0  # most by which each channel is multiplied on its own, up or down, as a part

    def __post_init__(self) -> None:
        limits = {"scale_factor": 0.99, "rotation_factor": 180, "rotation_prob": 1, "half_body_prob": 1}
        limits |= {"brightness": 1, "contrast": 1, "tint": 1}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= limit):
                raise ConfigError(f"augmentation: {name} must be a number from 0 to {limit}, got {value!r}")

    @property
    def recolours(self) -> bool:
        """Whether grey levels change."""
        return bool(self.brightness or self.contrast or self.tint)


class AugmentedPerson(NamedTuple):
    """The changed person; joints are in pixels of the picture, mirrored if `flipped`."""

    joints: np.ndarray  # (K, 2) float64
    visible: np.ndarray  # (K,) float32
    center: np.ndarray  # (2,) float32
    scale: np.ndarray  # (2,) float32
    rotation: float  # degrees
    flipped: bool


def augment_person(
    options: Augmentation,
    keypoints: KeypointSet,
    joints: np.ndarray,
    visible: np.ndarray,
    center: np.ndarray,
    scale: np.ndarray,
    *,
    aspect_ratio: float,
    image_width: int,
    rng: np.random.Generator,
) -> AugmentedPerson:
    """Half body, scale, rotation, mirror: in this order, as hrnet lib/dataset/JointsDataset.py.

    `joints` (K, 2) image pixels, `visible` (K,), `center` (2,) and `scale` (2,) as in PersonTable,
    `aspect_ratio` width / height of the crop. Nothing is changed in place. As there, joints that are not
    visible keep their raw numbers without a mirror and become 0 with one.
    """
    if visible.sum() > options.half_body_joints and rng.random() < options.half_body_prob:
        center, scale = _half_body(keypoints, joints, visible, center, scale, aspect_ratio, rng)
    spread = options.scale_factor
    scale = scale * np.float32(_clip(rng.standard_normal() * spread + 1, 1 - spread, 1 + spread))
    rotation = 0.0
    if rng.random() <= options.rotation_prob:
        limit = options.rotation_factor * 2
        rotation = _clip(rng.standard_normal() * options.rotation_factor, -limit, limit)
    flipped = options.flip and rng.random() <= 0.5
    if flipped:
        joints, visible = mirror_joints(joints, visible, keypoints, image_width)
        center = np.array([image_width - center[0] - 1, center[1]], np.float32)
    return AugmentedPerson(joints, visible, center, scale, rotation, flipped)


def mirror_joints(
    joints: np.ndarray, visible: np.ndarray, keypoints: KeypointSet, image_width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (K, 2) and visible (K,) of the mirrored picture: x becomes width - 1 - x, left and right swap,
    and joints that are not visible become 0 (hrnet lib/utils/transforms.py `fliplr_joints`)."""
    order = list(keypoints.flip_index)
    mirrored = joints[order]
    mirrored[:, 0] = image_width - mirrored[:, 0] - 1
    visible = visible[order]
    return mirrored * visible[:, None], visible


def _half_body(
    keypoints: KeypointSet,
    joints: np.ndarray,
    visible: np.ndarray,
    center: np.ndarray,
    scale: np.ndarray,
    aspect_ratio: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Centre on the mean of the visible upper or lower joints, box their extent.

    The normal draw below 0.5, so the upper body in 69 % of cases, is the official code's. The crop stays as
    it is when fewer than two joints are left, or when all of them lie on one spot (official: a crash).
    """
    is_upper = np.zeros(len(joints), bool)
    is_upper[list(keypoints.upper_body)] = True
    upper, lower = joints[is_upper & (visible > 0)], joints[~is_upper & (visible > 0)]
    wants_upper = rng.standard_normal() < 0.5
    if wants_upper and len(upper) > 2:
        chosen = upper
    else:
        chosen = lower if len(lower) > 2 else upper
    if len(chosen) < 2:
        return center, scale
    chosen = chosen.astype(np.float32)
    corner, extent = chosen.min(0), np.ptp(chosen, axis=0)
    if not extent.any():
        return center, scale
    _, scale = box_to_center_scale(np.concatenate([corner, extent]), aspect_ratio, HALF_BODY_PADDING)
    return chosen.mean(0), scale


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
