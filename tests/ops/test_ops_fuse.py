"""fastpose.ops.fuse without its kernels: algebra, registration, compilation, arguments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from fuse_cases import CASES, bottleneck_rows, cast, detached, exchange_rows, record_calls, relative_error
from torch import Tensor

from fastpose import backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import fuse
from fastpose.ops.fuse_autograd import fuse_by_moments
from fastpose.reference import fuse as reference
from fastpose.reference.fuse import Fused, Path, Row

DOUBLE = torch.float64
ALL_CASES = {
    **CASES,
    "bottleneck": lambda **_: bottleneck_rows(downsample=False),
    "bottleneck with shortcut": lambda **_: bottleneck_rows(downsample=True),
}


def waves(outputs: list[Tensor]) -> list[Tensor]:
    """Fixed gradients of no particular structure."""
    return [torch.cos(torch.arange(y.numel(), dtype=DOUBLE)).view(y.shape).to(y.dtype) for y in outputs]


def gradients(fused: Fused, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(fused.outputs, leaves, waves(fused.outputs)))


@pytest.mark.parametrize("frozen", [False, True], ids=["batch", "frozen"])
@pytest.mark.parametrize("name", ALL_CASES)
def test_moments_give_the_layers_results(name: str, frozen: bool) -> None:
    rows, leaves = cast(ALL_CASES[name](frozen=frozen), DOUBLE, DOUBLE)
    expected, got = reference.fuse(rows), fuse_by_moments(rows, 1e-5)
    for a, b in zip(got.outputs, expected.outputs, strict=True):
        assert relative_error(a, b) < 1e-13
    for a, b in zip(gradients(got, leaves), gradients(expected, leaves), strict=True):
        assert relative_error(a, b) < 1e-11
    pairs = [zip(*rows, strict=True) for rows in zip(got.statistics, expected.statistics, strict=True)]
    for ours, theirs in itertools.chain(*pairs):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours.mean, theirs.mean)
            torch.testing.assert_close(ours.var, theirs.var)
            assert ours.pixels == theirs.pixels


@pytest.mark.parametrize("frozen", [False, True], ids=["batch", "frozen"])
def test_gradcheck(frozen: bool) -> None:
    rows, leaves = cast(exchange_rows((2, 3, 2), (4, 4), frozen=frozen), DOUBLE, DOUBLE)

    def outputs(*_: Tensor) -> tuple[Tensor, ...]:
        return tuple(fuse_by_moments(rows, 1e-3).outputs)

    assert torch.autograd.gradcheck(outputs, leaves, atol=1e-6)


def test_gradients_of_unused_outputs_and_frozen_leaves() -> None:
    rows, leaves = cast(CASES["three branches"](), DOUBLE, DOUBLE)
    leaves[0].requires_grad_(False)
    got = torch.autograd.grad(fuse_by_moments(rows, 1e-5).outputs[1].sum(), leaves[1:], allow_unused=True)
    expected = torch.autograd.grad(reference.fuse(rows).outputs[1].sum(), leaves[1:], allow_unused=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


def test_an_empty_batch_gives_zeros() -> None:
    rows, leaves = cast(exchange_rows((4, 8, 16), (8, 12), batch=0), DOUBLE, DOUBLE)
    fused = fuse_by_moments(rows, 1e-5)
    assert [y.shape for y in fused.outputs] == [row.identity.shape for row in rows]
    for leaf, gradient in zip(leaves, gradients(fused, leaves), strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))
    for statistics in itertools.chain(*fused.statistics):
        assert statistics.pixels == 0
        assert not statistics.mean.any()
        assert not statistics.var.any()


def test_second_derivatives_are_refused() -> None:
    rows, leaves = cast(CASES["two branches"](), DOUBLE, DOUBLE)
    loss = fuse_by_moments(rows, 1e-5).outputs[0].square().sum()
    (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_plain_tensors_and_missing_vectors() -> None:
    """(C, inputs) weights, BatchNorms without affine parameters, no gradient."""
    x0, x1 = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    rows = [Row(x0, (Path(x1, torch.randn(3, 5)), Path(torch.randn(2, 3, 4, 4), None)))]
    expected = reference.fuse(rows).outputs[0]
    torch.testing.assert_close(fuse_by_moments(rows, 1e-5).outputs[0], expected)
    torch.testing.assert_close(fuse(rows).outputs[0], expected)


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "nchw"])
def test_steps_pass_opcheck(last: bool) -> None:
    """Every registered step, called as the fused sum calls it."""
    rows, leaves = cast(exchange_rows((3, 4, 5), (8, 4), last=last), torch.float32, torch.float32)
    calls = record_calls(lambda: gradients(fuse_by_moments(rows, 1e-5), leaves))
    assert {name for name, _, _ in calls} == {
        f"fuse_{step}"
        for step in (
            "input_moments", "channel_statistics", "path_statistics", "forward_row", "backward_row",
            "cross_moments", "weight_gradients", "input_gradient", "image_gradients",
        )
    }  # fmt: skip
    seen = set()
    for name, op, arguments in calls:
        if name not in seen:
            torch.library.opcheck(op, detached(arguments))
        seen.add(name)


def test_compiles_whole(by_moments: None) -> None:
    rows, leaves = cast(CASES["three branches"](frozen=True), DOUBLE, DOUBLE)
    compiled = torch.compile(lambda: fuse(rows), fullgraph=True, backend="aot_eager")
    expected = fuse_by_moments(rows, 1e-5)
    got = compiled()
    for a, b in zip(got.outputs, expected.outputs, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(gradients(got, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def by_moments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The steps run on the CPU, by their reference, where the kernels would run on a GPU."""
    torch._dynamo.reset()
    monkeypatch.setattr("fastpose.ops._fuse.fuse_runs_on_triton", lambda *_: True)
    yield
    torch._dynamo.reset()


