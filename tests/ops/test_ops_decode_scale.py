"""A million small maps full of ties, NaN and infinities: every backend finds the same indices and points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.ops import Decoded, decode_heatmaps
from fastpose.reference import decode as reference

NAN, INF = float("nan"), float("inf")
# Few distinct values, so that most maps have several equal peaks, many of them at borders.
VALUES = [NAN, INF, -INF, -1.0, -0.0, 0.0, 0.25, 0.5, 0.5, 1.0, 1.0, 2.0]
SIZES = [(4, 3), (5, 5), (8, 6), (3, 7)]  # height, width
JOINTS = [17, 4, 21]
MAPS = 1_000_000
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


def tied_maps(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A third of the maps has no high value, so that negative, zero and missing peaks occur too."""
    draw = torch.randint(0, len(VALUES), shape)
    draw[::3] %= torch.randint(1, 7, (*shape[:2], 1, 1))[::3]
    return torch.tensor(VALUES)[draw].to(dtype)


def assert_same(maps: Tensor, device: str, **options: Any) -> None:
    for refine in ("none", "quarter"):
        expected = reference.decode_heatmaps(maps, refine=refine, **options)
        moved = {key: value.to(device) for key, value in options.items()}
        got = decode_heatmaps(maps.to(device), refine=refine, **moved)
        for name, a, b in zip(Decoded._fields, got, expected, strict=True):
            wrong = (a.cpu() != b).flatten(2).any(-1) if b.ndim == 3 else a.cpu() != b
            assert not wrong.any(), f"{refine} {name}: {int(wrong.sum())} of {wrong.numel()} maps differ"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_million_maps(dtype: torch.dtype, flip: bool, layout: torch.memory_format, device: str) -> None:
    """Each of the twelve cases takes its share of the million."""
    _, reason = _ext.load()
    if reason:
        pytest.skip(reason)
    rounds = [(joints, size) for joints in JOINTS for size in SIZES]
    share = -(-MAPS // (len(DTYPES) * 2 * 2 * len(rounds)))
    seen = 0
    with use_backend("cpp"):
        for joints, size in rounds:
            shape = (-(-share // joints), joints, *size)
            maps, flipped = (tied_maps(shape, dtype).contiguous(memory_format=layout) for _ in range(2))
            order = torch.randperm(joints)
            assert_same(maps, device, **({"flipped": flipped, "flip_index": order} if flip else {}))
            seen += maps.shape[0] * maps.shape[1]
    assert seen * len(DTYPES) * 2 * 2 >= MAPS
