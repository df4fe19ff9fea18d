"""Whether two ways of taking a training step agree: loss, every gradient, every running statistic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.checks import EAGER_FACTOR, check_close, relative_l2
from bench.training import Step, Train

# Relative L2 error of gradients, root of the mean square over all parameters. A whole network amplifies
# rounding, and a ReLU that flips changes single gradients for good; a wrong gradient is off by about 1.
GRADIENT_FLOORS = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
SINGLE = 3.0  # one parameter may be as many times as far off as all are allowed to
STATISTICS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass
class Result:
    """What a step leaves behind; names are those of the official network."""

    loss: Tensor
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]


def take(step: Step | Train, *inputs: Tensor) -> Result:
    """One step from the starting weights, whatever the step has done before."""
    step.prepare(*inputs)
    step.reset()
    loss = step(*inputs).clone()
    if isinstance(step, Train):
        loss = loss[0].float() / len(inputs[0])
    named = {name.removeprefix("network."): p.grad for name, p in step.module.named_parameters()}
    buffers = {name.removeprefix("network."): b for name, b in step.module.named_buffers()}
    statistics = {name: b.clone() for name, b in buffers.items() if "running_" in name}
    return Result(loss, {name: g.clone() for name, g in named.items() if g is not None}, statistics)


@contextlib.contextmanager
def strict_float32() -> Iterator[None]:
    """Convolutions without TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        yield


def check_result(
    name: str, got: Result, expected: Result, yardstick: Result, dtype: torch.dtype = torch.bfloat16
) -> None:
    """AssertionError unless `got` is as close to `expected` as its precision allows.

    Args:
        expected: of the official code in strict float32.
        yardstick: of the plain layers in the precision of `got`: gradients may be 1.5 times as far off.
    """
    check_close(f"{name}: loss", got.loss, expected.loss, tolerance=STATISTICS[dtype])
    assert got.statistics.keys() == expected.statistics.keys(), f"{name}: other running statistics"
    for key, statistic in got.statistics.items():
        check_close(f"{name}: {key}", statistic, expected.statistics[key], tolerance=STATISTICS[dtype])
    errors = _errors(got.gradients, expected.gradients, name)
    own = _errors(yardstick.gradients, expected.gradients, "yardstick")
    allowed = max(GRADIENT_FLOORS[dtype], EAGER_FACTOR * _rms(own))
    found = _rms(errors)
    assert found <= allowed, f"{name}: gradients: relative L2 error {found:.3g}, allowed {allowed:.3g}"
    for key, error in errors.items():
        single = SINGLE * max(allowed, own[key])
        assert error <= single, f"{name}: gradient of {key}: error {error:.3g}, allowed {single:.3g}"


def _errors(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> dict[str, float]:
    assert got.keys() == expected.keys(), f"{name}: gradients of other parameters"
    return {key: relative_l2(gradient, expected[key]) for key, gradient in got.items()}


def _rms(errors: Mapping[str, float]) -> float:
    return (sum(error * error for error in errors.values()) / len(errors)) ** 0.5
