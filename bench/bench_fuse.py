"""Fused sums of HRNet at 256x192: exchanges and block ends, in evaluation, forward and backward.

Against the layers, eager and compiled. In training all sides keep float32 weights and update the running
statistics, as a network under autocast does; in evaluation the weights are in the dtype of the images.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.checks import check_close
from bench.fuse_cases import (
    FuseShape,
    Layers,
    bottleneck,
    branch_widths,
    draw_images,
    exchange,
    meta_images,
)
from bench.fuse_sides import (
    OURS,
    backward,
    check_backward,
    check_forward,
    make_sides,
    pass_forward,
    run_fused,
)
from bench.roofline import fuse_limit
from bench.rows import Case, Limit, Rows, Side

SHAPES = {
    "w48-row0": exchange(branch_widths("w48"), 1),
    "w32-row0": exchange(branch_widths("w32"), 1),
    "w48-exchange": exchange(branch_widths("w48")),
    "layer1": bottleneck(),
}
WHAT = {
    "w48-row0": "W48's last exchange",
    "w32-row0": "W32's last exchange",
    "w48-exchange": "W48's whole exchange of 4 branches",
    "layer1": "end of a block of layer1, 64 -> 256",
}
BATCHES = {name: (32, 64, 128, 1024) if "row0" in name else (32, 64, 128) for name in SHAPES}
SEED = 1  # of the parameters
rows = Rows("fuse")


def make_layers(shape: FuseShape, direction: str, dtype: torch.dtype, device: str) -> Layers:
    layers = Layers(shape).to(device).reset(torch.Generator(device).manual_seed(SEED))
    if direction == "eval":
        layers.eval().requires_grad_(False)
        layers.convs.to(dtype)
    return layers


def limit(layers: Layers, direction: str, batch: int, dtype: torch.dtype, channels_last: bool) -> Limit:
    images = meta_images(layers.shape, batch, dtype, channels_last)
    return fuse_limit(copy.deepcopy(layers).to("meta").rows(images), direction)


def case(
    shape: FuseShape,
    direction: str,
    batch: int,
    dtype: torch.dtype = torch.bfloat16,
    channels_last: bool = True,
    device: str = "cuda",
) -> Case:
    layers = make_layers(shape, direction, dtype, device)
    sides = make_sides(layers)

    def inputs(draw: torch.Generator) -> tuple[Any, ...]:
        images = draw_images(shape, batch, dtype, channels_last, draw)
        if direction == "backward":
            return (pass_forward(sides, images, draw),)
        return ([x.requires_grad_(direction == "forward") for x in images],)

    runs: dict[str, Side] = dict(sides)
    if direction == "backward":
        runs = {name: partial(backward, name) for name in sides}
    return Case(
        candidate=runs[OURS],
        rivals={name: run for name, run in runs.items() if name != OURS},
        check=partial(check_backward if direction == "backward" else check_forward, sides),
        inputs=inputs,
        limit=limit(layers, direction, batch, dtype, channels_last),
        items=batch,
        unit="images",
        poison=False,  # the check poisons fastpose alone
    )


def layouts_case(shape: FuseShape, batch: int) -> Case:
    """On a CPU the layers are the implementation; what can be chosen is the layout."""
    layers = make_layers(shape, "eval", torch.float32, "cpu")
    sides: dict[str, Side] = {
        "channels_last": lambda images, planar: run_fused(layers, images),
        "NCHW": lambda images, planar: run_fused(layers, planar),
    }

    def inputs(draw: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        images = draw_images(shape, batch, torch.float32, True, draw)
        return images, [x.contiguous() for x in images]

    def check(images: list[Tensor], planar: list[Tensor]) -> None:
        expected = copy.deepcopy(layers).double()([x.double() for x in images])
        for name, side in sides.items():
            got: Any = side(images, planar)
            for mine, wanted in zip(got, expected, strict=True):
                check_close(f"output in {name}", mine, wanted)

    return Case(
        candidate=sides["channels_last"],
        rivals={"NCHW": sides["NCHW"]},
        check=check,
        inputs=inputs,
        limit=limit(layers, "eval", batch, torch.float32, True),
        name="channels_last",
        items=batch,
        unit="images",
    )


def declare(
    shape: str, direction: str, batch: int, dtype: str = "bfloat16", channels_last: bool = True
) -> None:
    plain = dtype == "bfloat16" and channels_last
    marks = [] if plain else [dtype if channels_last else "NCHW"]
    rows(
        "-".join([direction, shape, f"b{batch}", *marks]).lower(),
        group="micro",
        device="cuda",
        what=", ".join([f"{WHAT[shape]}, {direction}", f"batch {batch}", *marks]),
        rank=0 if plain and batch == 64 else 1 if batch in (64, 1024) else 2,
        axes={"model": f"fuse {shape}", "pass": direction, "batch": batch} if plain else {},
    )(partial(case, SHAPES[shape], direction, batch, getattr(torch, dtype), channels_last))


for _direction in ("eval", "forward", "backward"):
    for _shape in SHAPES:
        for _batch in BATCHES[_shape]:
            declare(_shape, _direction, _batch)
    for _dtype_name in ("float16", "float32"):
        declare("w48-row0", _direction, 64, _dtype_name)
    declare("w48-row0", _direction, 64, channels_last=False)
for _shape in ("w32-row0", "layer1"):
    rows(
        f"eval-{_shape}-b4",
        group="micro",
        device="cpu",
        what=f"{WHAT[_shape]}, eval, batch 4, float32: two layouts",
    )(partial(layouts_case, SHAPES[_shape], 4))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_fuse(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
