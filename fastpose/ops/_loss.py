"""Registration of the heatmap loss: schemas, one implementation per device, fakes. Arguments come checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose.ops._triton import interpreting
from fastpose.reference import loss as reference

torch.library.define(
    "fastpose::heatmap_loss_fwd",
    "(Tensor pred, Tensor joints, Tensor weight, "
    "int[2] input_size, float sigma, bool unbiased, int? topk) -> (Tensor loss, Tensor kept)",
)
torch.library.define(
    "fastpose::heatmap_loss_bwd",
    "(Tensor scale, Tensor pred, Tensor joints, Tensor weight, Tensor kept, "
    "int[2] input_size, float sigma, bool unbiased, int? topk) -> Tensor grad",
)
torch.library.define(
    "fastpose::heatmap_loss_grad",
    "(Tensor pred, Tensor joints, Tensor weight, Tensor? scale, "
    "int[2] input_size, float sigma, bool unbiased, int? topk) -> (Tensor loss, Tensor grad)",
)
# `target` below is the last four arguments; `kept` has a value only with topk.


def _fwd_triton(pred: Tensor, joints: Tensor, weight: Tensor, *target: Any) -> tuple[Tensor, Tensor]:
    from fastpose.kernels.loss import launch_heatmap_loss_fwd  # type: ignore[import-not-found]

    return launch_heatmap_loss_fwd(pred, joints, weight, *_for_kernel(*target))


def _fwd_cpu(pred: Tensor, joints: Tensor, weight: Tensor, *target: Any) -> tuple[Tensor, Tensor]:
    if interpreting():
        return _fwd_triton(pred, joints, weight, *target)
    named = _for_reference(*target)
    loss = reference.heatmap_loss(pred, joints, weight, **named)
    if named["topk"] is None:
        return loss, loss.new_empty(0, dtype=torch.float32)
    return loss, reference.hardest_joints(pred, joints, weight, **named).float()


def _fwd_fake(pred: Tensor, joints: Tensor, weight: Tensor, *target: Any) -> tuple[Tensor, Tensor]:
    kept = (0,) if target[-1] is None else weight.shape
    return _loss_fake(pred), pred.new_empty(kept, dtype=torch.float32)


def _bwd_triton(
    scale: Tensor, pred: Tensor, joints: Tensor, weight: Tensor, kept: Tensor, *target: Any
) -> Tensor:
    from fastpose.kernels.loss import launch_heatmap_loss_bwd

    used = None if target[-1] is None else kept
    return launch_heatmap_loss_bwd(scale, pred, joints, weight, used, *_for_kernel(*target))


def _bwd_cpu(
    scale: Tensor, pred: Tensor, joints: Tensor, weight: Tensor, kept: Tensor, *target: Any
) -> Tensor:
    if interpreting():
        return _bwd_triton(scale, pred, joints, weight, kept, *target)
    return reference.heatmap_loss_gradient(pred, joints, weight, scale=scale, **_for_reference(*target))


def _bwd_fake(scale: Tensor, pred: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(pred)


def _grad_triton(
    pred: Tensor, joints: Tensor, weight: Tensor, scale: Tensor | None, *target: Any
) -> tuple[Tensor, Tensor]:
    from fastpose.kernels.loss import launch_heatmap_loss_grad

    return launch_heatmap_loss_grad(pred, joints, weight, scale, *_for_kernel(*target))


def reference_loss_grad(
    pred: Tensor, joints: Tensor, weight: Tensor, scale: Tensor | None, *target: Any
) -> tuple[Tensor, Tensor]:
    """`heatmap_loss_grad` by the reference."""
    named = _for_reference(*target)
    loss = reference.heatmap_loss(pred, joints, weight, **named)
    return loss, reference.heatmap_loss_gradient(pred, joints, weight, scale=scale, **named)


def _grad_cpu(
    pred: Tensor, joints: Tensor, weight: Tensor, scale: Tensor | None, *target: Any
) -> tuple[Tensor, Tensor]:
    run = _grad_triton if interpreting() else reference_loss_grad
    return run(pred, joints, weight, scale, *target)


def _grad_fake(pred: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _loss_fake(pred), torch.empty_like(pred)


def _loss_fake(pred: Tensor) -> Tensor:
    return pred.new_empty((), dtype=torch.promote_types(pred.dtype, torch.float32))


def _for_kernel(input_size: Sequence[int], sigma: float, unbiased: bool, topk: int | None) -> tuple[Any, Any]:
    from fastpose.kernels.loss import Target

    return Target((input_size[0], input_size[1]), sigma, unbiased), topk


def _for_reference(
    input_size: Sequence[int], sigma: float, unbiased: bool, topk: int | None
) -> dict[str, Any]:
    size = (input_size[0], input_size[1])
    return {"input_size": size, "sigma": sigma, "unbiased": unbiased, "topk": topk}


torch.library.impl("fastpose::heatmap_loss_fwd", "cuda", _fwd_triton)
torch.library.impl("fastpose::heatmap_loss_fwd", "cpu", _fwd_cpu)
torch.library.register_fake("fastpose::heatmap_loss_fwd", _fwd_fake)
torch.library.impl("fastpose::heatmap_loss_bwd", "cuda", _bwd_triton)
torch.library.impl("fastpose::heatmap_loss_bwd", "cpu", _bwd_cpu)
torch.library.register_fake("fastpose::heatmap_loss_bwd", _bwd_fake)
torch.library.impl("fastpose::heatmap_loss_grad", "cuda", _grad_triton)
torch.library.impl("fastpose::heatmap_loss_grad", "cpu", _grad_cpu)
torch.library.register_fake("fastpose::heatmap_loss_grad", _grad_fake)
heatmap_loss_fwd = torch.ops.fastpose.heatmap_loss_fwd.default
heatmap_loss_bwd = torch.ops.fastpose.heatmap_loss_bwd.default
heatmap_loss_grad = torch.ops.fastpose.heatmap_loss_grad.default
