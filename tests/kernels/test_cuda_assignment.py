"""The CUDA assignment without a GPU: what its kernels take of three generations; their logic, on the CPU."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulation import SOURCES, build_emulated, compile_cubin
from kernel_report import record_resources
from torch import Tensor

from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.ops import assign_joints
from fastpose.reference import assignment as reference

USAGE = re.compile(
    r"assign_kernelI([fd])E.*?(\d+) bytes stack frame, (\d+) bytes spill.*?Used (\d+) reg", re.S
)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiles_without_spills(capability: int, tmp_path: Path) -> None:
    source = SOURCES / "assignment" / "assignment_cuda.cu"
    found = USAGE.findall(compile_cubin(source, capability, tmp_path / "assignment.cubin"))
    assert sorted(kind for kind, *_ in found) == ["d", "f"]
    for kind, stack, spilled, registers in found:
        lost = int(stack) + int(spilled)
        record_resources(
            f"assign_kernel {'fp32' if kind == 'f' else 'fp64'}", capability, int(registers), lost, 0
        )
        assert lost == 0
        assert int(registers) <= 96


@pytest.fixture
def on_gpu_code(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[types.SimpleNamespace]:
    """assign_joints runs the GPU's code for tensors on the CPU."""
    emulated = build_emulated(tmp_path_factory.getbasetemp())

    def assign_cpu(params: Any, threads: int) -> None:
        assert emulated.module.assign_cuda(params, 0, 0) == 0

    standing_in = types.SimpleNamespace(
        AssignParams=emulated.module.AssignParams, assign_cpu=assign_cpu, has_cuda=False
    )
    monkeypatch.setattr(_ext, "load", lambda: (standing_in, ""))
    with use_backend("cpp"):
        yield emulated


def draw(kind: str, shape: tuple[int, ...]) -> Tensor:
    if kind == "ties":
        return torch.randint(0, 4, shape).float()
    if kind == "bad":
        values = torch.tensor([NAN, INF, -INF, *range(7)])
        return values[torch.randint(0, len(values), shape)] + 0.01 * torch.rand(shape)
    return torch.randn(shape, dtype=torch.float64 if kind == "float64" else torch.float32)


@pytest.mark.parametrize("kind", ["float32", "float64", "ties", "bad"])
@pytest.mark.parametrize(
    ("queries", "joints"), [(100, 17), (33, 32), (6, 11), (40, 70), (1, 3), (2, 1)], ids=str
)
def test_agrees_with_the_reference(on_gpu_code: Any, queries: int, joints: int, kind: str) -> None:
    cost = draw(kind, (5, queries, joints))
    before = on_gpu_code.launches()
    query = assign_joints(cost)
    assert on_gpu_code.launches() == before + 1
    assert torch.equal(query, reference.assign_joints(cost))


def test_any_strides(on_gpu_code: Any) -> None:
    cost = torch.randn(4, 9, 40).transpose(1, 2)
    assert torch.equal(assign_joints(cost), reference.assign_joints(cost.contiguous()))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 3, 0)], ids=str)
def test_empty(on_gpu_code: Any, shape: tuple[int, int, int]) -> None:
    assert assign_joints(torch.zeros(shape)).tolist() == [[-1] * shape[2]] * shape[0]


def test_too_many_columns_are_refused_by_the_launch(on_gpu_code: Any) -> None:
    module, limit = on_gpu_code.module, on_gpu_code.module.max_cuda_columns
    query = torch.zeros(1, 1, dtype=torch.int64)
    sizes = {"problems": 1, "joints": 1, "strides": (limit, 1, 1), "type": 0, "query": query.data_ptr()}
    for queries, code in [(limit, 0), (limit + 1, 1)]:
        cost = torch.arange(limit + 1, 0, -1, dtype=torch.float32)
        params = module.AssignParams(cost=cost.data_ptr(), queries=queries, **sizes)
        assert module.assign_cuda(params, 0, 0) == code
    assert query.item() == limit - 1
