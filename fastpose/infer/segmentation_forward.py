"""Pictures through a segmentation network: whole or in windows, at several scales, mirrored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import torch
from torch import Tensor

from fastpose.device import autocast
from fastpose.errors import ConfigError
from fastpose.infer.segmentation_average import AVERAGES, Average, average_of
from fastpose.models import SegmentationModel
from fastpose.nn.bilinear import enlarge
from fastpose.nn.normalize import normalize_crops

PASS_PIXELS = 2**20
"""Pixels in one forward pass of several windows: it is their activations that memory must hold."""
WHOLE_PIXELS = 2**21
"""Pixels up to which `window="auto"` takes a picture whole; those of Cityscapes, 2048x1024, just fit."""
WINDOW_SIDE = 1024
"""Pixels on a side of the windows of `window="auto"`, more where the training crops are larger."""
MAX_SCALE = 10

Window = tuple[int, int] | Literal["auto"] | None


@torch.inference_mode()
def class_probabilities(
    model: SegmentationModel,
    images: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    window: Window = None,
    stride_rate: float = 2 / 3,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: str = "softmax",
) -> Tensor:
    """The probability of every class at every pixel of (B, H, W, 3) uint8 pictures: (B, C, H, W) float32.

    The classes of a pixel sum to 1. A picture and its mirror image count as the mean of their logits. The
    network is left in eval mode. Raises ValueError for other images, ConfigError for another argument that
    cannot be.

    Args:
        images: channels in the order of `model.meta`.
        device, dtype: where the network is and the result will be; that of autocast, None for float32.
        window, stride_rate: see `window_size` and `window_starts`. No more windows than make up a megapixel
            go through the network at once, so a pass takes no more memory for a larger picture.
        scales: the picture is taken at each of these sizes, 1 for its own (bilinear).
        flip: takes the mirrored picture too.
        average: of what the mean is taken where windows overlap and over the scales, 'softmax' or 'exp'
            (`SoftmaxAverage`, `ExpAverage` of fastpose.infer.segmentation_average). Without either both give
            the same; published figures of several scales or windows are of 'exp'.
    """
    _check_images(images)
    check_passes(window, stride_rate, scales, average)
    model.eval()
    pictures = normalize_crops(images.to(device), model.meta.mean, model.meta.std)
    passes = _Passes(model, window, stride_rate, flip, dtype, average_of(average))
    total = passes.at_scale(pictures, scales[0])
    for scale in scales[1:]:
        passes.average.add(total, passes.at_scale(pictures, scale))
    return passes.average.probabilities(total, len(scales))


def window_size(
    window: Window, picture: tuple[int, int], input_size: tuple[int, int] = (0, 0)
) -> tuple[int, int]:
    """(width, height) of the windows that a picture (width, height) is taken in; all are of one size.

    A window is no larger than the picture, and None is the whole of it. 'auto' takes a picture of up to
    WHOLE_PIXELS whole, and a larger one in windows of WINDOW_SIDE, or of `input_size` in a direction in
    which that is more.
    """
    if window == "auto":
        whole = picture[0] * picture[1] <= WHOLE_PIXELS
        window = None if whole else (max(WINDOW_SIDE, input_size[0]), max(WINDOW_SIDE, input_size[1]))
    return picture if window is None else (min(window[0], picture[0]), min(window[1], picture[1]))


def window_starts(length: int, window: int, stride_rate: float) -> list[int]:
    """Where windows begin that cover `length` pixels; one at 0 where `window` is at least as long.

    The next one begins `stride_rate`, above 0 and at most 1, of a window further on; the last one is moved
    back to the edge.
    """
    if window >= length:
        return [0]
    stride = max(1, int(window * stride_rate))
    count = math.ceil((length - window) / stride) + 1
    return [min(i * stride, length - window) for i in range(count)]


@dataclass
class _Passes:
    """How normalised pictures (B, 3, H, W) go through a network; arguments of `class_probabilities`."""

    model: SegmentationModel
    window: Window
    stride_rate: float
    flip: bool
    dtype: torch.dtype | None
    average: Average

    def at_scale(self, pictures: Tensor, scale: float) -> Tensor:
        """What `average` keeps of the pictures (B, C, H, W) taken at one size."""
        own = pictures.shape[2:]
        size = torch.Size(max(1, math.floor(n * scale + 0.5)) for n in own)
        if size == own:
            return self.slide(pictures)
        found = self.slide(enlarge(pictures, size, align_corners=False))
        return self.average.resized(found, own, self.model.meta.align_corners)

    def slide(self, pictures: Tensor) -> Tensor:
        """The mean over the windows."""
        batch, _, height, width = pictures.shape
        w, h = window_size(self.window, (width, height), self.model.meta.input_size)
        rows = window_starts(height, h, self.stride_rate)
        columns = window_starts(width, w, self.stride_rate)
        total = pictures.new_full((batch, self.model.meta.num_classes, height, width), self.average.nothing)
        count = pictures.new_zeros((height, width))
        for y, x in itertools.product(rows, columns):
            count[y : y + h, x : x + w] += 1
        places = list(itertools.product(range(batch), rows, columns))
        at_once = max(1, PASS_PIXELS // (h * w * (1 + self.flip)))
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            windows = torch.stack([pictures[i, :, y : y + h, x : x + w] for i, y, x in part])
            found = self.average.of(self.logits(windows))
            for (i, y, x), one in zip(part, found, strict=True):
                self.average.add(total[i, :, y : y + h, x : x + w], one)
        self.average.divide(total, count)
        return total

    def logits(self, windows: Tensor) -> Tensor:
        """(B, C, h, w) float32 at the size of the windows."""
        size = windows.shape[2:]
        if self.flip:
            windows = torch.cat([windows, windows.flip(3)])
        with autocast(self.dtype, windows.device):
            logits = self.model(windows.contiguous(memory_format=torch.channels_last)).float()
        if self.flip:
            straight, mirrored = logits.chunk(2)
            logits = (straight + mirrored.flip(3)) / 2
        return enlarge(logits, size, self.model.meta.align_corners)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != torch.uint8 or 0 in images.shape[1:]:
        raise ValueError(f"images: expected (B, H, W, 3) uint8, got {tuple(images.shape)} {images.dtype}")


def check_passes(window: object, stride_rate: object, scales: object, average: object) -> None:
    """ConfigError for arguments of `class_probabilities` that cannot be."""
    sides = window if isinstance(window, tuple | list) else ()
    fits = len(sides) == 2 and all(type(n) is int and n > 0 for n in sides)
    if not fits and window is not None and window != "auto":
        raise ConfigError(f"window must be (width, height) in pixels, 'auto' or None, got {window!r}")
    if not _is_number(stride_rate) or not 0 < stride_rate <= 1:
        raise ConfigError(f"stride_rate must be above 0 and at most 1, got {stride_rate!r}")
    sizes = scales if isinstance(scales, tuple | list) else ()
    if not sizes or not all(_is_number(scale) and 0 < scale <= MAX_SCALE for scale in sizes):
        raise ConfigError(
            f"scales must be one or more numbers above 0 and at most {MAX_SCALE}, got {scales!r}"
        )
    if average not in AVERAGES:
        raise ConfigError(f"average must be 'softmax' or 'exp', got {average!r}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
