"""compile_checks: a break is counted wherever it is."""

from collections.abc import Callable

import pytest
import torch
from compile_checks import graph_breaks
from torch import Tensor


def whole(x: Tensor) -> Tensor:
    return x.sin() + 1


def middle(x: Tensor) -> Tensor:
    y = x.sin()
    torch._dynamo.graph_break()
    return y + 1


def last(x: Tensor) -> Tensor:
    y = x.sin()
    torch._dynamo.graph_break()
    return y


def twice(x: Tensor) -> Tensor:
    y = x.sin()
    torch._dynamo.graph_break()
    y = y.cos()
    torch._dynamo.graph_break()
    return y + 1


def same(x: Tensor) -> Tensor:
    return x


@torch.compiler.disable
def outside(x: Tensor) -> Tensor:
    return x.sin()


def calls_outside(x: Tensor) -> Tensor:
    return outside(x)


def synchronises(x: Tensor) -> Tensor:
    return x * x.sum().item()


@pytest.mark.parametrize(
    ("fn", "breaks"),
    [(whole, 0), (middle, 1), (last, 1), (twice, 2), (calls_outside, 1), (synchronises, 1)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
def test_counts_breaks(fn: Callable[[Tensor], Tensor], breaks: int, grad: bool) -> None:
    assert graph_breaks(fn, torch.ones(3, requires_grad=grad)) == breaks


def test_options_reach_the_function() -> None:
    def scaled(x: Tensor, *, factor: float) -> Tensor:
        return x * factor

    assert graph_breaks(scaled, torch.ones(3), factor=2.0) == 0


def test_nothing_to_compile_is_not_success() -> None:
    with pytest.raises(AssertionError, match=r"same: torch\.compile found nothing"):
        graph_breaks(same, torch.ones(3))