def test_triton_by_name_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "_current", "triton")
    with pytest.raises(BackendUnavailableError, match="triton: fuse: tensors are on cpu"):
        fuse(CASES["two branches"]())


X0, X1 = torch.zeros(2, 3, 8, 4), torch.zeros(2, 5, 4, 2)
W, V = torch.zeros(3, 5, 1, 1), torch.ones(3)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], ValueError, "rows: expected at least one"),
        ([Row(None, ())], ValueError, r"rows\[0\]: expected an identity or a path"),
        ([Row(X0.int(), ())], TypeError, r"rows\[0\]: .*torch.int32"),
        ([Row(X0[0], ())], ValueError, r"rows\[0\]: expected 4 dimensions"),
        ([Row(X0, (Path(X1.double(), W),))], TypeError, r"rows\[0\]: expected torch.float32"),
        ([Row(X0, (Path(X1.to("meta"), W),))], ValueError, r"expected a tensor on cpu, got one on meta"),
        ([Row(X0, (Path(X1, W[:, :4]),))], ValueError, r"rows\[0\].weight: expected shape \(3, 5, 1, 1\)"),
        ([Row(X0, (Path(X1, W[:2]),))], ValueError, r"weight: expected shape \(3, 5, 1, 1\)"),
        ([Row(X0, (Path(X1, W, torch.ones(5)),))], ValueError, r"gamma: expected shape \(3,\), got \(5,\)"),
        ([Row(X0, (Path(X1, W, mean=torch.ones(3)),))], ValueError, "mean and var: give both"),
        ([Row(X0, (Path(X1, [[1.0]]),))], TypeError, r"rows\[0\].weight: expected a torch.Tensor, got list"),
        ([Row(X0, (Path(X1, W.int()),))], TypeError, r"rows\[0\].weight: .*torch.int32"),
        ([Row(X0, (Path(X1, W.to("meta")),))], ValueError, r"weight: expected a tensor on cpu"),
        ([Row(X0, (Path(X1, W[0]),))], ValueError, r"weight: expected 4 dimensions, got shape \(5, 1, 1\)"),
        ([Row(X0, (Path(X1, W, 1.0),))], TypeError, r"rows\[0\].gamma: expected a torch.Tensor, got float"),
        ([Row(X0, (Path(X1, W, None, V.long()),))], TypeError, r"rows\[0\].beta: .*torch.int64"),
        ([Row(X0, (Path(X1, W, V, V.to("meta")),))], ValueError, r"beta: expected a tensor on cpu"),
        ([Row(X0, (Path(X1, W, V, V, V.bool(), V),))], TypeError, r"rows\[0\].mean: .*torch.bool"),
        ([Row(X0, (Path(X1, W, V, V, V, V.to("meta")),))], ValueError, r"var: expected a tensor on cpu"),
        ([Row(X0, (Path(X1[..., :1], W),))], ValueError, r"\(2, 5, 4, 1\) does not fit .*\(2, 5, 8, 4\)"),
        ([Row(X0, (Path(X1[:1], W),))], ValueError, r"\(1, 5, 4, 2\) does not fit"),
        ([Row(X0[:, :, :7], (Path(X1, W),))], ValueError, r"\(2, 5, 4, 2\) does not fit .*\(2, 5, 7, 4\)"),
        ([Row(X0, (Path(X0[..., :2], None),))], ValueError, r"\(2, 3, 8, 2\) does not fit"),
        ([Row(X1, (Path(X0, torch.zeros(5, 3)),))], ValueError, r"\(2, 5, 4, 2\) does not fit"),
        ([Row(X0, (Path(torch.zeros(2, 4, 8, 4), None),))], ValueError, r"equal width, got \[3, 4\]"),
    ],
    ids=["no_rows", "empty_row", "integers", "dimensions", "dtypes", "devices", "weight_inputs",
         "weight_outputs", "gamma", "half_statistics", "weight_list", "weight_dtype", "weight_device",
         "weight_dimensions", "gamma_number", "beta_dtype", "beta_device", "mean_dtype", "var_device",
         "width", "batch", "height", "image_size", "finer_path", "channels"],
)  # fmt: skip
def test_rejects(rows: list[Row], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fuse(rows)
