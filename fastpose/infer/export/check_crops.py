"""The crops on which an exported file and its network are compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastpose.data.affine import box_to_center_scale, crop_transform, warp_crop
from fastpose.data.figures import FigureImages
from fastpose.data.images import read_image
from fastpose.infer.export.spec import GraphSpec
from fastpose.infer.sources import find_images
from fastpose.models import ModelMeta

RANDOM, FIGURES = 2, 3
"""Crops of noise and of rendered figures; different numbers, so that the batch is seen to be free."""
MOST = 8
"""Of the user's pictures, spread over all that were named."""


def check_crops(spec: GraphSpec, pictures: str | Path | Iterable[str | Path] | None = None) -> list[Tensor]:
    """Batches (B, H, W, 3) uint8 in the network's channel order: noise, rendered figures, `pictures`.

    pictures: files, folders or globs, of which at most MOST are taken, each as one person from edge to edge,
    as `Predictor` cuts them without boxes. ImageError where one cannot be read.
    """
    batches = [_random(spec), _figures(spec)]
    if pictures is not None:
        batches.append(_cut(_spread(find_images(pictures)), spec))
    return batches


def _spread(files: list[Path]) -> list[Path]:
    chosen = np.linspace(0, len(files) - 1, min(len(files), MOST)).round().astype(int)
    return [files[i] for i in chosen]


def _random(spec: GraphSpec) -> Tensor:
    width, height = spec.meta.input_size
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (RANDOM, height, width, 3), generator=draw, dtype=torch.uint8)


def _figures(spec: GraphSpec) -> Tensor:
    images = FigureImages(FIGURES, seed=7, image_size=spec.meta.input_size)
    return _stack([images.read(f"{number:012d}.jpg") for number in range(1, FIGURES + 1)], spec)


def _cut(files: list[Path], spec: GraphSpec) -> Tensor:
    size = spec.meta.input_size
    codec = spec.meta.codec if isinstance(spec.meta, ModelMeta) else "msra"
    crops = []
    for file in files:
        image = read_image(file, upright=True)
        center, scale = box_to_center_scale(
            np.array([0, 0, image.shape[1], image.shape[0]]), size[0] / size[1]
        )
        crops.append(warp_crop(image, crop_transform(codec, center, scale, 0.0, size), size))
    return _stack(crops, spec)


def _stack(crops: list[np.ndarray], spec: GraphSpec) -> Tensor:
    """In the network's channel order, from BGR."""
    batch = np.stack(crops)
    return torch.from_numpy((batch[..., ::-1] if spec.meta.channel_order == "rgb" else batch).copy())
