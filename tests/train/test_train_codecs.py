"""Every codec through loss, score, training step and evaluation."""

import numpy as np
import pytest
import torch
from thin_codecs import CODECS, CPU, task, thin_networks

from fastpose.metrics.pck import heatmap_accuracy
from fastpose.reference.heatmap import gaussian_heatmaps
from fastpose.reference.simcc import decode_simcc, simcc_targets
from fastpose.reference.udp import udp_heatmaps
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer
from fastpose.train.parallel.distributed import World
from fastpose.train.simcc_objective import SimCCObjective

__all__ = ["thin_networks"]

pytestmark = pytest.mark.usefixtures("thin_networks")


def batch(size: int = 32, count: int = 5) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "crop": torch.randint(0, 256, (4, size, size, 3), generator=draw, dtype=torch.uint8),
        "joints": torch.rand(4, count, 2, generator=draw) * (size + 8) - 4,
        "weight": torch.tensor([0.0, 1.0, 1.5, 1.2, 1.0]).repeat(4, 1),
    }


def udp_target(data, sigma: float = 1.0):
    """What mmpose trains towards, drawn, at a quarter of the size."""
    visible = (data["weight"] > 0).float()
    return udp_heatmaps(data["joints"], visible, heatmap_size=(8, 8), input_size=(32, 32), sigma=sigma)


def test_the_loss_of_udp_is_towards_its_targets():
    data, maps = batch(), torch.randn(4, 5, 8, 8)
    got = HeatmapObjective(sigma=1.0, codec="udp").loss(maps, data)
    target, kept = udp_target(data)
    weight = (kept * data["weight"])[..., None, None]
    expected = 0.5 * (weight * (maps - target)).square().mean()
    # the tails beyond three sigma, which mmpose cuts off
    assert got.item() == pytest.approx(expected.item(), rel=2e-4)
    official = HeatmapObjective(sigma=1.0).loss(maps, data)
    assert abs(official.item() - expected.item()) > 10 * abs(got.item() - expected.item())


def test_the_score_of_udp_is_of_its_targets():
    data = batch()
    target, _ = udp_target(data)
    mean, counted = HeatmapObjective(sigma=1.0, codec="udp").score(target, data).tolist()
    expected = heatmap_accuracy(target, target)
    assert (mean, counted) == (1.0, float(expected.counted))


@pytest.mark.parametrize("weight", [1.0, 0.0, 1.5])
def test_the_keypoint_mse_is_mmposes(weight):
    data, maps = batch(), torch.randn(4, 5, 8, 8)
    data["weight"] = torch.full((4, 5), weight)
    got = HeatmapObjective(sigma=1.0, linear_weight=True).loss(maps, data)
    sizes = {"heatmap_size": (8, 8), "input_size": (32, 32)}
    target, kept = gaussian_heatmaps(data["joints"], torch.ones(4, 5), **sizes, sigma=1.0)
    expected = ((kept * weight)[..., None, None] * (maps - target).square()).mean()
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    half = HeatmapObjective(sigma=1.0).loss(maps, data).item()
    assert got.item() == pytest.approx(2 * half if weight in (0, 1) else 2 * half / weight, rel=1e-5)


def test_the_score_of_simcc_counts_joints_near_their_bins():
    data = batch()
    data["joints"] = data["joints"].clamp(0, 31)
    visible = (data["weight"] > 0).float()
    *bins, _ = simcc_targets(data["joints"], visible, input_size=(32, 32), bins=(64, 64))
    objective = SimCCObjective()
    assert objective.score(tuple(bins), data).tolist() == [1.0, 16.0]
    bins[0][:, 1] = bins[0][:, 1].roll(4, -1)  # two pixels, of 1.6 allowed
    found = decode_simcc(tuple(bins), input_size=(32, 32)).keypoints
    far = (found - data["joints"]).norm(dim=-1)[:, 1] > 1.6
    assert objective.score(tuple(bins), data)[0].item() == pytest.approx(1 - far.sum().item() / 16)
    assert far.any()


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_learns(codec):
    found = task(*CODECS[codec], "model.init=kaiming")
    torch.manual_seed(0)
    table = found.train_table()
    model = found.build_model(table)
    dataset = found.train_dataset(table, model, parts=False)
    samples = [dataset[0, i] for i in range(4)]
    data = {
        name: torch.stack([torch.from_numpy(sample[name]) for sample in samples])
        for name in ("crop", "joints", "weight")
    }
    config = TrainConfig(lr=0.003)
    step = TrainStep(
        model.train(), build_optimizer(model, config, CPU), config, objective=found.objective(model),
        dtype=None, device=CPU,
    )  # fmt: skip
    losses = []
    for _ in range(25):
        step(data, 0.003)
        step.finish()
        losses.append(step.latest.loss)
    assert losses[-1] < 0.7 * losses[0]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_network_should_give_is_read_as_the_keypoints(codec):
    """Evaluation with a network that answers every crop with its own target."""
    found = task(*CODECS[codec], "data.sigma=1.0", "val.flip_test=false")
    table = found.val_table()
    model = found.build_model(table)
    dataset = found.train_dataset(table, model, parts=False)
    dataset.augmentation = None
    answers = Answers(model.meta, model.output, found.config.data.target == "unbiased", dataset)
    _, predictions = found.validate(answers, table, CPU, lambda size: None, World(CPU))
    error = np.abs(predictions.keypoints - table.joints)[table.visible > 0].max(axis=1)
    pixel = table.scale[:, 0].max() * 200 / 64
    # the median: next to the border blurred maps lose a part of what DARK looks at
    assert np.median(error) < {"msra": 2.0, "dark": 0.02, "udp": 0.02, "simcc": 0.3}[codec] * pixel


class Answers(torch.nn.Module):
    """Knows a crop by its pixels, and the joints in it."""

    def __init__(self, meta, output, unbiased, dataset) -> None:
        super().__init__()
        self.meta, self.output, self.unbiased = meta, output, unbiased
        self.known = [dataset[i] for i in range(len(dataset))]

    def forward(self, images):
        joints = torch.stack([torch.from_numpy(self.known[i]["joints"]) for i in self.rows(images)])
        visible, size = torch.ones(joints.shape[:2]), self.meta.input_size
        if self.output == "bins":
            return simcc_targets(joints, visible, input_size=size, bins=(128, 128))[:2]
        sizes = {"heatmap_size": (16, 16), "input_size": size, "sigma": 1.0}
        if self.meta.codec == "udp":
            return udp_heatmaps(joints, visible, **sizes)[0]
        return gaussian_heatmaps(joints, visible, **sizes, unbiased=self.unbiased)[0]

    def rows(self, images):
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.meta.mean, self.meta.std))
        pixels = ((images * std + mean) * 255).round().permute(0, 2, 3, 1)
        known = torch.stack([torch.from_numpy(sample["crop"]) for sample in self.known]).float()
        return [int((known - crop).abs().flatten(1).mean(1).argmin()) for crop in pixels]
