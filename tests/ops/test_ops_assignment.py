"""assign_joints: as cheap as scipy, the same on every backend, at ease with what is not finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from compile_checks import graph_breaks
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import assign_joints
from fastpose.reference import assignment as reference

NAN, INF = math.nan, math.inf
SHAPES = [(100, 17), (16, 16), (9, 2), (6, 11), (1, 5), (5, 1), (1, 1)]  # queries, joints


@pytest.fixture(params=["cpp", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cpp" and _ext.missing("cpu"):
        pytest.skip(_ext.missing("cpu"))
    with use_backend(request.param):
        yield request.param


def draw(kind: str, shape: tuple[int, ...]) -> Tensor:
    if kind == "ties":
        return torch.randint(0, 4, shape).float()
    if kind == "huge":
        return torch.randn(shape, dtype=torch.float64) * 1e99
    if kind == "bad":
        values = torch.tensor([NAN, INF, -INF, *range(7)])
        return values[torch.randint(0, len(values), shape)] + 0.01 * torch.rand(shape)
    return torch.randn(shape, dtype=torch.float64 if kind == "float64" else torch.float32)


def total(cost: Tensor, query: Tensor) -> Tensor:
    """(N,) float64 sum of what is taken; every query at most once, and as many pairs as there can be."""
    problems, queries, joints = cost.shape
    assert query.shape == (problems, joints)
    assert query.dtype == torch.int64
    taken = query >= 0
    assert ((query >= -1) & (query < queries)).all()
    assert (taken.sum(1) == min(queries, joints)).all()
    sorted_queries = query.sort(1).values
    assert not ((sorted_queries[:, 1:] == sorted_queries[:, :-1]) & (sorted_queries[:, 1:] >= 0)).any()
    found = cost.double().gather(1, query.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(taken, found, 0.0).sum(1)


def best_total(cost: Tensor) -> Tensor:
    matrices = cost.double().numpy()
    return torch.tensor([matrix[linear_sum_assignment(matrix)].sum() for matrix in matrices])


@pytest.mark.parametrize("kind", ["float32", "float64", "ties", "huge"])
@pytest.mark.parametrize(("queries", "joints"), SHAPES, ids=str)
def test_as_cheap_as_scipys(queries: int, joints: int, kind: str, backend: str) -> None:
    cost = draw(kind, (40, queries, joints))
    got, best = total(cost, assign_joints(cost)), best_total(cost)
    torch.testing.assert_close(got, best, rtol=1e-13, atol=1e-13 * float(cost.abs().max()))


def test_a_hundred_thousand_problems() -> None:
    if _ext.missing("cpu"):
        pytest.skip(_ext.missing("cpu"))
    seen = 0
    with use_backend("cpp"):
        for round_ in range(20):
            for queries, joints in [(100, 17), (100, 16), (17, 17), (8, 5), (3, 7)]:
                cost = draw("ties" if round_ % 4 == 0 else "float32", (1000, queries, joints))
                got, best = total(cost, assign_joints(cost)), best_total(cost)
                assert (got - best).abs().max() <= 1e-12, (queries, joints)
                seen += len(cost)
    assert seen == 100_000


def cheapest_of_all(matrix: np.ndarray) -> tuple[int, float]:
    """Fewest costs to avoid and, among assignments with as many, the least sum of the rest."""
    queries, joints = matrix.shape
    if queries < joints:
        return cheapest_of_all(matrix.T)
    choices = (
        [matrix[query, joint] for joint, query in enumerate(order)]
        for order in itertools.permutations(range(queries), joints)
    )
    return min(_avoided_and_sum(np.array(choice)) for choice in choices)


def _avoided_and_sum(values: np.ndarray) -> tuple[int, float]:
    avoided = ~np.isfinite(values)
    return int(avoided.sum()), float(values[~avoided].sum())


@pytest.mark.parametrize(("queries", "joints"), [(5, 3), (4, 4), (2, 4)], ids=str)
def test_what_is_not_finite_is_avoided(queries: int, joints: int, backend: str) -> None:
    costs = draw("bad", (60, queries, joints)).double()
    assigned = assign_joints(costs)
    for matrix, query in zip(costs.numpy(), assigned.tolist(), strict=True):
        taken = np.array([matrix[q, joint] for joint, q in enumerate(query) if q >= 0])
        avoided, cheapest = cheapest_of_all(matrix)
        assert _avoided_and_sum(taken) == (avoided, pytest.approx(cheapest, abs=1e-9))


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e101])
def test_nothing_but_costs_to_avoid(value: float, backend: str) -> None:
    cost = torch.full((2, 4, 3), value, dtype=torch.float64)
    assert assign_joints(cost).tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("kind", ["float32", "ties", "bad"])
@pytest.mark.parametrize(("queries", "joints"), SHAPES, ids=str)
def test_backends_agree(queries: int, joints: int, kind: str) -> None:
    if _ext.missing("cpu"):
        pytest.skip(_ext.missing("cpu"))
    cost = draw(kind, (50, queries, joints))
    with use_backend("cpp"):
        assert torch.equal(assign_joints(cost), reference.assign_joints(cost))


def test_ties_go_to_free_and_low_queries(backend: str) -> None:
    assert assign_joints(torch.zeros(1, 5, 3)).tolist() == [[0, 1, 2]]
    assert assign_joints(torch.zeros(1, 2, 4)).tolist() == [[0, 1, -1, -1]]


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)], ids=str)
def test_empty(shape: tuple[int, int, int], backend: str) -> None:
    query = assign_joints(torch.zeros(shape))
    assert query.dtype == torch.int64
    assert query.tolist() == [[-1] * shape[2]] * shape[0]


LAYOUTS = {
    "transposed": lambda cost: cost.transpose(1, 2).contiguous().transpose(1, 2),
    "slice": lambda cost: torch.nn.functional.pad(cost, (1, 2, 3, 0))[:, 3:, 1:-2],
    "reversed batch": lambda cost: cost.repeat_interleave(2, 0)[::2],
    "expanded": lambda cost: cost[:1].expand(cost.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str, backend: str) -> None:
    cost = LAYOUTS[layout](torch.randn(6, 12, 5))
    before = cost.clone()
    query = assign_joints(cost)
    assert torch.equal(query, assign_joints(cost.contiguous()))
    assert torch.equal(cost, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype, backend: str) -> None:
    cost = torch.randn(5, 12, 5).to(dtype)
    assert torch.equal(assign_joints(cost), assign_joints(cost.float()))


def test_threads_share_the_problems() -> None:
    cost = torch.randn(200, 100, 17)
    alone, before = assign_joints(cost), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(assign_joints(cost), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([[1.0]], TypeError, "cost: expected a torch.Tensor, got list"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), TypeError, "floating-point tensor, got torch.int64"),
        (torch.zeros(2, 3), ValueError, r"3 dimensions, got shape \(2, 3\)"),
        (torch.zeros(1, 2, 3, requires_grad=True), ValueError, "requires grad"),
    ],
    ids=["list", "integers", "2-D", "grad"],
)
def test_refuses(cost: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        assign_joints(cost)  # type: ignore[arg-type]


def test_reference_refuses_other_dimensions() -> None:
    with pytest.raises(ValueError, match=r"\(N, Q, J\), got shape \(2, 3\)"):
        reference.assign_joints(torch.zeros(2, 3))


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = torch.randn(3, 7, 4)
    want = reference.assign_joints(cost)
    monkeypatch.setattr(_ext, "load", lambda: (None, "no C++ compiler"))
    assert torch.equal(assign_joints(cost), want)
    monkeypatch.setattr("fastpose.backend._current", "cpp")
    with pytest.raises(BackendUnavailableError, match="cpp: assign_joints: no C"):
        assign_joints(cost)


@pytest.mark.skipif(bool(_ext.missing("cpu")), reason="fastpose._C is not built")
class TestOperator:
    @pytest.mark.parametrize("shape", [(3, 9, 4), (2, 3, 5), (0, 4, 2)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_opcheck(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        torch.library.opcheck(torch.ops.fastpose.assign_joints.default, (torch.randn(shape, dtype=dtype),))

    def test_compiles_whole(self) -> None:
        cost = torch.randn(3, 9, 4)
        assert graph_breaks(assign_joints, cost) == 0
        compiled = torch.compile(assign_joints, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(cost), assign_joints(cost))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["float32", "float64", "ties", "bad"])
@pytest.mark.parametrize(("queries", "joints"), [*SHAPES, (800, 3)], ids=str)
def test_gpu_agrees(queries: int, joints: int, kind: str) -> None:
    cost = draw(kind, (192, queries, joints))
    assert torch.equal(assign_joints(cost.cuda()).cpu(), assign_joints(cost))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or bool(_ext.missing("cuda")), reason="no CUDA solver")
def test_gpu_solver_waits_for_nothing() -> None:
    cost = torch.randn(192, 100, 17, device="cuda")
    want = assign_joints(cost)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        query = assign_joints(cost)
    query.fill_(-2)
    graph.replay()
    assert torch.equal(query, want)
