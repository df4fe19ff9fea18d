"""The single steps of a fused sum in bfloat16 at 256x192, against their reference, eager and compiled."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.bench_fuse import SHAPES, WHAT
from bench.checks import check_close, poisoned
from bench.fuse_calls import StepCall, draw_arguments, step_calls
from bench.fuse_cases import FuseShape
from bench.fuse_sides import COMPILE
from bench.measure import nbytes
from bench.rows import Case, Limit, Rows, Side
from fastpose.ops import fuse_steps
from fastpose.reference import fuse_steps as reference

STEPS = ("input_moments", "cross_moments", "forward_row", "backward_row", "input_gradient")
BATCHES = {"w48-row0": (32, 64, 128, 1024), "layer1": (64,)}
rows = Rows("fuse_steps")


def first_call(shape: FuseShape, step: str, batch: int, dtype: torch.dtype) -> StepCall:
    """Of several the first, which has the most pixels."""
    return next(call for call in step_calls(shape, batch, dtype) if call.step == step)


def limit(call: StepCall) -> Limit:
    """All arguments read once, all results written once."""
    arguments = tuple(call.arguments.values())
    moved = nbytes(arguments) + nbytes(getattr(fuse_steps, call.step)(*arguments))
    dtype = str(_images(call)[0].dtype).removeprefix("torch.")
    return Limit(moved, 2 * multiply_adds(call), dtype=dtype)


def multiply_adds(call: StepCall) -> int:
    """Of the products over pixels."""
    given = call.arguments
    if call.step == "input_moments":
        return given["x"].numel() * given["x"].shape[1]
    if call.step == "cross_moments":
        return sum(p.numel() for p in given["pooled"]) * given["x"].shape[1]
    if call.step == "forward_row":
        return sum(x.numel() * len(w) for x, w in zip(given["xs"], given["weights"], strict=True))
    if call.step == "input_gradient":
        return sum(image.numel() for image in (given["x"], *given["pooled"])) * given["x"].shape[1]
    return 0


def flat(value: Any) -> list[Tensor]:
    """All tensors of nested arguments or results."""
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value] if isinstance(value, Tensor) else []


def case(shape: FuseShape, step: str, batch: int, dtype: torch.dtype = torch.bfloat16) -> Case:
    call = first_call(shape, step, batch, dtype)
    candidate: Side = getattr(fuse_steps, step)
    eager: Side = getattr(reference, step)
    compiled: Side = torch.compile(eager, **COMPILE)

    def check(*arguments: Any) -> None:
        wide = flat(eager(*(_double(value) for value in arguments)))
        with poisoned():
            ours = flat(candidate(*arguments))
        for i, (mine, other, wanted) in enumerate(zip(ours, flat(compiled(*arguments)), wide, strict=True)):
            check_close(f"{step}, result {i}", mine, wanted)
            check_close(f"{step}, result {i} of torch.compile", other, wanted, dtype=torch.bfloat16)

    return Case(
        candidate=candidate,
        rivals={"eager": eager, "torch.compile": compiled},
        check=check,
        inputs=partial(draw_arguments, call),
        limit=limit(call),
        items=batch,
        unit="images",
        poison=False,  # the check poisons fastpose alone
    )


def _images(call: StepCall) -> list[Tensor]:
    return [x for x in flat(list(call.arguments.values())) if x.ndim == 4]


def _double(value: Any) -> Any:
    if isinstance(value, list):
        return [_double(entry) for entry in value]
    return value.double() if isinstance(value, Tensor) else value


for _shape, _batches in BATCHES.items():
    for _batch in _batches:
        for _step in STEPS:
            rows(
                f"{_step}-{_shape}-b{_batch}",
                group="micro",
                device="cuda",
                what=f"{_step} of {WHAT[_shape]}, batch {_batch}",
                rank=2 if _batch == 64 else 3,
                axes={"model": f"fuse {_shape}", "pass": _step, "batch": _batch},
            )(partial(case, SHAPES[_shape], _step, _batch))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_fuse_steps(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
