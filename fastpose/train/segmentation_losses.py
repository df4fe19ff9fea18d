"""Losses on class maps: cross-entropy, that of the hardest pixels, and cross-entropy with Dice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.classes import IGNORE
from fastpose.errors import ConfigError
from fastpose.nn.bilinear import enlarge

LOSSES = ("ce", "ohem", "ce_dice", "ce_dice_seed")
"""What `segmentation_loss` computes.

- 'ce': cross-entropy, the mean over the counted pixels, weighted by their class.
- 'ohem': cross-entropy of the hard pixels (online hard example mining). p is a pixel's probability of its
  class, t the larger of `threshold` and the (min_kept + 1)-th smallest p, or the largest p where fewer
  are counted; the plain mean over the pixels of p < t, 0 where there are none.
- 'ce_dice': mean of -log p * weight over the counted pixels, plus 1 - Dice, the mean over all classes of
  2 tp / (2 tp + fn + fp), each sum of probabilities over the counted pixels of the batch.
- 'ce_dice_seed': the same as its source computes it: pixels that do not count are in the mean of the
  cross-entropy and their predictions among the false positives, so that borders drag every class down.
"""

UNCOUNTED = -100
"""Stands for every label that is no class."""

CLIP = 1e-7
"""Keeps a probability's distance from 0 and 1 in the losses with Dice, whose gradient ends there."""

SMOOTH = 1e-5
"""Added above and below in Dice: a class that is neither there nor predicted scores 1."""


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    name: str = "ce",
    weight: Tensor | None = None,
    align_corners: bool = False,
    threshold: float = 0.9,
    min_kept: int = 131072,
) -> Tensor:
    """The one of LOSSES, a scalar, of logits enlarged bilinearly to the labels' size. The host reads nothing.

    Args:
        logits: (B, C, h, w), floating point; computed in float32, or in float64 for such logits.
        labels: (B, H, W), whole numbers; those outside 0 to C - 1, and 255, do not count. A batch without any
            pixel that counts has loss and gradient 0 ('ce_dice_seed' keeps the false positives).
        weight: (C,) of the classes, None for 1.
        align_corners: of the enlargement, the network's own.
        threshold, min_kept: of 'ohem'; the count is of these samples.

    Raises ValueError for shapes and dtypes that are wrong, ConfigError for a `name`, `threshold` or
    `min_kept` that cannot be.
    Source: seg lib/core/criterion.py ('ce', 'ohem'); k-seg nets/hrnet_training.py (Dice; arXiv:1606.04797).
    """
    check_loss(name, threshold, min_kept)
    _check_shapes(logits, labels, weight)
    scores = full_size(logits, labels, align_corners)
    target = counted_labels(labels, logits.shape[1])
    weight = None if weight is None else weight.to(scores)
    if name == "ohem":
        return _hard_cross_entropy(scores, target, weight, threshold, min_kept)
    if name == "ce":
        return _cross_entropy(scores, target, weight)
    return _cross_entropy_dice(scores, target, weight, as_seed=name == "ce_dice_seed")


def full_size(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    """Logits (B, C, h, w) in at least float32, enlarged to the labels (B, H, W)."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    size = labels.shape[-2:]
    return scores if scores.shape[2:] == size else enlarge(scores, size, align_corners)


def counted_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as int64, UNCOUNTED where they are 255 or no class."""
    labels = labels.long()
    counts = (labels >= 0) & (labels < num_classes) & (labels != IGNORE)
    return torch.where(counts, labels, UNCOUNTED)


def check_loss(name: str, threshold: float, min_kept: int) -> None:
    """ConfigError unless `segmentation_loss` takes these."""
    if name not in LOSSES:
        raise ConfigError(f"unknown segmentation loss {name!r}; known: {', '.join(LOSSES)}")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold must be a probability from 0 to 1, got {threshold!r}")
    if type(min_kept) is not int or min_kept < 0:
        raise ConfigError(f"min_kept must be a whole number of pixels, got {min_kept!r}")


def _cross_entropy(scores: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    counts = target != UNCOUNTED
    total = _pixel_losses(scores, target, weight).sum()
    if weight is None:
        return total / counts.sum().clamp(min=1)
    shares = torch.where(counts, weight[target.clamp(min=0)], 0).sum()
    return total / torch.where(shares > 0, shares, 1)


def _pixel_losses(scores: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """(B, H, W), 0 where nothing counts. PyTorch's own sum over them has no fixed order on a GPU."""
    return F.cross_entropy(scores, target, weight, ignore_index=UNCOUNTED, reduction="none")


def _hard_cross_entropy(
    scores: Tensor, target: Tensor, weight: Tensor | None, threshold: float, min_kept: int
) -> Tensor:
    losses = _pixel_losses(scores, target, weight)
    if losses.numel() == 0:
        return losses.sum()
    with torch.no_grad():
        plain = losses if weight is None else _pixel_losses(scores, target, None)
        hard = _hard_pixels(plain.neg().exp(), target != UNCOUNTED, threshold, min_kept)
    return torch.where(hard, losses, 0).sum() / hard.sum().clamp(min=1)


def _hard_pixels(p: Tensor, counts: Tensor, threshold: float, min_kept: int) -> Tensor:
    # A selection of a fixed length: how many pixels count is known to the device alone. The others come last.
    smallest = (
        torch.where(counts, p, 2).flatten().topk(min(min_kept + 1, p.numel()), largest=False, sorted=False)
    )
    limit = torch.minimum(smallest.values.max(), torch.where(counts, p, 0).max()).clamp(min=threshold)
    return counts & ~(p >= limit)  # a probability that is not a number stays in the loss, to be seen


def _cross_entropy_dice(scores: Tensor, target: Tensor, weight: Tensor | None, *, as_seed: bool) -> Tensor:
    counts = target != UNCOUNTED
    classes = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    truth = target[:, None] == classes
    p = scores.softmax(1).clamp(CLIP, 1 - CLIP)
    hits = p * truth
    losses = -torch.where(counts, hits.sum(1), 1).log()
    if weight is not None:
        losses = losses * weight[target.clamp(min=0)]
    pixels = torch.full_like(counts, True) if as_seed else counts
    cross_entropy = losses.sum() / pixels.sum().clamp(min=1)
    true_positive = hits.sum((0, 2, 3))
    false_positive = torch.where(pixels[:, None], p, 0).sum((0, 2, 3)) - true_positive
    false_negative = truth.sum((0, 2, 3)) - true_positive
    twice = 2 * true_positive + SMOOTH
    return cross_entropy + 1 - (twice / (twice + false_negative + false_positive)).mean()


def _check_shapes(logits: Tensor, labels: Tensor, weight: Tensor | None) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(
            f"logits: expected (B, C, h, w), floating point, got {tuple(logits.shape)} {logits.dtype}"
        )
    if labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(f"labels: expected ({len(logits)}, H, W), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels: expected whole numbers, got {labels.dtype}")
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight: expected ({logits.shape[1]},), one a class, got {tuple(weight.shape)}")
