"""Whether an exported file computes what the network computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastpose.backend import use_backend
from fastpose.errors import ExportError
from fastpose.infer.engines_open import Graph
from fastpose.infer.export.check_crops import check_crops
from fastpose.infer.export.graph import ExportGraph, locate
from fastpose.infer.export.spec import GraphSpec
from fastpose.models.network import Network
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.decode import Decoded

TOLERANCE = 1e-3
"""Of the largest value: float32 sums in another order, through a hundred convolutions."""

NEAR = 0.05
"""Heatmap pixels: a joint found further away has moved."""

TRIALS = 4


@dataclass(frozen=True)
class Agreement:
    """How far a file is from its network.

    difference: largest difference over the largest value, of the network's outputs or the scores of joints;
    joints: those compared (0 without decode), whose place does not hang on rounding; moved: how many of them
    the file finds elsewhere; pictures: random and rendered crops, given: those of the user's pictures.
    """

    difference: float
    joints: int
    moved: int
    pictures: int
    given: int = 0

    def __str__(self) -> str:
        text = f"largest difference {self.difference:.1e} of the largest value"
        if self.joints:
            text += f", {self.moved} of {self.joints} joints moved"
        text += f", over {self.pictures} random and rendered crops"
        return text + (f" and {self.given} of pictures" if self.given else "")


@torch.no_grad()
def compare(model: Network, graph: Graph, batches: Sequence[Tensor] | None = None) -> Agreement:
    """Runs both on batches of crops: random ones, rendered figures and maybe pictures (`check_crops`).

    ExportError where the file's outputs have other shapes, differ by more than 0.1 % of the largest value, or
    a joint is found elsewhere. Joints that also move under noise of that size are left out: an untrained
    network has many, and no two engines agree on them.
    """
    spec = graph.spec
    plain = ExportGraph(copy.deepcopy(model).float().cpu().eval(), replace(spec, decode=None))
    draw = torch.Generator().manual_seed(0)
    differences, joints, moved = [], 0, 0
    if batches is None:
        batches = check_crops(spec)
    for crops in batches:
        boxes = _boxes(spec, len(crops), draw)
        pictures = crops if spec.takes == "crops" else normalize_crops(crops, spec.meta.mean, spec.meta.std)
        with use_backend("reference"):
            expected = plain(pictures)
            found = list(graph(pictures, *boxes).values())
            if spec.decode:
                decoded, steady = _located(expected, spec, boxes)
                off = _apart(found[0], decoded.keypoints, spec, boxes) > NEAR
                joints, moved = joints + int(steady.sum()), moved + int((off & steady).sum())
                expected, found = (decoded.score,), [found[1]]
        differences.append(_difference(found, expected))
    ours, given = sum(map(len, batches[:2])), sum(map(len, batches[2:]))
    result = Agreement(max(differences), joints, moved, ours, given)
    if not result.difference <= TOLERANCE or moved:  # NaN is not below
        raise ExportError(f"{spec.meta.model}: {graph.engine} does not compute the same: {result}")
    return result


def _difference(found: list[Tensor], expected: tuple[Tensor, ...]) -> float:
    shapes = [tuple(x.shape) for x in found], [tuple(x.shape) for x in expected]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the file gives shapes {shapes[0]}, the network {shapes[1]}")
    rows = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in rows)


def _located(
    outputs: tuple[Tensor, ...], spec: GraphSpec, boxes: tuple[Tensor, ...]
) -> tuple[Decoded, Tensor]:
    """Joints of what the network gives, and which of them noise does not move (B, K)."""
    center, scale = boxes or (None, None)
    decoded = locate(outputs, spec, center, scale)
    steady = decoded.valid.clone()
    draw = torch.Generator().manual_seed(1)
    for _ in range(TRIALS):
        noisy = [x + _noise(x, draw) for x in outputs]
        again = locate(tuple(noisy), spec, center, scale).keypoints
        steady &= _apart(again, decoded.keypoints, spec, boxes) < NEAR
    return decoded, steady


def _noise(x: Tensor, draw: torch.Generator) -> Tensor:
    return (2 * torch.rand(x.shape, generator=draw) - 1) * (2 * TOLERANCE * x.abs().max())


def _apart(a: Tensor, b: Tensor, spec: GraphSpec, boxes: tuple[Tensor, ...]) -> Tensor:
    """Distance of keypoints (B, K) in heatmap pixels of a quarter of the crop's size."""
    width = spec.meta.input_size[0]
    size = boxes[1][:, :1] * 200 if boxes else torch.tensor([[float(width)]])
    return (a - b).norm(dim=-1) / size * (width / 4)


def _boxes(spec: GraphSpec, count: int, draw: torch.Generator) -> tuple[Tensor, ...]:
    if spec.decode != "image":
        return ()
    center = 400 * torch.rand(count, 2, generator=draw)
    return center, 0.3 + 2 * torch.rand(count, 2, generator=draw)
