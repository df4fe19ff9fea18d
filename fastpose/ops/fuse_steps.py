"""The registered steps of the fused sum; fastpose.reference.fuse_steps says what each one computes.

On CUDA they are Triton kernels; on a CPU the reference runs, or the kernels in Triton's interpreter.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose.ops._triton import interpreting
from fastpose.reference import fuse_steps as reference
from fastpose.reference.fuse import vector_dtype

_KERNELS = {
    "input_moments": "moments",
    "channel_statistics": "fuse_statistics",
    "path_statistics": "fuse_statistics",
    "cross_moments": "moments",
    "forward_row": "fuse_forward",
    "backward_row": "fuse_backward",
    "input_gradient": "fuse_gradients",
    "image_gradients": "fuse_gradients",
    "weight_gradients": "fuse_weights",
}


def image_format(x: Tensor) -> torch.memory_format:
    """The layout of a step's images: channels_last where the first of them is nothing else."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def _register(name: str, schema: str, fake: Callable[..., Any]) -> Any:
    def on_cuda(*arguments: Any) -> Any:
        module = importlib.import_module(f"fastpose.kernels.{_KERNELS[name]}")
        return getattr(module, f"launch_{name}")(*arguments)

    def on_cpu(*arguments: Any) -> Any:
        if interpreting():
            return on_cuda(*arguments)
        with torch.autocast("cpu", enabled=False):  # the reference chooses its own precision
            return _like_fake(getattr(reference, name)(*arguments), fake(*arguments))

    torch.library.define(f"fastpose::fuse_{name}", schema)
    torch.library.impl(f"fastpose::fuse_{name}", "cuda", on_cuda)
    torch.library.impl(f"fastpose::fuse_{name}", "cpu", on_cpu)
    torch.library.register_fake(f"fastpose::fuse_{name}", fake)
    return getattr(torch.ops.fastpose, f"fuse_{name}").default


def _like_fake(got: Any, expected: Any) -> Any:
    """The strides that the kernels write, which the fake promises."""
    if isinstance(got, Tensor):
        return got if got.stride() == expected.stride() else torch.empty_like(expected).copy_(got)
    return type(got)(_like_fake(a, b) for a, b in zip(got, expected, strict=True))


def _image(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=image_format(like))


def _vectors(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=vector_dtype(like), device=like.device)


def _forward_row_fake(
    identity: Tensor | None, xs: list[Tensor], weights: list[Tensor], images: list[Tensor], *rest: Any
) -> Tensor:
    like = identity if identity is not None else (*xs, *images)[0]
    channels = weights[0].shape[0] if weights else like.shape[1]
    size = rest[-2]
    return _image(like, (like.shape[0], channels, size[0], size[1]))


def _backward_row_fake(
    grad: Tensor,
    output: Tensor,
    images: list[Tensor],
    means: Any,
    variances: Any,
    levels: list[int],
    eps: float,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    batch, channels, height, width = grad.shape
    pooled = [_image(grad, (batch, channels, height >> level, width >> level)) for level in levels]
    masked = _image(grad, grad.shape)
    return masked, pooled, _vectors(grad, channels), _vectors(grad, len(images), channels)


def _cross_moments_fake(
    x: Tensor, mean: Tensor, pooled: list[Tensor], weights: list[Tensor], *_: Any
) -> tuple[list[Tensor], list[Tensor]]:
    return [_vectors(x, *w.shape) for w in weights], [_vectors(x, w.shape[0]) for w in weights]


def _weight_gradients_fake(
    crosses: list[Tensor], weights: list[Tensor], *rest: Any
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    inputs = weights[0].shape[1]
    dweights = [torch.empty_like(cross) for cross in crosses]
    scaled = [torch.empty_like(weight, memory_format=torch.contiguous_format) for weight in weights]
    return dweights, scaled, weights[0].new_empty(inputs, inputs), _vectors(weights[0], inputs)


input_moments = _register(
    "input_moments",
    "(Tensor x) -> (Tensor mean, Tensor cov)",
    lambda x: (_vectors(x, x.shape[1]), _vectors(x, x.shape[1], x.shape[1])),
)
channel_statistics = _register(
    "channel_statistics", "(Tensor[] xs) -> Tensor[]", lambda xs: [_vectors(x, 2, x.shape[1]) for x in xs]
)
path_statistics = _register(
    "path_statistics",
    "(Tensor mean, Tensor cov, Tensor[] weights) -> Tensor[]",
    lambda mean, cov, weights: [_vectors(mean, 2, w.shape[0]) for w in weights],
)
forward_row = _register(
    "forward_row",
    "(Tensor? identity, Tensor[] xs, Tensor[] weights, Tensor[] images, Tensor[] gammas, Tensor[] betas, "
    "Tensor[] means, Tensor[] variances, SymInt[2] size, float eps) -> Tensor",
    _forward_row_fake,
)
backward_row = _register(
    "backward_row",
    "(Tensor grad, Tensor output, Tensor[] images, Tensor[] means, Tensor[] variances, int[] levels, "
    "float eps) -> (Tensor masked, Tensor[] pooled, Tensor dbeta, Tensor dgammas)",
    _backward_row_fake,
)
cross_moments = _register(
    "cross_moments",
    "(Tensor x, Tensor mean, Tensor[] pooled, Tensor[] weights, Tensor[] means, Tensor[] variances, "
    "float eps) -> (Tensor[] crosses, Tensor[] dgammas)",
    _cross_moments_fake,
)
weight_gradients = _register(
    "weight_gradients",
    "(Tensor[] crosses, Tensor[] weights, Tensor[] gammas, Tensor[] means, Tensor[] variances, "
    "Tensor[] local_dbetas, Tensor[] dbetas, Tensor[] dgammas, Tensor mean, Tensor cov, SymInt[] totals, "
    "SymInt count, float eps) -> (Tensor[] dweights, Tensor[] scaled, Tensor matrix, Tensor offset)",
    _weight_gradients_fake,
)
input_gradient = _register(
    "input_gradient",
    "(Tensor x, Tensor? masked, Tensor[] pooled, Tensor[] scaled, Tensor matrix, Tensor offset) -> Tensor",
    lambda x, *_: _image(x, x.shape),
)
image_gradients = _register(
    "image_gradients",
    "(Tensor masked, Tensor[] images, Tensor[] gammas, Tensor[] means, Tensor[] variances, Tensor[] dbetas, "
    "Tensor[] dgammas, SymInt[] totals, float eps) -> Tensor[]",
    lambda masked, images, *_: [_image(masked, image.shape) for image in images],
)
