"""How what a network says of a pixel in several windows and at several scales becomes one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.nn.bilinear import enlarge

AVERAGES = ("softmax", "exp")

LARGEST = 80.0
"""What the largest logit of a picture becomes before exp, which float32 holds up to 88 and down to -103."""


class Average(Protocol):
    """What is summed over windows and scales, in place: for a large picture these are the largest arrays.

    Arrays are (B, C, H, W) float32, or (C, h, w) of one window.
    """

    nothing: float
    """What a sum begins with."""

    def of(self, logits: Tensor) -> Tensor:
        """What logits contribute."""

    def add(self, total: Tensor, found: Tensor) -> None:
        """Adds one contribution to the sum."""

    def divide(self, total: Tensor, count: Tensor) -> None:
        """Makes the sum over the windows their mean; `count` (H, W) is how many there are at each pixel."""

    def resized(self, found: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        """The mean at one scale, at the size (height, width) of the picture, bilinear."""

    def probabilities(self, total: Tensor, scales: int) -> Tensor:
        """Of the sum over so many scales; the classes of a pixel sum to 1."""


class SoftmaxAverage:
    """The mean of probabilities: every window and every scale has the same weight."""

    nothing = 0.0

    def of(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def add(self, total: Tensor, found: Tensor) -> None:
        total.add_(found)

    def divide(self, total: Tensor, count: Tensor) -> None:
        total.div_(count)

    def resized(self, found: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        return F.interpolate(found, size=tuple(size), mode="bilinear", align_corners=False)

    def probabilities(self, total: Tensor, scales: int) -> Tensor:
        return total.div_(scales)


class ExpAverage:
    """The mean of exp(logits), divided by its sum over the classes at the very end: a window or scale counts
    the more the larger its logits are.

    Sums are kept as their logarithms, so that nothing overflows. Resizing alone takes exp itself, of logits
    that a constant of the whole picture brings to LARGEST at most: where all classes of a pixel are more than
    160 below that picture's largest logit, they count as equal at that scale.
    Source: seg lib/datasets/base_dataset.py, inference and multi_scale_inference, which resize with the
    network's align_corners.
    """

    nothing = float("-inf")

    def of(self, logits: Tensor) -> Tensor:
        return logits

    def add(self, total: Tensor, found: Tensor) -> None:
        torch.logaddexp(total, found, out=total)

    def divide(self, total: Tensor, count: Tensor) -> None:
        total.sub_(count.log())

    def resized(self, found: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        if not len(found):
            return enlarge(found, size, align_corners)
        shift = found.amax((1, 2, 3), keepdim=True) - LARGEST
        powers = enlarge((found - shift).exp_(), size, align_corners)
        return powers.clamp_(min=torch.finfo(powers.dtype).smallest_normal).log_().add_(shift)

    def probabilities(self, total: Tensor, scales: int) -> Tensor:
        return total.softmax(1)


def average_of(name: str) -> Average:
    """By one of AVERAGES."""
    return ExpAverage() if name == "exp" else SoftmaxAverage()
