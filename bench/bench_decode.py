"""Decoding 64 x 17 heatmaps of 64 x 48 on one core: the native decoder against the official procedure.

The maps are 13.4 MB of float32 and each value has to be looked at once, so no decoder is faster than reading
them: `read_GBps` in extra_info is what the decoder reaches, `bound_GBps` what a plain sum reaches here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bench.official_decode import final_preds
from bench.timing import compare, seconds
from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.keypoints import COCO_17
from fastpose.ops import decode_heatmaps

BATCH, JOINTS, HEIGHT, WIDTH = 64, 17, 64, 48


@pytest.fixture
def cpp(one_core: None) -> Iterator[None]:
    _, reason = _ext.load()
    if reason:
        pytest.skip(reason)
    with use_backend("cpp"):
        yield


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    """Heatmaps, a second set for the flip test, centres and scales of the boxes."""
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(BATCH, JOINTS, HEIGHT, WIDTH, generator=draw) for _ in range(2)]
    return *maps, torch.rand(BATCH, 2, generator=draw) * 600, torch.rand(BATCH, 2, generator=draw) * 3 + 0.2


def official_flip_decode(
    maps: np.ndarray, flipped: np.ndarray, *box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """hrnet lib/core/function.py, validate: mirror back, swap pairs, shift, average, decode."""
    back = flipped[..., ::-1].copy()
    for left, right in COCO_17.flip_pairs:
        back[:, [left, right]] = back[:, [right, left]]
    back[..., 1:] = back[..., :-1].copy()
    return final_preds((maps + back) * np.float32(0.5), *box)


def check_and_measure(benchmark: Any, official: Any, native: Any, nbytes: int) -> None:
    expected_keypoints, expected_score = official()
    got = native()
    np.testing.assert_array_max_ulp(got.keypoints.numpy(), expected_keypoints, maxulp=2)
    np.testing.assert_array_equal(got.score.numpy(), expected_score[..., 0])
    found = compare(official, native)
    benchmark.extra_info |= {
        "official_ms": round(found.baseline * 1e3, 3),
        "native_ms": round(found.candidate * 1e3, 4),
        "times_faster": round(found.ratio, 1),
        "read_GBps": round(nbytes / found.candidate / 1e9, 1),
    }
    benchmark(native)


@pytest.mark.usefixtures("cpp")
def bench_decode(benchmark: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    maps, _, center, scale = inputs
    arrays = [tensor.numpy() for tensor in (maps, center, scale)]
    benchmark.extra_info["bound_GBps"] = round(
        maps.nbytes / min(seconds(lambda: torch.sum(maps)) for _ in range(50)) / 1e9, 1
    )
    check_and_measure(
        benchmark, lambda: final_preds(*arrays), lambda: decode_heatmaps(maps, center, scale), maps.nbytes
    )


@pytest.mark.usefixtures("cpp")
def bench_decode_with_flip_test(benchmark: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    maps, flipped, center, scale = inputs
    arrays = [tensor.numpy() for tensor in inputs]
    order = torch.tensor(COCO_17.flip_index)
    check_and_measure(
        benchmark,
        lambda: official_flip_decode(*arrays),
        lambda: decode_heatmaps(maps, center, scale, flipped=flipped, flip_index=order),
        2 * maps.nbytes,
    )


@pytest.mark.usefixtures("cpp")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def bench_decode_half_width(benchmark: Any, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> None:
    maps, center, scale = inputs[0].to(dtype), *inputs[2:]
    arrays = [tensor.numpy() for tensor in (center, scale)]
    check_and_measure(
        benchmark,
        lambda: final_preds(maps.float().numpy(), *arrays),
        lambda: decode_heatmaps(maps, center, scale),
        maps.nbytes,
    )
