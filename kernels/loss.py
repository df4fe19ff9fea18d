"""Heatmap loss and its gradient straight from joints; the specification is fastpose.reference.loss."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from fastpose.kernels.heatmap import (
    gaussian_centre,
    gaussian_falloff,
    gaussian_offset,
    gaussian_patch,
    gaussian_reach,
)
from fastpose.kernels.ohkm import launch_heatmap_ohkm
from torch import Tensor

TILE = 1024  # values of pred in flight in one program
STEPS = 4  # tiles of one program at most, which share the Gaussian's columns
MAX_COLS = 128
MAX_JOINTS = 64  # joints of one program where they are neighbours in memory
NUM_WARPS = 4


@triton.jit
def gaussian_axis(o_cell, cell, rest, drawn, falloff, REACH: tl.constexpr, UNBIASED: tl.constexpr):
    """One axis of the Gaussian, [cells, joints]; the map is the product of two."""
    b_offset = gaussian_offset(o_cell[:, None], cell[None, :], rest[None, :])
    m_near = tl.abs(b_offset) <= gaussian_reach(drawn, REACH, UNBIASED)[None, :]
    return tl.where(m_near, tl.exp(b_offset * b_offset * (-falloff)), 0.0)


@triton.jit
def heatmap_loss_kernel(
    p_pred,  # (B, COUNT, HEIGHT, WIDTH), any strides
    p_joints,  # [B * COUNT, 2] float32 or float64
    p_weight,  # [B * COUNT] float32
    p_kept,  # [B * COUNT] float32, 1 for the joints that have a gradient, or None for all
    p_scale,  # [] factor of the gradient, or None for 1
    p_partial,  # [B * COUNT, parts] float32, or None
    p_grad,  # as pred, or None
    falloff,  # 1 / (2 sigma²)
    share,  # of one pixel in the loss
    s_batch, s_joint, s_row, s_col,
    s_grad_batch, s_grad_joint, s_grad_row, s_grad_col,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    INPUT_WIDTH: tl.constexpr,
    INPUT_HEIGHT: tl.constexpr,
    REACH: tl.constexpr,
    UNBIASED: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    JOINTS: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    """Sum of `share / 2 (w (pred - g))²` over a part of some maps, and `scale share w² (pred - g)` there.

    Traffic: pred is read once and grad written once; 12 to 20 bytes read and 4 per part written for each map.
    """
    JOINT_BLOCKS: tl.constexpr = (COUNT + JOINTS - 1) // JOINTS
    COL_BLOCKS: tl.constexpr = (WIDTH + COLS - 1) // COLS
    i_sample = tl.program_id(0).to(tl.int64) // JOINT_BLOCKS
    i_part = tl.program_id(1)
    o_joint = (tl.program_id(0) % JOINT_BLOCKS) * JOINTS + tl.arange(0, JOINTS)  # [JOINTS]
    m_joint = o_joint < COUNT
    o_map = i_sample * COUNT + o_joint

    position_x = tl.load(p_joints + 2 * o_map, mask=m_joint, other=0.0)
    position_y = tl.load(p_joints + 2 * o_map + 1, mask=m_joint, other=0.0)
    x, rest_x, inside_x = gaussian_centre(position_x, WIDTH, INPUT_WIDTH, REACH, UNBIASED)
    y, rest_y, inside_y = gaussian_centre(position_y, HEIGHT, INPUT_HEIGHT, REACH, UNBIASED)
    b_weight = tl.load(p_weight + o_map, mask=m_joint, other=0.0)
    drawn = inside_x & inside_y & (b_weight > 0)
    b_weight = tl.where(drawn, 1.0, 0.0) * b_weight  # a weight that is NaN stays so
    falloff = tl.cast(falloff, tl.float32)
    share = tl.cast(share, tl.float32)
    b_factor = b_weight * share  # [JOINTS]
    if p_kept is not None:
        b_factor *= tl.load(p_kept + o_map, mask=m_joint, other=0.0)
    if p_scale is not None:
        b_factor *= tl.load(p_scale).to(tl.float32)

    o_col = (i_part % COL_BLOCKS) * COLS + tl.arange(0, COLS)  # [COLS]
    b_x = gaussian_axis(o_col, x, rest_x, drawn, falloff, REACH, UNBIASED)  # [COLS, JOINTS]
    m_map = (o_col < WIDTH)[:, None] & m_joint[None, :]
    o_pred = o_col.to(tl.int64)[:, None] * s_col + (o_joint.to(tl.int64) * s_joint)[None, :]
    o_grad = o_col.to(tl.int64)[:, None] * s_grad_col + (o_joint.to(tl.int64) * s_grad_joint)[None, :]
    b_sum = tl.zeros([ROWS, COLS, JOINTS], tl.float32)
    for i_step in tl.static_range(STEPS):
        o_row = ((i_part // COL_BLOCKS) * STEPS + i_step) * ROWS + tl.arange(0, ROWS)  # [ROWS]
        b_y = gaussian_axis(o_row, y, rest_y, drawn, falloff, REACH, UNBIASED)  # [ROWS, JOINTS]
        mask = (o_row < HEIGHT)[:, None, None] & m_map[None, :, :]
        o_row = o_row.to(tl.int64)[:, None, None]
        p_tile = p_pred + i_sample * s_batch + o_row * s_row + o_pred[None, :, :]
        b_pred = tl.load(p_tile, mask=mask, other=0.0).to(tl.float32)  # [ROWS, COLS, JOINTS]
        b_error = (b_pred - b_y[:, None, :] * b_x[None, :, :]) * b_weight[None, None, :]
        b_sum += tl.where(mask, b_error * b_error, 0.0)
        if p_grad is not None:
            p_tile = p_grad + i_sample * s_grad_batch + o_row * s_grad_row + o_grad[None, :, :]
            tl.store(p_tile, (b_error * b_factor[None, None, :]).to(p_grad.dtype.element_ty), mask=mask)
    if p_partial is not None:
        b_partial = tl.sum(tl.sum(b_sum, axis=0), axis=0) * (0.5 * share)  # [JOINTS]
        tl.store(p_partial + o_map * tl.num_programs(1) + i_part, b_partial, mask=m_joint)


class Target(NamedTuple):
    """What the target is drawn with: `gaussian_heatmaps` says what these are."""

    input_size: tuple[int, int]
    sigma: float
    unbiased: bool


def launch_heatmap_loss_fwd(
    pred: Tensor, joints: Tensor, weight: Tensor, target: Target, topk: int | None
) -> tuple[Tensor, Tensor]:
    """Loss () and, for a `topk`, which joints it kept, (B, K); both float32, kept (0,) without `topk`.

    The arguments are those of the reference and already checked: pred (B, K, H, W) float32, bfloat16 or
    float16, joints (B, K, 2) float32 or float64 in input pixels, weight (B, K). No tensor is looked at from
    the host.
    """
    partial, _ = _launch(pred, joints, weight, target, topk, loss=True)
    return _finish(partial, pred, topk)


def launch_heatmap_loss_bwd(
    scale: Tensor | None,
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    kept: Tensor | None,
    target: Target,
    topk: int | None,
) -> Tensor:
    """Gradient of `scale * loss` like pred; `kept` from the forward launch where there is a `topk`."""
    return _launch(pred, joints, weight, target, topk, scale=scale, kept=kept, grad=True)[1]


def launch_heatmap_loss_grad(
    pred: Tensor, joints: Tensor, weight: Tensor, scale: Tensor | None, target: Target, topk: int | None
) -> tuple[Tensor, Tensor]:
    """Loss and the gradient of `scale * loss`: pred is read once, or twice where `topk` must choose first."""
    if topk is None:
        partial, grad = _launch(pred, joints, weight, target, topk, scale=scale, loss=True, grad=True)
        return _finish(partial, pred, topk)[0], grad
    loss, kept = launch_heatmap_loss_fwd(pred, joints, weight, target, topk)
    return loss, launch_heatmap_loss_bwd(scale, pred, joints, weight, kept, target, topk)


def tile(pred: Tensor) -> dict[str, int]:
    """ROWS, COLS, JOINTS and STEPS: tiles of a map, or with joints innermost where memory has them so."""
    _, count, height, width = pred.shape
    cols, joints = min(triton.next_power_of_2(width), MAX_COLS), 1
    if pred.stride(1) < pred.stride(3):
        joints = min(triton.next_power_of_2(count), MAX_JOINTS)
        cols = min(cols, TILE // joints)
    rows = min(triton.next_power_of_2(height), TILE // (cols * joints))
    steps = min(STEPS, triton.cdiv(height, rows))
    return {"ROWS": rows, "COLS": cols, "JOINTS": joints, "STEPS": steps}


def _launch(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    target: Target,
    topk: int | None,
    *,
    scale: Tensor | None = None,
    kept: Tensor | None = None,
    loss: bool = False,
    grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Partial losses [B * K, parts] and gradient, each empty unless asked for."""
    batch, count, height, width = pred.shape
    shape = tile(pred)
    parts = triton.cdiv(height, shape["ROWS"] * shape["STEPS"]) * triton.cdiv(width, shape["COLS"])
    partial = torch.empty((batch * count, parts if loss else 0), device=pred.device)
    gradient = torch.empty_like(pred) if grad else pred.new_empty(0)
    if pred.numel() == 0:
        return partial, gradient
    with torch.cuda.device_of(pred):
        heatmap_loss_kernel[(batch * triton.cdiv(count, shape["JOINTS"]), parts)](
            pred,
            joints.contiguous(),
            weight.to(torch.float32).contiguous(),
            kept,
            scale,
            partial if loss else None,
            gradient if grad else None,
            gaussian_falloff(target.sigma),
            1.0 / (batch * (count if topk is None else topk) * height * width),
            *pred.stride(),
            *(gradient.stride() if grad else pred.stride()),
            COUNT=count,
            WIDTH=width,
            HEIGHT=height,
            INPUT_WIDTH=target.input_size[0],
            INPUT_HEIGHT=target.input_size[1],
            REACH=gaussian_patch(target.sigma, target.unbiased),
            UNBIASED=target.unbiased,
            **shape,
            num_warps=NUM_WARPS,
        )
    return partial, gradient


def _finish(partial: Tensor, pred: Tensor, topk: int | None) -> tuple[Tensor, Tensor]:
    """Loss and kept joints from the partial losses; the mean of no joints is NaN."""
    if topk is not None:
        partial, kept = launch_heatmap_ohkm(partial, *pred.shape[:2], topk)
    else:
        kept = partial.new_empty(0)
    return (partial.sum() if pred.numel() else partial.new_full((), float("nan"))), kept
