"""The set loss of PRTR (arXiv:2104.06976): queries matched to joints, then classes and coordinates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.nn.normalize import MEAN, STD, Triple
from fastpose.ops import assign_joints
from fastpose.train.objectives import Batch, CropObjective

COORDS = 5.0
"""Weight of a coordinate's L1 distance, in the matching and in the loss; that of the class is 1."""

NO_KEYPOINT = 0.1
"""Weight of the class for no keypoint in the cross-entropy."""

CLOSE = 0.1
"""Of the crop's width: how far a query may be from its joint and count as right in the score."""


class SetObjective(CropObjective):
    """Loss of a network that predicts queries, from joints (B, K, 2) in input pixels and weight (B, K).

    Every decoder layer is matched and judged on its own, and the losses are summed:

        cross-entropy over all queries, where a query's class is its joint or, with weight 0.1, no keypoint,
        divided by the sum of the weights
        + 5 K mean(weight |difference|) over samples, joints, x and y, in fractions of the crop

    As in the official code all joints are matched and classified, also those of weight 0, whose coordinates
    mean nothing. `visible_only` leaves them out: their queries learn to be no keypoint.

    The score is the share of joints of weight above 0 whose query in the last layer lies within 0.1 of the
    crop's width.

    Source: prtr lib/models/matcher.py, lib/core/loss.py.
    """

    inputs: tuple[str, ...] = ("crop", "joints", "weight")

    def __init__(self, *, visible_only: bool = False, mean: Triple = MEAN, std: Triple = STD) -> None:
        super().__init__(mean=mean, std=std)
        self.visible_only = visible_only

    def loss(self, prediction: Any, batch: Batch) -> Tensor:
        layers = [*prediction["aux_outputs"], prediction]
        logits = torch.stack([_full(layer["pred_logits"]) for layer in layers])
        coords = torch.stack([_full(layer["pred_coords"]) for layer in layers])
        target, weight = _target(batch, coords), batch["weight"].to(coords)
        return set_loss(logits, coords, target, weight, visible_only=self.visible_only)

    @torch.no_grad()
    def score(self, prediction: Any, batch: Batch) -> Tensor:
        logits, coords = _full(prediction["pred_logits"])[None], _full(prediction["pred_coords"])[None]
        target, weight = _target(batch, coords), batch["weight"].to(coords)
        query = match_queries(logits, coords, target, _matched(weight, self.visible_only))
        height, width = batch["crop"].shape[1:3]
        x, y = (_found(coords, query)[0] - target).unbind(-1)
        visible = weight > 0
        right = visible & (torch.hypot(x, y * (height / width)) < CLOSE)
        counted = visible.sum()
        return torch.stack([right.sum() / counted.clamp(min=1), counted]).double()


@torch.no_grad()
def match_queries(logits: Tensor, coords: Tensor, target: Tensor, matched: Tensor) -> Tensor:
    """The query of each joint at the least sum of 5 |difference|_1 - probability of the joint's class.

    Args:
        logits: (L, B, Q, K + 1), the last class for no keypoint.
        coords: (L, B, Q, 2) in fractions of the crop.
        target: (B, K, 2) in the same.
        matched: (B, K) bool; the other joints get queries that none of these wants.

    Returns:
        (L, B, K) int64, no query twice in a sample. Predictions that are not finite are avoided.

    Raises:
        ValueError: fewer queries than joints.
    """
    layers, batch, queries, classes = logits.shape
    if queries < classes - 1:
        raise ValueError(f"logits: {classes - 1} joints need as many queries, got {queries}")
    distance = (coords.unsqueeze(3) - target.unsqueeze(1)).abs().sum(-1)
    cost = COORDS * distance - logits.softmax(-1)[..., :-1]
    cost = torch.where(matched.unsqueeze(1), cost, 0.0)
    return assign_joints(cost.flatten(0, 1)).unflatten(0, (layers, batch))


def set_loss(
    logits: Tensor, coords: Tensor, target: Tensor, weight: Tensor, *, visible_only: bool = False
) -> Tensor:
    """Sum over the L layers of the loss that `SetObjective` states; shapes as in `match_queries`.

    weight: (B, K); a joint of weight 0 may have any coordinates.
    """
    matched = _matched(weight, visible_only)
    query = match_queries(logits, coords, target, matched)
    joints = target.shape[1]
    numbers = torch.where(matched, torch.arange(joints, device=query.device), joints)
    classes = torch.full(logits.shape[:-1], joints, device=query.device)
    classes.scatter_(2, query, numbers.expand_as(query))
    surprise = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none").view_as(classes)
    importance = torch.where(classes == joints, NO_KEYPOINT, surprise.new_ones(()))
    class_loss = (importance * surprise).sum((1, 2)) / importance.sum((1, 2))
    difference = (_found(coords, query) - target).abs()
    weighted = torch.where(weight[..., None] > 0, weight[..., None] * difference, 0.0)
    return (class_loss + COORDS * joints * weighted.mean((1, 2, 3))).sum()


def _found(coords: Tensor, query: Tensor) -> Tensor:
    """(L, B, Q, 2) at (L, B, K) -> (L, B, K, 2)."""
    return coords.gather(2, query.unsqueeze(-1).expand(-1, -1, -1, 2))


def _matched(weight: Tensor, visible_only: bool) -> Tensor:
    return weight > 0 if visible_only else torch.ones_like(weight, dtype=torch.bool)


def _target(batch: Batch, like: Tensor) -> Tensor:
    """Joints in fractions of the crop; those outside of it lie below 0 or above 1."""
    height, width = batch["crop"].shape[1:3]
    x, y = batch["joints"].to(like).unbind(-1)
    return torch.stack((x / width, y / height), dim=-1)


def _full(x: Tensor) -> Tensor:
    """Half precision is too coarse for coordinates and for sums of costs."""
    return x if x.dtype == torch.float64 else x.float()
