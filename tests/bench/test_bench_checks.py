"""The check before timing: relative error, precision, shapes, and memory nobody wrote."""

import math

import pytest
import torch

from bench.checks import check_close, poisoned, relative_l2


def test_relative_l2():
    assert relative_l2(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_l2(torch.zeros(3), torch.zeros(3)) == 0.0
    assert relative_l2(torch.ones(3), torch.zeros(3)) == math.inf
    assert math.isnan(relative_l2(torch.tensor([math.nan]), torch.ones(1)))


@pytest.mark.parametrize(
    ("dtype", "error", "passes"),
    [
        pytest.param(torch.float32, 5e-6, True, id="float32"),
        pytest.param(torch.float32, 2e-5, False, id="float32-off"),
        pytest.param(torch.bfloat16, 1e-2, True, id="bfloat16"),
        pytest.param(torch.bfloat16, 3e-2, False, id="bfloat16-off"),
    ],
)
def test_tolerance_goes_by_precision(dtype, error, passes):
    expected = torch.rand(1000, dtype=torch.float64) + 1
    got = expected * (1 + error)
    if passes:
        check_close("y", got, expected, dtype=dtype)
    else:
        with pytest.raises(AssertionError, match="y: relative L2 error"):
            check_close("y", got, expected, dtype=dtype)


def test_no_farther_off_than_eager():
    expected = torch.rand(1000, dtype=torch.float64) + 1
    eager, got = expected * (1 + 4e-3), expected * (1 + 9e-3)
    check_close("y", eager, expected, dtype=torch.bfloat16, eager=eager)
    with pytest.raises(AssertionError, match="eager allows"):
        check_close("y", got, expected, dtype=torch.bfloat16, eager=eager)


@pytest.mark.parametrize(
    "got", [torch.full((4,), math.nan), torch.ones(3), torch.ones(4) * 2], ids=["nan", "shape", "value"]
)
def test_wrong_outputs_fail(got):
    with pytest.raises(AssertionError, match=r"^y: "):
        check_close("y", got, torch.ones(4))


def test_integers_must_be_equal():
    check_close("index", torch.tensor([1, 2]), torch.tensor([1, 2]))
    with pytest.raises(AssertionError, match="index"):
        check_close("index", torch.tensor([1, 2]), torch.tensor([1, 3]))


def test_poison_fills_what_nobody_wrote_and_ends():
    torch.use_deterministic_algorithms(False)
    with poisoned():
        assert torch.empty(64).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    with poisoned(False):
        assert not torch.are_deterministic_algorithms_enabled()
