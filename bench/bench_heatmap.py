"""Target heatmaps: on a CPU against the official NumPy loop, on a GPU against PyTorch, eager and compiled."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.checks import check_close
from bench.official_heatmap import generate_targets
from bench.roofline import heatmap_limit
from bench.rows import Case, Limit, Rows, Side
from fastpose.backend import use_backend
from fastpose.ops import gaussian_heatmaps
from fastpose.reference.heatmap import gaussian_heatmaps as reference

JOINTS = 17
SIZES = {"64x48": (48, 64, 2.0), "96x72": (72, 96, 3.0)}  # heatmap width and height, sigma
OPERATIONS = 8  # for each pixel: two differences, two squares, their sum, scale, exponential, mask
rows = Rows("heatmap")


def draw_joints(batch: int, size: str, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Joints all over the crop and a little outside, a fifth of them not visible."""
    width, height, _ = SIZES[size]
    device = draw.device
    span = torch.tensor([width * 4.0, height * 4.0], device=device)
    joints = (torch.rand(batch, JOINTS, 2, generator=draw, device=device) * 1.2 - 0.1) * span
    return joints, (torch.rand(batch, JOINTS, generator=draw, device=device) > 0.2).float()


def options(size: str) -> dict[str, Any]:
    width, height, sigma = SIZES[size]
    return {"heatmap_size": (width, height), "input_size": (width * 4, height * 4), "sigma": sigma}


def limit(batch: int, size: str) -> Limit:
    width, height, _ = SIZES[size]
    moved = heatmap_limit(torch.empty(batch, JOINTS, 2, device="meta"), (width, height))
    return replace(moved, flops=OPERATIONS * batch * JOINTS * width * height)


def official(size: str, joints: Tensor, visible: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return generate_targets(joints.numpy(), visible.numpy(), **options(size))


def check_targets(got: Any, expected: tuple[Tensor, ...]) -> None:
    for name, mine, wanted in zip(("heatmaps", "weight"), got, expected, strict=True):
        check_close(name, mine, wanted)


def cpu_case(batch: int, size: str) -> Case:
    candidate: Side = partial(gaussian_heatmaps, **options(size))

    def check(joints: Tensor, visible: Tensor) -> None:
        expected = tuple(map(torch.from_numpy, official(size, joints, visible)))
        check_targets(candidate(joints, visible), expected)

    return Case(
        candidate=candidate,
        rivals={"official NumPy": partial(official, size)},
        check=check,
        inputs=partial(draw_joints, batch, size),
        limit=limit(batch, size),
        items=batch,
        unit="images",
    )


def cuda_case(batch: int, size: str, cold: bool) -> Case:
    eager: Side = partial(reference, **options(size))
    compiled: Any = torch.compile(eager, fullgraph=True, dynamic=False)

    def candidate(joints: Tensor, visible: Tensor) -> Any:
        with use_backend("triton"):
            return gaussian_heatmaps(joints, visible, **options(size))

    def check(joints: Tensor, visible: Tensor) -> None:
        expected = reference(joints, visible, **options(size))
        for side in (candidate, compiled):
            check_targets(side(joints, visible), expected)

    return Case(
        candidate=candidate,
        rivals={"eager": eager, "torch.compile": compiled},
        check=check,
        inputs=partial(draw_joints, batch, size),
        limit=limit(batch, size),
        name="Triton",
        cold=cold,
        items=batch,
        unit="images",
    )


for _size in SIZES:
    for _batch in (1, 64):
        _what = f"targets of {_batch} x {JOINTS} joints, maps of {_size}"
        rows(
            f"b{_batch}-{_size}",
            group="micro",
            device="cpu",
            what=_what,
            headline=(_batch, _size) == (64, "64x48"),
        )(partial(cpu_case, _batch, _size))
for _size in SIZES:
    for _batch in (64, 1024):
        _what = f"targets of {_batch} x {JOINTS} joints, maps of {_size}"
        rows(f"b{_batch}-{_size}", group="micro", device="cuda", what=_what)(
            partial(cuda_case, _batch, _size, True)
        )
rows(
    "b64-64x48-hot", group="micro", device="cuda", what=f"targets of 64 x {JOINTS} joints, maps of 64x48, hot"
)(partial(cuda_case, 64, "64x48", False))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_heatmap(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
