"""heatmap_loss: weighted MSE or OHKM of a prediction straight from joints; a GPU stores no target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastpose._checks import check_device, check_no_grad, check_shape, check_tensor
from fastpose.backend import get_backend, register_operation
from fastpose.ops import _loss as registered
from fastpose.ops._arguments import check_sigma, check_sizes, check_tensors, check_topk_type
from fastpose.ops._triton import runs_on_triton
from fastpose.reference import loss as reference
from fastpose.reference.heatmap import check_heatmap_arguments

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # the kernel's


def heatmap_loss(
    pred: Tensor | Sequence[Tensor],
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    topk: int | None = None,
) -> Tensor:
    """Loss of heatmaps against the Gaussians of `gaussian_heatmaps`. Nothing waits for the device.

    Args:
        pred: (B, K, H, W) float32, bfloat16, float16 or float64 in any memory format, or a sequence of
            them, as stacked networks give; their losses are added. Computed in float32; float64 in float64.
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value, NaN and infinities included.
        weight: (B, K), any dtype; a joint above 0 is drawn and counts with its weight, squared, where its
            Gaussian reaches the map. Joints of weight 0 still count in the mean.
        input_size: (width, height).
        sigma: in heatmap cells, positive.
        unbiased: the target of DARK, as in `gaussian_heatmaps`.
        topk: None for `heatmap_mse`, or the joints of each sample that `heatmap_ohkm` keeps, 1 to K; of equal
            losses those of the lowest joints.

    Returns:
        Scalar, float32 (float64 for such a `pred`), differentiable once with respect to `pred`. NaN in `pred`
        gives NaN, and so does an empty batch.

    Raises:
        TypeError, ValueError: an argument is wrong, or `joints` or `weight` requires grad.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.

    Source: hrnet lib/core/loss.py, JointsMSELoss and JointsOHKMMSELoss; lib/core/function.py, train.
    """
    losses = []
    for one in _stacks(pred):
        _check(one, joints, weight, input_size, sigma, topk)
        if _on_triton(get_backend(), one.device, one.dtype):
            losses.append(_HeatmapLoss.apply(one, joints, weight, input_size, sigma, unbiased, topk))
        else:
            losses.append(
                reference.heatmap_loss(
                    one, joints, weight, input_size=input_size, sigma=sigma, unbiased=unbiased, topk=topk
                )
            )
    return sum(losses[1:], losses[0])


def heatmap_loss_and_gradient(
    pred: Tensor | Sequence[Tensor],
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    topk: int | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor | list[Tensor]]:
    """`heatmap_loss` and the gradient of `scale * heatmap_loss`, without autograd: one pass over `pred`.

    Args:
        scale: scalar tensor, floating point, on the device of `pred`, or None for 1. It enters before the
            gradient is rounded to the dtype of `pred`, so a loss scale keeps small float16 gradients.
        The others are those of `heatmap_loss`. With `topk` there are two passes: the joints must be chosen
        before there is a gradient.

    Returns:
        The loss without `scale`, and the gradient in dtype and memory format of `pred`; a list of them for a
        sequence.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.
    """
    losses, gradients = [], []
    for one in _stacks(pred):
        one = one.detach() if isinstance(one, Tensor) else one
        _check(one, joints, weight, input_size, sigma, topk)
        _check_scale(scale, one)
        arguments = one, joints, weight, scale, input_size, sigma, unbiased, topk
        run = (
            registered.heatmap_loss_grad
            if _on_triton(get_backend(), one.device, one.dtype)
            else registered.reference_loss_grad
        )
        loss, gradient = run(*arguments)
        losses.append(loss)
        gradients.append(gradient)
    return sum(losses[1:], losses[0]), gradients[0] if isinstance(pred, Tensor) else gradients


class _HeatmapLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, joints: Tensor, weight: Tensor, *target: Any) -> Tensor:
        loss, kept = registered.heatmap_loss_fwd(pred, joints, weight, *target)
        ctx.save_for_backward(pred, joints, weight, kept)
        ctx.target = target
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        pred, joints, weight, kept = ctx.saved_tensors
        grad = registered.heatmap_loss_bwd(scale, pred, joints, weight, kept, *ctx.target)
        return grad, *[None] * 6


def _stacks(pred: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    if isinstance(pred, Tensor):
        return (pred,)
    if not isinstance(pred, Sequence):
        raise TypeError(f"pred: expected a torch.Tensor or a sequence of them, got {type(pred).__name__}")
    if not pred:
        raise ValueError("pred: expected at least one tensor, got an empty sequence")
    return pred


def _check(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    input_size: tuple[int, int],
    sigma: float,
    topk: int | None,
) -> None:
    check_tensor("pred", pred, 4)
    if pred.dtype not in (*_DTYPES, torch.float64):
        raise TypeError(f"pred: expected float32, bfloat16, float16 or float64, got {pred.dtype}")
    batch, count, height, width = pred.shape
    if min(count, height, width) < 1:
        raise ValueError(f"pred: expected (B, K, H, W) with K, H, W > 0, got {tuple(pred.shape)}")
    check_tensors(joints=joints, weight=weight)
    check_sizes(input_size=input_size)
    check_sigma(sigma)
    check_topk_type(topk)
    check_shape("joints", joints, (batch, count, 2))
    check_shape("weight", weight, (batch, count))
    check_heatmap_arguments(joints, weight, (width, height), input_size, sigma)
    for name, value in (("joints", joints), ("weight", weight)):
        check_device(name, value, pred.device)
        check_no_grad(name, value)
    if topk is not None:
        reference.check_topk(topk, count)


def _check_scale(scale: Tensor | None, pred: Tensor) -> None:
    if scale is not None:
        check_tensor("scale", scale, 0)
        check_device("scale", scale, pred.device)


def _on_triton(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    refusal = "" if dtype in _DTYPES else f"the kernel has no code for {dtype} heatmaps"
    return runs_on_triton("heatmap_loss", "the maps of pred", backend, device.type, refusal)


register_operation("heatmap_loss", "triton", _on_triton)
