"""What the network saw: heatmaps of persons, and a picture of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from fastpose.data.affine import box_to_center_scale, crop_transform, warp_crop
from fastpose.device import autocast
from fastpose.infer.engines import Engine
from fastpose.infer.predictor import Predictor
from fastpose.nn.normalize import normalize_crops

DIMMED = 0.5
"""How much of the picture's light is left behind the heatmaps."""


@dataclass
class Heatmaps:
    """Of N persons: `maps` (N, K, h, w) uint8, 255 for 1, and `matrix` (N, 2, 3) float64 from pixels of the
    picture to pixels of a map."""

    maps: np.ndarray
    matrix: np.ndarray


def has_heatmaps(model: torch.nn.Module) -> bool:
    """Whether heatmaps come out of the network: not of one that predicts queries or bins, nor of an exported
    one that finds keypoints itself."""
    if isinstance(model, Engine) and model.spec.decode is not None:
        return False
    return getattr(model, "output", "heatmaps") == "heatmaps"


@torch.inference_mode()
def person_heatmaps(predictor: Predictor, image: np.ndarray, boxes: np.ndarray) -> Heatmaps | None:
    """The final heatmaps of the persons in boxes (N, 4) xywh of a picture (H, W, 3) uint8 BGR, unmirrored.

    None for a network that gives no heatmaps (`has_heatmaps`). Those of a network that was exported with the
    flip test inside have the mirrored picture in them.
    """
    meta, model = predictor.meta, predictor.model
    if not has_heatmaps(model):
        return None
    size = meta.input_size
    center, scale = box_to_center_scale(boxes, size[0] / size[1])
    people = list(zip(center, scale, strict=True))
    rows: list[np.ndarray] = []
    for first in range(0, len(people), predictor.batch_size):
        crops = [
            warp_crop(image, crop_transform(meta.codec, c, s, 0.0, size), size)
            for c, s in people[first : first + predictor.batch_size]
        ]
        pixels = np.stack([crop[..., ::-1] if meta.channel_order == "rgb" else crop for crop in crops])
        inputs = torch.from_numpy(pixels).to(predictor.device)
        if not isinstance(model, Engine):
            inputs = normalize_crops(inputs, meta.mean, meta.std)
        with autocast(predictor.options.dtype, predictor.device):
            maps = model.heatmaps(model(inputs))[-1]  # type: ignore[operator]
        values = torch.nan_to_num(maps.float()).clamp(0, 1)
        rows.append((values * 255).round().byte().cpu().numpy())
    if not rows:
        return None
    height, width = rows[0].shape[2:]
    matrix = np.stack([crop_transform(meta.codec, c, s, 0.0, (width, height)) for c, s in people])
    return Heatmaps(np.concatenate(rows), matrix)


def draw_heatmaps(
    picture: np.ndarray,
    heatmaps: Heatmaps,
    factor: float = 1.0,
    *,
    joint: int | None = None,
    person: int | None = None,
) -> np.ndarray:
    """The heatmaps laid over a dimmed picture, a new (H, W, 3) uint8 BGR array; dark is 0, yellow is 1.

    picture: (H, W, 3) uint8 BGR, `factor` times as large as the one that the maps belong to. joint, person:
    the one to show; None shows the largest value of all.
    """
    height, width = picture.shape[:2]
    light = np.zeros((height, width), np.uint8)
    # Pixel centres: x of the picture is (x of the smaller one + 0.5) / factor - 0.5.
    back = np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5], [0, 0, 1]])
    for row in range(len(heatmaps.maps)) if person is None else (person,):
        maps = heatmaps.maps[row]
        shown = maps.max(axis=0) if joint is None else maps[joint]
        matrix = heatmaps.matrix[row] @ back
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        light = np.maximum(light, cv2.warpAffine(shown, matrix, (width, height), flags=flags))
    share = light[..., None].astype(np.float32) / 255
    color = cv2.applyColorMap(light, cv2.COLORMAP_INFERNO)
    return (picture * DIMMED * (1 - share) + color * share).round().astype(np.uint8)
