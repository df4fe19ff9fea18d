"""Random scale, crop and mirror of a picture and its labels, as in the official training."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fastpose.classes import IGNORE
from fastpose.data.images import MAX_SIDE
from fastpose.data.segmentation import Labelled
from fastpose.errors import ConfigError

MEAN_RGB = (124, 116, 104)
"""ImageNet's mean in 8 bits: what normalises to zero, within half a grey level."""


@dataclass(frozen=True)
class SegmentationAugmentation:
    """What to change and how much; the defaults are those of the official configurations.

    The longer side becomes `base_size` x (0.5 + k / 10) pixels, k drawn from 0 to `scale_steps`, so 0.5 to
    2.1 times. Raises ConfigError for numbers out of range.
    """

    multi_scale: bool = True  # draw a scale; without it the factor is 1
    scale_steps: int = 16  # largest k (official SCALE_FACTOR)
    base_size: int = 0  # pixels of the longer side at factor 1, 0 for each picture's own
    flip: bool = True  # mirror half of the samples

    def __post_init__(self) -> None:
        for name, limit in (("scale_steps", 95), ("base_size", MAX_SIDE)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
                raise ConfigError(f"augmentation: {name} must be a whole number up to {limit}, got {value!r}")


def augment_labelled(
    options: SegmentationAugmentation,
    sample: Labelled,
    crop_size: tuple[int, int],
    rng: np.random.Generator,
    *,
    fill: tuple[int, int, int] = MEAN_RGB,
) -> Labelled:
    """A crop of `crop_size` (width, height), scaled, cut out and mirrored in this order.

    Pixels are scaled bilinearly, labels to the nearest. What is smaller than the crop is padded at the right
    and at the bottom: with `fill` (r, g, b), and IGNORE as label.
    Source: HRNet-Semantic-Segmentation lib/datasets/base_dataset.py, multi_scale_aug and gen_sample.
    """
    factor = 0.5 + int(rng.integers(options.scale_steps + 1)) / 10 if options.multi_scale else 1.0
    scaled = _scale(sample, options.base_size, factor)
    cut = _cut(scaled, crop_size, rng.random(2), fill)
    if options.flip and rng.random() < 0.5:
        return Labelled(cv2.flip(cut.pixels, 1), cv2.flip(cut.labels, 1))
    return cut


def _scale(sample: Labelled, base_size: int, factor: float) -> Labelled:
    height, width = sample.labels.shape
    longest = max(height, width)
    wanted = min(MAX_SIDE, max(1, int((base_size or longest) * factor + 0.5)))
    if wanted == longest:
        return sample
    size = tuple(max(1, int(side * wanted / longest + 0.5)) for side in (width, height))
    return Labelled(
        cv2.resize(sample.pixels, size, interpolation=cv2.INTER_LINEAR),
        cv2.resize(sample.labels, size, interpolation=cv2.INTER_NEAREST),
    )


def _cut(
    sample: Labelled, crop_size: tuple[int, int], place: np.ndarray, fill: tuple[int, int, int]
) -> Labelled:
    """`place` (2,) in [0, 1) says where in the room that is left, x and y."""
    width, height = crop_size
    room = np.array([sample.labels.shape[1] - width, sample.labels.shape[0] - height])
    x, y = (place * (np.maximum(room, 0) + 1)).astype(int).tolist()
    pixels, labels = (part[y : y + height, x : x + width] for part in sample)
    right, below = (-np.minimum(room, 0)).tolist()
    if right or below:
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill[::-1])
        labels = cv2.copyMakeBorder(labels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=IGNORE)
    return Labelled(pixels, labels)
