"""fastpose.ops.fuse by its Triton kernels, in the interpreter, and PyTorch's layers, both against float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuse_cases import bottleneck_rows, cast, exchange_rows, relative_error
from interpreter import run_interpreted
from tolerances import TOLERANCES
from torch import Tensor

from fastpose.reference import fuse as reference
from fastpose.reference.fuse import Row

pytest.importorskip("triton")

SCRIPT = """
from fastpose.backend import use_backend
from fastpose.ops import fuse
from fastpose.reference.fuse import Path, Row

def run(case):
    tensors, places = case
    leaves = [tensor.requires_grad_() for tensor in tensors]
    rows = [
        Row(None if identity is None else leaves[identity],
            tuple(Path(*(None if i is None else leaves[i] for i in path)) for path in paths))
        for identity, paths in places
    ]
    with use_backend("triton"):
        fused = fuse(rows)
    used = sorted({i for identity, paths in places for path in [(identity,), *(p[:4] for p in paths)]
                   for i in path if i is not None})
    waves = [torch.cos(torch.arange(y.numel(), dtype=torch.float64)) for y in fused.outputs]
    waves = [wave.view(y.shape).to(y.dtype) for wave, y in zip(waves, fused.outputs)]
    gradients = torch.autograd.grad(fused.outputs, [leaves[i] for i in used], waves)
    statistics = [[s.mean, s.var] for row in fused.statistics for s in row if s is not None]
    return [[y.detach() for y in fused.outputs], list(gradients), statistics]

outputs = {name: run(case) for name, case in inputs.items()}
"""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAKERS: dict[str, Callable[..., list[Row]]] = {
    "two branches": lambda **o: exchange_rows((16, 32), (16, 12), batch=3, **o),
    "three branches": lambda **o: exchange_rows((18, 36, 72), (8, 12), batch=3, **o),
    "four branches": lambda **o: exchange_rows((16, 32, 64, 128), (32, 16), **o),
    "first of four": lambda **o: exchange_rows((24, 48, 96, 192), (16, 16), num_outputs=1, frozen=True, **o),
    "bottleneck": lambda **o: bottleneck_rows(downsample=False, **o),
    "bottleneck with shortcut": lambda **o: bottleneck_rows(downsample=True, **o),
}
NAMES = [f"{case}, {dtype}" for case in MAKERS for dtype in ("float32", "bfloat16")]
NAMES += ["two branches, float16", "bottleneck, float16", "three branches, float32, NCHW"]


def as_places(rows: list[Row]) -> tuple[list[Tensor], list[Any]]:
    """Rows as plain containers that a file can hold: distinct tensors and their places."""
    known = {id(x): x for row in rows for x in (row.identity, *(v for path in row.paths for v in path))}
    tensors = [x for x in known.values() if x is not None]
    place = {id(x): i for i, x in enumerate(tensors)}

    def at(x: Tensor | None) -> int | None:
        return None if x is None else place[id(x)]

    return tensors, [(at(row.identity), [[at(v) for v in path] for path in row.paths]) for row in rows]


@pytest.fixture(scope="module")
def cases() -> dict[str, list[Row]]:
    torch.manual_seed(42)
    made = {}
    for name in NAMES:
        case, dtype, *layout = name.split(", ")
        made[name] = MAKERS[case](dtype=DTYPES[dtype], last=not layout)
    return made


@pytest.fixture(scope="module")
def by_kernels(cases: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    files = {name: as_places(rows) for name, rows in cases.items()}
    return run_interpreted(SCRIPT, files, tmp_path_factory.mktemp("fuse"))


def by_layers(rows: list[Row], images: torch.dtype, vectors: torch.dtype) -> list[list[Tensor]]:
    rows, leaves = cast(rows, images, vectors)
    fused = reference.fuse(rows)
    waves = [
        torch.cos(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape).to(y.dtype)
        for y in fused.outputs
    ]
    gradients = torch.autograd.grad(fused.outputs, leaves, waves)
    statistics = [[s.mean, s.var] for row in fused.statistics for s in row if s is not None]
    return [[y.detach() for y in fused.outputs], list(gradients), [v for pair in statistics for v in pair]]


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_the_layers_or_smaller(
    cases: dict[str, list[Row]], by_kernels: Any, name: str
) -> None:
    dtype = DTYPES[name.split(", ")[1]]
    truth = by_layers(cases[name], torch.float64, torch.float64)
    layers = by_layers(cases[name], dtype, torch.float32)
    outputs, gradients, statistics = by_kernels[name]
    kernels = [outputs, gradients, [v for pair in statistics for v in pair]]
    factor = 1.5
    ceiling = TOLERANCES["fuse", "float32"][1] if dtype == torch.float32 else 1.0
    floor = torch.finfo(torch.float32).eps  # below it an error says nothing
    for kind, ours, theirs, true in zip(
        ("output", "gradient", "statistics"), kernels, layers, truth, strict=True
    ):
        assert len(ours) == len(theirs) == len(true)
        for i, (a, b, t) in enumerate(zip(ours, theirs, true, strict=True)):
            error, allowed = relative_error(a, t), factor * relative_error(b, t)
            assert error <= min(max(allowed, 4 * floor), ceiling), (kind, i, tuple(t.shape), error, allowed)
            if kind != "statistics":
                assert a.dtype == b.dtype


def test_an_empty_batch_gives_zeros(tmp_path: Path) -> None:
    rows = exchange_rows((16, 32), (8, 4), batch=0)
    outputs, gradients, statistics = run_interpreted(SCRIPT, {"": as_places(rows)}, tmp_path)[""]
    assert [y.shape for y in outputs] == [(0, 16, 8, 4), (0, 32, 4, 2)]
    assert len(gradients) > 0
    assert not any(value.any() for value in (*gradients, *(v for pair in statistics for v in pair)))
