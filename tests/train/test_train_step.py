"""One training step against the official computation written out."""

import pytest
import torch

from fastpose.metrics.pck import heatmap_accuracy
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.heatmap import gaussian_heatmaps
from fastpose.reference.loss import heatmap_mse, heatmap_ohkm
from fastpose.train.config import TrainConfig
from fastpose.train.engine import step as step_module
from fastpose.train.engine.step import TrainStep
from fastpose.train.feed import replace_unusable
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

K = 5


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, K, 4, stride=4)


def batch() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "crop": torch.randint(0, 256, (4, 32, 48, 3), generator=draw, dtype=torch.uint8),
        "joints": torch.rand(4, K, 2, generator=draw) * torch.tensor([60.0, 40.0]) - 6,
        "weight": torch.tensor([0.0, 1.0, 1.5, 1.2, 1.0]).repeat(4, 1),
        "usable": torch.ones(4, dtype=torch.bool),
    }


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("loss", ["mse", "ohkm"])
def test_step_is_official_loss_then_adam(loss, unbiased):
    config = TrainConfig(loss=loss, ohkm_topk=3, optimizer="adam")
    model, data = network(), batch()
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    topk = config.ohkm_topk if loss == "ohkm" else None
    objective = HeatmapObjective(sigma=1.0, unbiased=unbiased, topk=topk)
    step = TrainStep(model, optimizer, config, objective=objective, dtype=None, device=torch.device("cpu"))
    step(data, 0.01)

    plain = network()
    prediction = plain(normalize_crops(data["crop"]))
    target, in_map = gaussian_heatmaps(
        data["joints"], (data["weight"] > 0).float(), heatmap_size=(12, 8), input_size=(48, 32), sigma=1.0,
        unbiased=unbiased,
    )  # fmt: skip
    weight = in_map * data["weight"]
    value = heatmap_mse(prediction, target, weight)
    if loss == "ohkm":
        value = heatmap_ohkm(prediction, target, weight, topk=3)
    value.backward()
    torch.optim.Adam(plain.parameters(), lr=0.01).step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    _, mean, counted = heatmap_accuracy(prediction, target)
    expected = [float(value.detach()) * 4, 4, float(mean * counted), float(counted)]
    assert step.sums.tolist() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_clipped_to_the_norm():
    config = TrainConfig(clip_grad=1e-4)
    model = network()
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    TrainStep(
        model,
        optimizer,
        config,
        objective=HeatmapObjective(sigma=1.0),
        dtype=None,
        device=torch.device("cpu"),
    )(batch(), 0.01)
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert norm == pytest.approx(1e-4, rel=1e-3)


def test_bf16_step_stays_close_to_float32():
    rows = []
    for dtype in (None, torch.bfloat16):
        model = network()
        optimizer = build_optimizer(model, TrainConfig(), torch.device("cpu"))
        step = TrainStep(
            model,
            optimizer,
            TrainConfig(),
            objective=HeatmapObjective(sigma=1.0),
            dtype=dtype,
            device=torch.device("cpu"),
        )
        step(batch(), 0.01)
        rows.append(step.sums[0].item())
    assert rows[1] == pytest.approx(rows[0], rel=0.02)
    assert rows[1] != rows[0]


def test_unusable_samples_give_way_to_readable_ones():
    data = batch()
    data["usable"] = torch.tensor([True, False, True, False])
    before = {name: tensor.clone() for name, tensor in data.items()}
    assert replace_unusable(data) == 2
    assert data["usable"].all()
    for name in ("crop", "joints", "weight"):
        assert torch.equal(data[name], before[name][[0, 0, 2, 2]])


def test_batch_without_readable_sample_is_left_alone():
    data = batch()
    data["usable"] = torch.zeros(4, dtype=torch.bool)
    assert replace_unusable(data) == 4
    assert not data["usable"].any()


class Stacked(torch.nn.Module):
    """As a network that predicts several times, in a dict with lists."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = network(), network()

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"last": self.last(x), "others": [self.first(x)]}


def test_branches_get_tensors_whatever_the_network_gives(monkeypatch):
    """On a GPU each input of a branch is recorded on its stream, which only a tensor can be."""
    taken, run_branches = [], step_module.run_branches

    def noting(runs, inputs):
        taken.extend(inputs)
        return run_branches(runs, inputs)

    monkeypatch.setattr(step_module, "run_branches", noting)
    model, config, data = Stacked(), TrainConfig(), batch()
    objective = HeatmapObjective(sigma=1.0, heatmaps=lambda output: [*output["others"], output["last"]])
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    step = TrainStep(model, optimizer, config, objective=objective, dtype=None, device=torch.device("cpu"))
    expected = objective.score(model(objective.network_input(data)), data)
    step(data, 0.01)
    assert len(taken) == 2
    assert all(isinstance(x, torch.Tensor) for x in taken)
    _, samples, correct, counted = step.sums.tolist()
    assert samples == 4
    assert [correct, counted] == [float(expected[0] * expected[1]), float(expected[1])]
