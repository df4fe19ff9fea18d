"""Pictures through a segmentation network: whole or in windows, at several scales, mirrored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.device import autocast
from fastpose.errors import ConfigError
from fastpose.models import SegmentationModel
from fastpose.nn.bilinear import enlarge
from fastpose.nn.normalize import normalize_crops

PASS_PIXELS = 2**20
"""Pixels in one forward pass of several windows: it is their activations that memory must hold."""


@torch.inference_mode()
def class_probabilities(
    model: SegmentationModel,
    images: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    window: tuple[int, int] | None = None,
    stride_rate: float = 2 / 3,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Pictures of one size -> the probability of every class at every pixel.

    The network is left in eval mode.
    A picture and its mirror image count as the mean of their logits, before the softmax; where windows
    overlap, and over the scales, the probabilities are averaged. The windows of a picture are all of one size
    and cover it; the last ones are moved back to its edge. No more windows go through the network at once
    than make up a megapixel, so the memory of a pass does not grow with the picture; without `window` it
    does.

    Args:
        images: (B, H, W, 3) uint8, channels in the order of `model.meta`.
        device: where the network is and the result will be.
        dtype: of autocast, None for float32.
        window: (width, height) of the windows in pixels of the scaled picture, None for the whole of it. A
            smaller picture goes through whole, without padding.
        stride_rate: distance between windows as a part of their size, above 0 and at most 1.
        scales: the picture is taken at each of these sizes, 1 for its own (bilinear).
        flip: takes the mirrored picture too.

    Returns:
        (B, C, H, W) float32; the classes of a pixel sum to 1.

    Raises:
        ValueError: `images` is something else.
        ConfigError: another argument cannot be.
    """
    _check(images, window, stride_rate, scales)
    model.eval()
    pictures = normalize_crops(images.to(device), model.meta.mean, model.meta.std)
    height, width = pictures.shape[2:]
    total = torch.zeros((len(images), model.meta.num_classes, height, width), device=device)
    for scale in scales:
        size = tuple(max(1, math.floor(n * scale + 0.5)) for n in (height, width))
        scaled = pictures if size == (height, width) else _resized(pictures, size)
        found = _slide(model, scaled, window, stride_rate, flip, dtype)
        total += found if size == (height, width) else _resized(found, (height, width))
    return total / len(scales)


def window_starts(length: int, window: int, stride_rate: float) -> list[int]:
    """Where windows begin that cover `length` pixels; one at 0 where `window` is at least as long."""
    if window >= length:
        return [0]
    stride = max(1, int(window * stride_rate))
    count = math.ceil((length - window) / stride) + 1
    return [min(i * stride, length - window) for i in range(count)]


def _slide(
    model: SegmentationModel,
    pictures: Tensor,
    window: tuple[int, int] | None,
    stride_rate: float,
    flip: bool,
    dtype: torch.dtype | None,
) -> Tensor:
    """Normalised pictures (B, 3, h, w) -> probabilities (B, C, h, w), averaged over the windows."""
    batch, _, height, width = pictures.shape
    w, h = (width, height) if window is None else (min(window[0], width), min(window[1], height))
    rows, columns = window_starts(height, h, stride_rate), window_starts(width, w, stride_rate)
    total = pictures.new_zeros((batch, model.meta.num_classes, height, width))
    count = pictures.new_zeros((height, width))
    for y, x in itertools.product(rows, columns):
        count[y : y + h, x : x + w] += 1
    places = list(itertools.product(range(batch), rows, columns))
    at_once = max(1, PASS_PIXELS // (h * w * (1 + flip)))
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]
        windows = torch.stack([pictures[i, :, y : y + h, x : x + w] for i, y, x in part])
        for (i, y, x), found in zip(part, _probabilities(model, windows, flip, dtype), strict=True):
            total[i, :, y : y + h, x : x + w] += found
    return total / count


def _probabilities(
    model: SegmentationModel, windows: Tensor, flip: bool, dtype: torch.dtype | None
) -> Tensor:
    size = windows.shape[2:]
    if flip:
        windows = torch.cat([windows, windows.flip(3)])
    with autocast(dtype, windows.device):
        logits = model(windows.contiguous(memory_format=torch.channels_last)).float()
    if flip:
        straight, mirrored = logits.chunk(2)
        logits = (straight + mirrored.flip(3)) / 2
    return enlarge(logits, size, model.meta.align_corners).softmax(1)


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _check(
    images: Tensor, window: tuple[int, int] | None, stride_rate: float, scales: Sequence[float]
) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != torch.uint8 or 0 in images.shape[1:]:
        raise ValueError(f"images: expected (B, H, W, 3) uint8, got {tuple(images.shape)} {images.dtype}")
    sides = window if isinstance(window, tuple | list) else ()
    if window is not None and (len(sides) != 2 or not all(type(n) is int and n > 0 for n in sides)):
        raise ConfigError(f"window must be (width, height) in pixels, got {window!r}")
    if not 0 < stride_rate <= 1:
        raise ConfigError(f"stride_rate must be above 0 and at most 1, got {stride_rate!r}")
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ConfigError(f"scales must be one or more numbers above 0, got {scales!r}")
