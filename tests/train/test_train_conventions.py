"""What the conventions of published figures compute, from crops to scores, against sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from toy_networks import toy_prtr

from fastpose.classes import BODY_PARTS
from fastpose.errors import ConfigError
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.models import ModelMeta, PoseModel, SegmentationMeta, SegmentationModel
from fastpose.train.config_io import load_config
from fastpose.train.parallel.distributed import World
from fastpose.train.tasks import task_for

CPU = torch.device("cpu")
JOINTS, QUERIES, SIZE = 17, 20, (64, 64)
FIGURES = ["data.figures.train_count=2", "data.figures.val_count=2", "data.input_size=[64, 64]",
           "data.workers=0", "val.flip_test=false"]  # fmt: skip


class Queries(PoseModel):
    """The same queries for every crop; some of them know no joint, by a large last logit."""

    output = "queries"

    def __init__(self) -> None:
        super().__init__(ModelMeta("queries", JOINTS, SIZE))
        draw = torch.Generator().manual_seed(5)
        self.logits = 2 * torch.randn(QUERIES, JOINTS + 1, generator=draw)
        self.logits[::2, -1] += 6
        self.coords = torch.rand(QUERIES, 2, generator=draw)

    def forward(self, x: Tensor) -> dict[str, Any]:
        logits, coords = (value.expand(len(x), -1, -1) for value in (self.logits, self.coords))
        return {"pred_logits": logits, "pred_coords": coords}


class Peak(PoseModel):
    """One peak for all joints, `cell` (x, y) of a map of 16x16."""

    def __init__(self, cell: tuple[int, int], codec: str = "msra") -> None:
        super().__init__(ModelMeta("peak", JOINTS, SIZE, codec=codec))
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.zeros(len(x), JOINTS, 16, 16)
        maps[:, :, self.cell[1], self.cell[0]] = 1.0
        return maps


def validated(model: PoseModel, *settings: str) -> tuple[Any, Any]:
    """The table of two pictures, and what was predicted for it."""
    task = task_for(load_config("samples/figures", [*FIGURES, *settings]))
    table = task.val_table()
    _, predictions = task.validate(model, table, CPU, lambda size: None, World(CPU))
    return table, predictions


def chosen(model: Queries, background: bool) -> tuple[np.ndarray, np.ndarray]:
    """Queries and probabilities of the joints, in float64 by SciPy (prtr lib/core/inference.py)."""
    power = np.exp(model.logits.double().numpy())
    shares = power[:, :JOINTS] / power[:, : JOINTS + background].sum(1, keepdims=True)
    queries, joints = linear_sum_assignment(-shares)
    query = queries[np.argsort(joints)]
    return query, shares[query, np.arange(JOINTS)]


@pytest.mark.parametrize("background", [False, True], ids=["without", "with"])
def test_queries_are_read_with_and_without_the_class_for_no_keypoint(background):
    model = Queries()
    query, score = chosen(model, background)
    assert (query != chosen(model, not background)[0]).any(), "the two conventions differ here"
    table, found = validated(model, f"val.background={str(background).lower()}")
    np.testing.assert_allclose(found.score, np.tile(score, (len(table), 1)), rtol=1e-5)
    rows = found.index
    inside = model.coords.numpy()[query].astype(np.float64) - 0.5  # of a square crop's side, from its centre
    expected = table.center[rows, None] + inside * 200.0 * table.scale[rows, None, :1]
    np.testing.assert_allclose(found.keypoints, expected, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_peaks_are_moved_by_parts_of_a_cell(offset):
    table, found = validated(Peak((3, 11)), f"val.cell_offset={offset}", "val.refine=none")
    rows = found.index
    inside = (np.array([3.0, 11.0]) + offset) / 16 - 0.5
    expected = table.center[rows, None] + inside * 200.0 * table.scale[rows, None, :1]
    np.testing.assert_allclose(found.keypoints, np.broadcast_to(expected, found.keypoints.shape), atol=1e-3)


def test_unusual_settings_stand_in_the_title_of_the_scores():
    model, usual = Peak((3, 11)), task_for(load_config("samples/figures", FIGURES))
    other = task_for(load_config("samples/figures", [*FIGURES, "val.cell_offset=0.5", "val.background=true"]))
    assert other.conditions(model, 2) == f"{usual.conditions(model, 2)}, peaks 0.5 cells on"
    queries = toy_prtr(JOINTS)
    assert "refine" not in usual.conditions(queries, 2)
    assert usual.conditions(queries, 2).endswith("softmax without the class for no keypoint")
    assert other.conditions(queries, 2).endswith("softmax with the class for no keypoint")


@pytest.mark.parametrize("setting", ["val.cell_offset=-0.5", "val.cell_offset=2", "val.cell_offset=.nan"])
def test_an_offset_that_no_cell_has_is_refused(setting):
    with pytest.raises(ConfigError, match=r"val\.cell_offset="):
        load_config("samples/figures", [*FIGURES, setting])


def test_a_cell_of_udp_is_the_distance_of_its_cells():
    options = {"flip_test": False, "refine": "none"}
    crops, center, scale = torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 2), torch.ones(1, 2)
    found = {
        (cell, offset): forward_crops(
            Peak((cell, cell), "udp"),
            crops,
            center,
            scale,
            ForwardOptions(CPU, range(JOINTS), cell_offset=offset, **options),
        ).keypoints
        for cell, offset in ((4, 0.0), (5, 0.0), (4, 1.0))
    }
    torch.testing.assert_close(found[4, 1.0], found[5, 0.0])
    assert not torch.equal(found[4, 0.0], found[5, 0.0])


class CutOff(PoseModel):
    """Maps with a peak in the cell that each joint (x, y) of a crop of 64x64 lies in, and mirrored ones."""

    def __init__(self, joints: Tensor) -> None:
        super().__init__(ModelMeta("cut_off", len(joints), SIZE))
        self.joints = joints

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.zeros(2, len(self.joints), 16, 16)
        mirrored = torch.stack((64 - self.joints[:, 0], self.joints[:, 1]), 1)
        for found, joints in zip(maps, (self.joints, mirrored), strict=True):
            column, row = (joints / 4).long().unbind(1)
            found[torch.arange(len(joints)), row, column] = 1.0
        return maps[: len(x)]


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_targets_that_are_cut_off_are_read_in_the_middle_of_their_cells(flip):
    """Then no joint is more than half a cell, 2 pixels, away; without it some are nearly a whole one."""
    joints = 64 * torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    crops, center = torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.full((1, 2), 32.0)
    worst = {}
    for offset in (0.0, 0.5):
        options = ForwardOptions(CPU, range(200), flip, shift=False, refine="none", cell_offset=offset)
        found = forward_crops(CutOff(joints), crops, center, torch.full((1, 2), 0.32), options).keypoints
        worst[offset] = float((found[0] - joints).abs().max())
    assert worst[0.5] <= 2 + 1e-4 < 3.9 < worst[0.0]


class Slanted(SegmentationModel):
    """Logits at a quarter of the size, of a pixel and its right neighbour: a mirror image shows."""

    def __init__(self) -> None:
        super().__init__(SegmentationMeta("slanted", BODY_PARTS.num_classes, SIZE))
        draw = torch.Generator().manual_seed(2)
        self.weight = torch.randn(BODY_PARTS.num_classes, 3, 1, 2, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(F.pad(x, (0, 1, 0, 0)), self.weight.to(x.dtype)), 4)


def labels_in_float64(model: Slanted, pixels: np.ndarray, scales: list[float], flip: bool) -> np.ndarray:
    """Of the sum over scales of exp of the mean of the logits."""
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (model.meta.mean, model.meta.std))
    x = (torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1).double() / 255 - mean) / std
    size, total = x.shape[1:], 0.0
    for scale in scales:
        small = [int(np.floor(n * scale + 0.5)) for n in size]
        part = F.interpolate(x[None], small, mode="bilinear")
        logits = model(part)
        if flip:
            logits = (logits + model(part.flip(3)).flip(3)) / 2
        power = F.interpolate(logits, small, mode="bilinear").exp()
        total = total + F.interpolate(power, size, mode="bilinear")
    return total[0].argmax(0).numpy()


@pytest.mark.parametrize(
    "name",
    ["as configured", "one scale with flip test", "several scales without flip test",
     "several scales with flip test"],
)  # fmt: skip
def test_segmentation_is_scored_at_several_scales_and_mirrored(name):
    model = Slanted()
    task = task_for(
        load_config("samples/figures_segmentation", [*FIGURES, "data.figures.image_size=[64, 64]"])
    )
    config = task.conventions(model)[name]
    several = len(config.val.scales) > 1
    assert config.val.average == ("exp" if several else "softmax")
    own = task_for(config)
    table = own.val_table()
    assert ("mean of exp(logits)" in own.conditions(model, len(table))) == several
    evaluation, _ = own.validate(model, table, CPU, lambda size: None, World(CPU))
    right = total = 0
    for row in range(len(table)):
        sample = table.read(row)
        counts = sample.labels < BODY_PARTS.num_classes
        labels = labels_in_float64(model, sample.pixels, config.val.scales, config.val.flip_test)
        right, total = right + int((labels == sample.labels)[counts].sum()), total + int(counts.sum())
    assert evaluation.metrics["pixel accuracy"] == pytest.approx(right / total, abs=3 / total)
    assert 0 < right < total
