"""What a training step makes of class maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastpose.errors import ConfigError
from fastpose.models import HRNetSeg, HRNetSegConfig, SegmentationMeta
from fastpose.nn.normalize import normalize_crops
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.optim import build_optimizer
from fastpose.train.segmentation_losses import LOSSES, segmentation_loss
from fastpose.train.segmentation_objective import SegmentationObjective

CPU = torch.device("cpu")


def batch() -> dict[str, torch.Tensor]:
    """Bright pictures with a dark half, to be told apart; a border that does not count."""
    draw = torch.Generator().manual_seed(1)
    crop = torch.randint(150, 256, (2, 32, 48, 3), generator=draw, dtype=torch.uint8)
    label = torch.zeros(2, 32, 48, dtype=torch.uint8)
    for picture, where in ((0, (slice(None), slice(0, 24))), (1, (slice(16, 32), slice(None)))):
        crop[picture][where] //= 4
        label[picture][where] = 1
    label[:, :2] = 255
    return {"crop": crop, "label": label}


def test_network_is_fed_with_its_own_statistics() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    data = batch()
    got = SegmentationObjective(mean=mean, std=std).network_input(data)
    assert torch.equal(got, normalize_crops(data["crop"], mean, std))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_has_the_given_options(name: str) -> None:
    data, prediction = batch(), torch.randn(2, 3, 8, 12)
    options = {"align_corners": True, "threshold": 0.4, "min_kept": 100}
    objective = SegmentationObjective(loss=name, weight=[1, 0.5, 2], **options)
    want = segmentation_loss(
        prediction, data["label"], name=name, weight=torch.tensor([1, 0.5, 2]), **options
    )
    assert torch.equal(objective.loss(prediction, data), want)


@pytest.mark.parametrize(("batch_size", "kept"), [(None, 100), (2, 100), (1, 100), (6, 34), (400, 1)])
def test_a_part_of_a_batch_keeps_its_share_of_the_hardest_pixels(batch_size: int | None, kept: int) -> None:
    data, prediction = batch(), torch.randn(2, 3, 8, 12)
    objective = SegmentationObjective(loss="ohem", threshold=0.0, min_kept=100, batch_size=batch_size)
    want = segmentation_loss(prediction, data["label"], name="ohem", threshold=0.0, min_kept=kept)
    assert torch.equal(objective.loss(prediction, data), want)


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_score_is_the_share_of_counted_pixels_that_are_right(align_corners: bool) -> None:
    data, prediction = batch(), torch.randn(2, 3, 8, 12)
    data["label"][0, 10, :9] = 3  # no class of this network
    large = F.interpolate(prediction, size=(32, 48), mode="bilinear", align_corners=align_corners)
    labels, found = data["label"].tolist(), large.argmax(1).tolist()
    pairs = [
        (labels[b][y][x], found[b][y][x])
        for b in range(2) for y in range(32) for x in range(48) if labels[b][y][x] < 3
    ]  # fmt: skip
    mean, count = SegmentationObjective(align_corners=align_corners).score(prediction, data)
    assert count == len(pairs) == 2 * 30 * 48 - 9
    assert mean == pytest.approx(sum(a == b for a, b in pairs) / len(pairs), rel=1e-12)
    assert mean.dtype == torch.float64


def test_score_of_nothing_is_0_of_0() -> None:
    data = batch()
    data["label"][:] = 255
    assert SegmentationObjective().score(torch.randn(2, 3, 8, 12), data).tolist() == [0, 0]


def test_score_and_loss_agree_with_a_step_of_plain_sgd() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 2, 4, stride=4)

    config = TrainConfig(optimizer="adam")
    model, plain, data = network(), network(), batch()
    objective = SegmentationObjective(loss="ce")
    optimizer = build_optimizer(model, config, CPU)
    step = TrainStep(model, optimizer, config, objective=objective, dtype=None, device=CPU)
    step(data, 0.01)
    prediction = plain(normalize_crops(data["crop"]))
    large = F.interpolate(prediction, size=(32, 48), mode="bilinear", align_corners=False)
    loss = F.cross_entropy(large, data["label"].long(), ignore_index=255)
    loss.backward()
    torch.optim.Adam(plain.parameters(), lr=0.01).step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    right = (large.argmax(1) == data["label"]).sum().item()
    assert step.sums.tolist() == pytest.approx([loss.item() * 2, 2, right, 2 * 30 * 48], rel=1e-5)


@pytest.mark.parametrize("name", ["ce", "ce_dice"])
def test_a_small_network_learns(name: str) -> None:
    shape = HRNetSegConfig(width=4, layer1_blocks=1, blocks=1, modules=(1, 1, 1), layer1_width=8)
    model = HRNetSeg(shape, SegmentationMeta("small", 2))
    model.reset_parameters("kaiming")
    config = TrainConfig(optimizer="adam")
    optimizer = build_optimizer(model, config, CPU)
    objective = SegmentationObjective(loss=name)
    step = TrainStep(model, optimizer, config, objective=objective, dtype=None, device=CPU)
    for _ in range(15):
        step(batch(), 0.01)
    step.finish()
    assert step.latest is not None
    assert step.latest.accuracy > 0.95


@pytest.mark.parametrize(
    "weight", [[], [0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [float("inf"), 1.0]], ids=str
)
def test_class_weights_that_cannot_be_are_refused(weight: list[float]) -> None:
    with pytest.raises(ConfigError, match="class weights must be numbers from 0 up"):
        SegmentationObjective(weight=weight)


def test_an_unknown_loss_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="unknown segmentation loss 'dice'"):
        SegmentationObjective(loss="dice")
