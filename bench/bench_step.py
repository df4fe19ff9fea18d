"""Whole training steps: crops and joints on the device in, updated weights out.

Every side draws the targets and computes the loss inside the step, from the same bytes and coordinates; the
official code is given ready-made targets instead. The official sides have its loss, joint by joint, and Adam;
all others one loss over all joints and fused AdamW. "fastpose train" is the step of the training command,
which besides looks for bad gradients and counts correct joints.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.agreement import check_result, strict_float32, take
from bench.checks import check_close, poisoned
from bench.profiled import figures_of
from bench.roofline import network_limit
from bench.rows import Case, Rows, Unavailable
from bench.training import Step, Train
from bench.ways import AMP, BATCHES, JOINTS, MODELS, OFFICIAL, SIZES, Way, make_network
from fastpose.device import cpu_has_bf16

TRAIN = "fastpose train"
rows = Rows("step")

OWN = {"fastpose": Way(backend="triton", graph=True)}
COMPILED = {"fastpose compiled": Way(backend="triton", compile="max-autotune-no-cudagraphs", graph=True)}
RIVALS = {
    "max-autotune": Way(compile="max-autotune-no-cudagraphs", graph=True),
    "torch.compile": Way(compile="default"),
    "AMP channels_last": AMP,
    "official fp32": OFFICIAL,
    "timm compiled": Way(compile="default", timm=True),
}
LEVERS = {
    "kernels off": Way(graph=True),
    "one stream": Way(backend="triton", graph=True, streams=False),
    "no graph": Way(backend="triton"),
    "max-autotune, own graphs": Way(compile="max-autotune"),
}
KINDS = {"": "", "compiled": ", both compiled", "levers": ", lever by lever"}
FIRST = (("hrnet_w48", 64), ("hrnet_w48", 32), ("hrnet_w32", 64), ("hrnet_w32", 32))


def draw_batch(batch: int, size: tuple[int, int], draw: torch.Generator) -> tuple[Tensor, ...]:
    """Crops (B, H, W, 3) uint8, joints (B, K, 2) in input pixels, a fifth of them of weight 0."""
    options: Any = {"generator": draw, "device": draw.device}
    crop = torch.randint(0, 256, (batch, size[1], size[0], 3), dtype=torch.uint8, **options)
    joints = torch.rand(batch, JOINTS, 2, **options) * torch.tensor(size, device=draw.device)
    return crop, joints, (torch.rand(batch, JOINTS, **options) > 0.2).float()


def check_steps(sides: Mapping[str, Step | Train], network: nn.Module, *inputs: Tensor) -> None:
    """Loss, gradients and running statistics of every side against the official step in strict float32.

    The candidate's way is also taken in float32 and without a graph, with NaN in memory nobody wrote: there
    rounding hides nothing. timm's trunk has parameters of its own; its loss must agree.
    """
    candidate = next(iter(sides.values())).way
    exact = replace(candidate, precision="float32", graph=False)
    with strict_float32():
        expected = take(Step(network, OFFICIAL), *inputs)
        plain = take(Step(network, replace(exact, backend="reference")), *inputs)
        with poisoned():
            check_result("float32", take(Step(network, exact), *inputs), expected, plain, torch.float32)
    del plain
    yardstick = take(Step(network, AMP), *inputs)
    for name, side in sides.items():
        got = take(side, *inputs)
        if side.way.timm:
            check_close(f"{name}: loss", got.loss, expected.loss, tolerance=1e-2)
        else:
            check_result(name, got, expected, yardstick)


def case(device: str, model: str, size: tuple[int, int], batch: int, ways: Mapping[str, Way]) -> Case:
    """The first way is the candidate."""
    network = make_network(model, device)
    sides: dict[str, Step | Train] = {}
    absent = {}
    for name, way in ways.items():
        try:
            sides[name] = Train(network, way) if name == TRAIN else Step(network, way)
        except Unavailable as error:
            absent[name] = str(error)
    candidate = next(iter(ways))
    dtype = torch.float32 if ways[candidate].precision == "float32" else torch.bfloat16
    draw = torch.Generator(device=device).manual_seed(0)
    inputs = partial(draw_batch, batch, size)
    return Case(
        candidate=sides[candidate],
        rivals={name: side for name, side in sides.items() if name != candidate},
        check=partial(check_steps, sides, network),
        inputs=inputs,
        limit=network_limit(network, size, training=True, batch=batch, dtype=dtype),
        name=candidate,
        method="events" if device == "cuda" else "wall",
        items=batch,
        unit="images",
        absent=absent,
        figures=partial(figures_of, sides, partial(inputs, draw)) if device == "cuda" else None,
        poison=False,  # the check does it for the side that is not compiled
    )


def cuda_case(model: str, size: str, batch: int, kind: str = "") -> Case:
    """kind: empty for the rivals, `compiled` for both at their best, or `levers` for what each is worth."""
    ways = {
        "": {**OWN, TRAIN: OWN["fastpose"], **RIVALS},
        "levers": {**OWN, **LEVERS},
        "compiled": {**COMPILED, "max-autotune": RIVALS["max-autotune"], **OWN},
    }
    return case("cuda", model, SIZES[size], batch, ways[kind])


def cpu_case(model: str, size: tuple[int, int], batch: int) -> Case:
    """What `fastpose train` runs on this CPU, against plain PyTorch in both layouts."""
    own = Way(backend="auto", precision="autocast" if cpu_has_bf16() else "float32")
    plain = {"channels_last fp32": Way(precision="float32"), "official fp32": OFFICIAL}
    return case("cpu", model, size, batch, {"fastpose": own, TRAIN: own, **plain})


def cuda_rank(model: str, size: str, batch: int, kind: str = "") -> int:
    """The settings of the papers first, then the same compiled and lever by lever; large pictures last."""
    if size == "256x192" and (model, batch) in FIRST:
        return FIRST.index((model, batch)) + 4 * list(KINDS).index(kind)
    later = {128: 12, 64: 34, 32: 36, 1: 32}[batch] + 30 * (size != "256x192")
    return later + MODELS.index(model)


for _model, _size, _batch in itertools.product(MODELS, SIZES, BATCHES):
    _first = _size == "256x192" and (_model, _batch) in FIRST
    for _kind, _note in KINDS.items() if _first else [("", "")]:
        rows(
            "-".join(filter(None, [_model.removeprefix("hrnet_"), _size, f"b{_batch}", _kind])),
            group="macro",
            device="cuda",
            what=f"{_model} at {_size}, batch {_batch}, training step, bfloat16{_note}",
            rank=cuda_rank(_model, _size, _batch, _kind),
            axes={"model": _model, "size": _size, "batch": _batch, "pass": "step"} if not _kind else {},
            headline=_first and _batch == 64 and _kind != "levers",
        )(partial(cuda_case, _model, _size, _batch, _kind))
rows(
    "w18-small-64x64-b4",
    group="macro",
    device="cpu",
    rank=100,
    what="hrnet_w18_small at 64x64, batch 4, training step",
    axes={"model": "hrnet_w18_small", "size": "64x64", "batch": 4, "pass": "step"},
)(partial(cpu_case, "hrnet_w18_small", (64, 64), 4))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_step(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
