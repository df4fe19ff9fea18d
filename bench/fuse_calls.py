"""The registered steps that fastpose.ops.fuse makes of a fused sum: their shapes, and random arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.fuse_cases import FuseShape, Layers, meta_images
from fastpose.ops.fuse_autograd import fuse_by_moments

EPS = 1e-5
POSITIVE = ("cov", "variances")  # arguments of steps


class StepCall(NamedTuple):
    """A call of `fastpose.ops.fuse_steps.<step>` by the names of its schema; tensors are on "meta"."""

    step: str
    arguments: dict[str, Any]


def step_calls(
    shape: FuseShape, batch: int, dtype: torch.dtype, channels_last: bool = True
) -> list[StepCall]:
    """Every registered step of a forward and backward pass, in order."""
    images = [x.requires_grad_() for x in meta_images(shape, batch, dtype, channels_last)]
    rows = Layers(shape).to("meta").rows(images)
    with _Recorder() as recorder:
        outputs = fuse_by_moments(rows, EPS).outputs
        torch.autograd.grad(outputs, images, [torch.empty_like(y) for y in outputs], allow_unused=True)
    return recorder.calls


def draw_arguments(call: StepCall, draw: torch.Generator) -> tuple[Any, ...]:
    """The arguments of a call with random values, on the device of `draw`.

    They have a mean, so that no sum over the pixels is an accident of rounding.
    """

    def fill(value: Any, positive: bool) -> Any:
        if isinstance(value, list):
            return [fill(entry, positive) for entry in value]
        if not isinstance(value, Tensor):
            return value
        x = torch.randn(value.shape, generator=draw, device=draw.device) + 0.25
        filled = torch.empty_like(value, device=draw.device)
        return filled.copy_(x.abs() + 0.1 if positive else x)

    return tuple(fill(value, name in POSITIVE) for name, value in call.arguments.items())


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[StepCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = func._schema.name.split("::")
        if namespace == "fastpose":
            names = [argument.name for argument in func._schema.arguments]
            self.calls.append(
                StepCall(name.removeprefix("fuse_"), dict(zip(names, map(_shapes, args), strict=True)))
            )
        return func(*args, **(kwargs or {}))


def _shapes(value: Any) -> Any:
    """A copy without history: the recording must not keep a graph."""
    if isinstance(value, list):
        return [_shapes(entry) for entry in value]
    return torch.empty_like(value) if isinstance(value, Tensor) else value
