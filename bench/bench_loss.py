"""The loss of 17 heatmaps of 64x48 and its gradient, straight from joints.

Against the official loop on targets that are there already, as a data loader has made them, and against
PyTorch that draws the targets itself, eager and compiled. On a CPU also against official targets and loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.bench_heatmap import JOINTS, draw_joints
from bench.bench_heatmap import options as heatmap_options
from bench.checks import check_close
from bench.official_heatmap import generate_targets
from bench.official_loss import joints_mse, joints_ohkm
from bench.roofline import loss_limit
from bench.rows import Case, Rows, Side
from fastpose.backend import use_backend
from fastpose.ops import gaussian_heatmaps, heatmap_loss, heatmap_loss_and_gradient
from fastpose.reference.loss import heatmap_loss as reference

SIZE = "64x48"
HEATMAP = heatmap_options(SIZE)
OPTIONS: dict[str, Any] = {name: HEATMAP[name] for name in ("input_size", "sigma")}
TOPK = 8
PASSES = {
    "forward": "loss",
    "both": "loss, then its gradient by autograd",
    "together": "loss and gradient in one call",
    "ohkm": f"loss of the {TOPK} hardest joints, then its gradient by autograd",
}
OFFICIAL = "official loop, targets given"
Loss = Callable[..., Any]
rows = Rows("loss")


class Targets:
    """Official targets (B, K, H, W) and weights (B, K, 1), which fastpose does not read.

    Not among the tensors of a set of inputs: they would count as memory that keeps the rest out of the cache.
    """

    def __init__(self, joints: Tensor, visible: Tensor) -> None:
        self.maps, weight = gaussian_heatmaps(joints, visible, **HEATMAP)
        self.weight = weight[..., None]


def draw_batch(
    batch: int, dtype: torch.dtype, channels_last: bool, gradient: bool, draw: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Targets]:
    joints, visible = draw_joints(batch, SIZE, draw)
    targets = Targets(joints, visible)
    noise = torch.randn(targets.maps.shape, generator=draw, device=draw.device)
    pred = (0.7 * targets.maps + 0.1 * noise).to(dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pred = pred.contiguous(memory_format=layout).requires_grad_(gradient)
    return pred, joints, visible, targets


def official(loss: Loss, pred: Tensor, joints: Tensor, visible: Tensor, targets: Targets) -> Tensor:
    return loss(pred, targets.maps, targets.weight)


def official_from_joints(
    loss: Loss, pred: Tensor, joints: Tensor, visible: Tensor, targets: Targets
) -> Tensor:
    maps, weight = map(torch.from_numpy, generate_targets(joints.numpy(), visible.numpy(), **HEATMAP))
    return loss(pred, maps, weight[..., None])


def from_joints(loss: Loss, pred: Tensor, joints: Tensor, visible: Tensor, targets: Targets) -> Any:
    return loss(pred, joints, visible)


def with_triton(loss: Loss, *arguments: Tensor) -> Any:
    with use_backend("triton"):
        return loss(*arguments)


def with_gradient(loss: Loss, pred: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    value = loss(pred, *rest)
    (gradient,) = torch.autograd.grad(value, pred)
    return value, gradient


def make_sides(kind: str, device: str) -> dict[str, Side]:
    """The candidate first. All but it in `together` take the gradient by autograd."""
    options = OPTIONS | ({"topk": TOPK} if kind == "ohkm" else {})
    ours: Loss = partial(heatmap_loss_and_gradient if kind == "together" else heatmap_loss, **options)
    loop: Loss = partial(joints_ohkm, topk=TOPK) if kind == "ohkm" else joints_mse
    eager: Loss = partial(reference, **options)
    losses: dict[str, Loss] = {OFFICIAL: partial(official, loop)}
    if device == "cpu":
        losses["official targets and loop"] = partial(official_from_joints, loop)
    else:
        ours = partial(with_triton, ours)
        losses["eager"] = partial(from_joints, eager)
    if device == "cuda" or kind in ("forward", "both"):
        compiled: Loss = torch.compile(eager, fullgraph=True, dynamic=False)
        losses["torch.compile"] = partial(from_joints, compiled)
    if kind in ("forward", "both"):
        loop_compiled: Loss = torch.compile(loop, fullgraph=True, dynamic=False)
        losses["torch.compile, targets given"] = partial(official, loop_compiled)
    candidate: Loss = partial(from_joints, ours)
    if kind == "forward":
        return {"fastpose": candidate, **losses}
    if kind != "together":
        candidate = partial(with_gradient, candidate)
    return {"fastpose": candidate} | {name: partial(with_gradient, loss) for name, loss in losses.items()}


def check_sides(
    kind: str, sides: dict[str, Side], pred: Tensor, joints: Tensor, visible: Tensor, targets: Targets
) -> None:
    """Against the official loss in float64; on a CPU without the compiled sides, which take the longest."""
    wide = pred.detach().double().requires_grad_()
    loop: Loss = partial(joints_ohkm, topk=TOPK) if kind == "ohkm" else joints_mse
    expected = with_gradient(loop, wide, targets.maps.double(), targets.weight.double())
    for name, side in sides.items():
        if "compile" in name and not pred.is_cuda:
            continue
        got: Any = side(pred, joints, visible, targets)
        values: Any = (got,) if kind == "forward" else got
        for what, mine, wanted in zip(("loss", "gradient"), values, expected, strict=False):
            check_close(f"{what} of {name}", mine, wanted)
        if kind == "together" and name == "fastpose":
            assert values[1].stride() == pred.stride(), "gradient of fastpose: not in the layout of pred"


def case(
    kind: str, batch: int, dtype: torch.dtype, channels_last: bool = False, device: str = "cuda"
) -> Case:
    sides = make_sides(kind, device)
    pred = torch.empty(batch, JOINTS, *reversed(HEATMAP["heatmap_size"]), dtype=dtype, device="meta")
    return Case(
        candidate=sides["fastpose"],
        rivals={name: side for name, side in sides.items() if name != "fastpose"},
        check=partial(check_sides, kind, sides),
        inputs=partial(draw_batch, batch, dtype, channels_last, kind != "forward"),
        limit=loss_limit(
            pred, torch.empty(batch, JOINTS, 2, device="meta"), "forward" if kind == "forward" else "both"
        ),
        # The official hard keypoints are thousands of launches, too many for a graph.
        methods={OFFICIAL: "events"} if kind == "ohkm" and device == "cuda" else {},
        items=batch,
        unit="images",
    )


def declare(kind: str, batch: int, channels_last: bool = False, device: str = "cuda") -> None:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    marks = ["channels_last"] * channels_last
    rows(
        "-".join([kind, f"b{batch}", *marks]),
        group="micro",
        device=device,
        what=", ".join([f"{PASSES[kind]}, {batch} x {JOINTS} maps of {SIZE}", str(dtype)[6:], *marks]),
        rank=0 if batch == 64 else 1,
        axes={"model": "-".join(["loss", *marks]), "pass": kind, "batch": batch} if device == "cuda" else {},
    )(partial(case, kind, batch, dtype, channels_last, device=device))


for _kind in PASSES:
    declare(_kind, 64, device="cpu")
    for _batch in (64, 1024) if _kind == "ohkm" else (64, 1024, 128, 32):
        for _last in (False, True):
            declare(_kind, _batch, _last)


@pytest.mark.parametrize("row", rows, ids=str)
def bench_loss(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
