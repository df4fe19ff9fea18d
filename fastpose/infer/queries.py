"""From a network's queries to keypoints in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose._checks import check_no_grad, check_shape, check_tensor
from fastpose.ops import Decoded, assign_joints
from fastpose.reference.decode import to_image


def decode_queries(
    output: Mapping[str, Any],
    center: Tensor,
    scale: Tensor,
    input_size: tuple[int, int],
    *,
    flipped: Mapping[str, Any] | None = None,
    flip_index: Sequence[int] | Tensor | None = None,
    background: bool = False,
) -> Decoded:
    """Every joint takes a query of its own, so that the sum of their probabilities is largest.

    Args:
        output: 'pred_logits' (B, Q, K + 1) and 'pred_coords' (B, Q, 2), see `fastpose.models.PRTR`.
        center, scale: (B, 2) centre of the crop box in image pixels and its size / 200 px, of which only the
            width counts.
        input_size: (width, height) of the crop in pixels.
        flipped: the same of the mirrored crops. Its joints are mirrored back (x -> 1 - x, without a shift,
            left and right swapped) and averaged in, as are its scores; averaging in the image is the same.
        flip_index: K indices, needed with `flipped` (`KeypointSet.flip_index`).
        background: whether the class for no keypoint takes part in the softmax (INCLUDE_BG_LOGIT).

    Returns:
        keypoints (B, K, 2) float32 (x, y) in image pixels, never NaN; score (B, K) float32 probability;
        valid (B, K) bool, False where a query is not finite: score 0, at the crop's corner.

    Raises:
        TypeError, ValueError: an argument is wrong, or flip_index is missing.

    Source: prtr lib/core/inference.py, get_final_preds_match; lib/core/function.py, validate.
    """
    xy, score, valid = _take_queries(output, background)
    if flipped is not None:
        order = _order(flip_index, xy.shape[1])
        other_xy, other_score, other_valid = (_reorder(x, order) for x in _take_queries(flipped, background))
        xy, score, valid = (xy + _mirror(other_xy)) * 0.5, (score + other_score) * 0.5, valid & other_valid
    width, height = input_size
    xy = torch.where(valid[..., None], xy, 0.0)
    xy = torch.stack((xy[..., 0] * width, xy[..., 1] * height), dim=-1)
    return Decoded(to_image(xy, center, scale, width, height), torch.where(valid, score, 0.0), valid)


def _take_queries(output: Mapping[str, Any], background: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each joint's query: (x, y) in fractions of the crop (B, K, 2), probability and validity (B, K)."""
    logits, coords = output["pred_logits"], output["pred_coords"]
    for name, value in (("pred_logits", logits), ("pred_coords", coords)):
        check_tensor(name, value, 3)
        check_no_grad(name, value)
    batch, queries, classes = logits.shape
    check_shape("pred_coords", coords, (batch, queries, 2))
    if queries < classes - 1:
        raise ValueError(f"pred_logits: {classes - 1} joints need as many queries, got {queries}")
    logits = logits.float()
    shares = logits.softmax(-1)[..., :-1] if background else logits[..., :-1].softmax(-1)
    query = assign_joints(-shares)
    score = shares.gather(1, query.unsqueeze(1)).squeeze(1)
    xy = coords.float().gather(1, query.unsqueeze(-1).expand(-1, -1, 2))
    return xy, score, score.isfinite() & xy.isfinite().all(-1)


def _mirror(xy: Tensor) -> Tensor:
    return torch.stack((1.0 - xy[..., 0], xy[..., 1]), dim=-1)


def _order(flip_index: Sequence[int] | Tensor | None, joints: int) -> Tensor | tuple[int, ...]:
    if flip_index is None:
        raise ValueError("flip_index: needed with flipped, got None; pass KeypointSet.flip_index")
    if isinstance(flip_index, Tensor):
        check_shape("flip_index", flip_index, (joints,))
        return flip_index
    order = tuple(int(k) for k in flip_index)
    if sorted(order) != list(range(joints)):
        raise ValueError(f"flip_index: expected a permutation of {joints} joints, got {order}")
    return order


def _reorder(x: Tensor, order: Tensor | tuple[int, ...]) -> Tensor:
    """Joints of x (B, K, ...) in another order; numbers of Python are not copied to the device."""
    if isinstance(order, Tensor):
        return x.index_select(1, order.to(x.device))
    return torch.stack([x[:, k] for k in order], dim=1)
