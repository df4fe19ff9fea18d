"""Whether a side computes what it should, before it is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

# Relative L2 error against a float64 or float32 reference; float16 has 8 times the resolution of bfloat16.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2.5e-3, torch.bfloat16: 2e-2}
EAGER_FACTOR = 1.5


def relative_l2(got: Tensor, expected: Tensor) -> float:
    """|got - expected| / |expected| over all elements, in float64; NaN where either holds one.

    0 for two zeros, infinite for an error where zero is expected.
    """
    error = (got.detach().double() - expected.detach().double()).norm().item()
    size = expected.detach().double().norm().item()
    return error / size if size else (0.0 if error == 0 else error * float("inf"))


def check_close(
    name: str,
    got: Tensor,
    expected: Tensor,
    *,
    dtype: torch.dtype | None = None,
    eager: Tensor | None = None,
    tolerance: float | None = None,
) -> None:
    """AssertionError unless `got` is `expected` to the tolerance of its precision.

    Args:
        dtype: the precision that the work was done in; that of `got` if not given.
        eager: what plain PyTorch gives in the same precision: `got` may be 1.5 times as far off, no farther.
        tolerance: instead of the table's.
    """
    assert got.shape == expected.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    precision = dtype or got.dtype
    allowed = TOLERANCES.get(precision, 0.0) if tolerance is None else tolerance
    error = relative_l2(got, expected.to(got.device))
    assert error <= allowed, f"{name}: relative L2 error {error:.3g}, allowed {allowed:.3g} in {precision}"
    if eager is not None:
        allowed = (
            EAGER_FACTOR * relative_l2(eager, expected.to(eager.device)) + torch.finfo(precision).eps / 8
        )
        assert error <= allowed, f"{name}: relative L2 error {error:.3g}, eager allows {allowed:.3g}"


@contextlib.contextmanager
def poisoned(on: bool = True) -> Iterator[None]:
    """torch.empty and its kin hold NaN, so that an output nobody wrote cannot pass."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    if on:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
