"""Decoding batches of 17 heatmaps of 64 x 48: the compiled decoder against the official procedure.

On one core of a CPU against the official NumPy loop, on maps that come from memory (13.4 MB of float32 for a
batch of 64, each value looked at once) and on maps that the cache still holds, as after a network that has
just run. On a GPU against the official path, which copies the maps to the host, and against PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.official_decode import final_preds
from bench.roofline import decode_limit
from bench.rows import Case, Limit, Rows, Side, Unavailable
from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.keypoints import COCO_17
from fastpose.ops import decode_heatmaps
from fastpose.reference.decode import decode_heatmaps as reference

BATCH, JOINTS, HEIGHT, WIDTH = 64, 17, 64, 48
BATCHES = (64, 1024, 128, 32)  # on a GPU
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
rows = Rows("decode")


@dataclass(frozen=True)
class Maps:
    """What is decoded; `flip`: those of the mirrored crops too. `cold`: they come from memory."""

    dtype: str = "float32"
    batch: int = BATCH
    channels_last: bool = False
    flip: bool = False
    cold: bool = True


def draw_maps(maps: Maps, draw: torch.Generator) -> tuple[Tensor, ...]:
    """Centres and scales of the boxes, heatmaps and, for the flip test, those of the mirrored crops."""
    device, shape = draw.device, (maps.batch, JOINTS, HEIGHT, WIDTH)
    boxes = torch.rand(maps.batch, 2, generator=draw, device=device) * 600
    scale = torch.rand(maps.batch, 2, generator=draw, device=device) * 3 + 0.2
    layout = torch.channels_last if maps.channels_last else torch.contiguous_format
    drawn = (torch.randn(shape, generator=draw, device=device) for _ in range(1 + maps.flip))
    return boxes, scale, *(x.to(DTYPES[maps.dtype]).contiguous(memory_format=layout) for x in drawn)


def official(center: Tensor, scale: Tensor, *maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and scores; float32 arrays on the host are what the official code works on.

    Source: hrnet lib/core/function.py, validate: mirror back, swap pairs, shift, average, decode.
    """
    heatmaps, *mirrored = (tensor.float().cpu().numpy() for tensor in maps)
    for flipped in mirrored:
        back = flipped[..., ::-1].copy()
        for left, right in COCO_17.flip_pairs:
            back[:, [left, right]] = back[:, [right, left]]
        back[..., 1:] = back[..., :-1].copy()
        heatmaps = (heatmaps + back) * np.float32(0.5)
    keypoints, score = final_preds(heatmaps, center.cpu().numpy(), scale.cpu().numpy())
    return keypoints, score[..., 0]


def decode(decoder: Any, order: Tensor, center: Tensor, scale: Tensor, *maps: Tensor) -> Any:
    options: Any = {"flipped": maps[1], "flip_index": order} if len(maps) > 1 else {}
    return decoder(maps[0], center, scale, **options)


def compiled_decoder(*inputs: Tensor, **options: Any) -> Any:
    with use_backend("cpp"):
        return decode_heatmaps(*inputs, **options)


def check_decoded(got: Any, center: Tensor, scale: Tensor, *maps: Tensor) -> None:
    expected_keypoints, expected_score = official(center, scale, *maps)
    np.testing.assert_array_max_ulp(got.keypoints.cpu().numpy(), expected_keypoints, maxulp=2)
    np.testing.assert_array_equal(got.score.cpu().numpy(), expected_score)


def limit(maps: Maps) -> Limit:
    """A comparison for each value, and with the flip test a sum and a product."""
    heatmaps = torch.empty(maps.batch, JOINTS, HEIGHT, WIDTH, dtype=DTYPES[maps.dtype], device="meta")
    return replace(decode_limit(heatmaps, maps.flip), flops=(1 + 2 * maps.flip) * heatmaps.numel())


def case(device: str, maps: Maps) -> Case:
    reason = _ext.load()[1] or (_ext.missing("cuda") if device == "cuda" else "")
    if reason:
        raise Unavailable(reason)
    order = torch.tensor(COCO_17.flip_index, device=device)
    sides: dict[str, Side] = {"fastpose": partial(decode, compiled_decoder, order)}
    methods = {}
    if device == "cuda":
        sides["eager"] = partial(decode, reference, order)
        sides["torch.compile"] = torch.compile(sides["eager"], dynamic=False)
        methods = {"official NumPy, with the copy": "wall"}

    def check(*inputs: Tensor) -> None:
        for side in sides.values():
            check_decoded(side(*inputs), *inputs)

    return Case(
        candidate=sides["fastpose"],
        rivals={"official NumPy" + ", with the copy" * (device == "cuda"): official}
        | {name: side for name, side in sides.items() if name != "fastpose"},
        check=check,
        inputs=partial(draw_maps, maps),
        limit=limit(maps),
        methods=methods,
        cold=maps.cold,
        items=maps.batch,
        unit="images",
    )


def declare(device: str, maps: Maps) -> None:
    marks = ["channels_last"] * maps.channels_last + ["flip test"] * maps.flip + ["hot"] * (not maps.cold)
    name = "-".join([maps.dtype, *(mark.split()[0] for mark in marks)])
    gpu = device == "cuda"
    rows(
        f"b{maps.batch}-{name}" if gpu else name,
        group="micro",
        device=device,
        what=", ".join([f"decode {maps.batch} x {JOINTS} maps of {HEIGHT}x{WIDTH}", maps.dtype, *marks]),
        rank=0 if maps.batch == BATCH else 1,
        headline=not gpu and maps.dtype == "float32",
        axes={"model": f"decode {name}", "batch": maps.batch} if gpu and maps.cold else {},
    )(partial(case, device, maps))


for _dtype in DTYPES:
    declare("cpu", Maps(_dtype))
declare("cpu", Maps(flip=True))
declare("cpu", Maps(cold=False))
for _batch in BATCHES:  # bfloat16 is what the network gives under autocast
    for _last in (False, True):
        for _flip in (False, True):
            declare("cuda", Maps("bfloat16", _batch, _last, _flip))
for _dtype in ("float32", "float16"):
    declare("cuda", Maps(_dtype))
declare("cuda", Maps("float32", flip=True))
declare("cuda", Maps("bfloat16", cold=False))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_decode(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
