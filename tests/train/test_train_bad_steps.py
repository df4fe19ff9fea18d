"""A gradient that is not finite: what is said, and when the run ends."""

import logging

import pytest
import torch
from torch import nn

from fastpose.errors import TrainingError
from fastpose.train.config import TrainConfig
from fastpose.train.engine.bad_steps import MAX_WARNINGS, BadSteps, Place
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

CPU = torch.device("cpu")
K = 3


def make_step(limit: int) -> tuple[nn.Module, TrainStep]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.Conv2d(4, K, 1))
    optimizer = build_optimizer(model, TrainConfig(), CPU)
    options = {"objective": HeatmapObjective(sigma=1.0), "dtype": None, "device": CPU, "graph": False}
    return model, TrainStep(model, optimizer, TrainConfig(), max_bad_steps=limit, **options)


def batch() -> dict[str, torch.Tensor]:
    return {
        "crop": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8),
        "joints": torch.rand(2, K, 2) * 31,
        "weight": torch.ones(2, K),
        "index": torch.tensor([71, 3]),
    }


def poison_once(model: nn.Module) -> torch.utils.hooks.RemovableHandle:
    """The gradient of one layer becomes infinite."""
    return model[0].weight.register_hook(lambda grad: torch.full_like(grad, float("inf")))


def test_run_ends_after_so_many_in_a_row_and_names_them():
    model, step = make_step(3)
    step(batch(), 0.1, epoch=4, number=10)
    hook = poison_once(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(batch(), 0.1, epoch=4, number=11)
    step(batch(), 0.1, epoch=4, number=12)
    with pytest.raises(TrainingError) as caught:
        step(batch(), 0.1, epoch=4, number=13)
    text = str(caught.value)
    assert "3 steps in a row" in text
    assert "epoch 5, batch 12 (samples 71, 3)" in text
    assert "epoch 5, batch 14 (samples 71, 3)" in text
    assert "train.lr" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert step.bad_steps.total == int(step.update.skipped) == 3
    hook.remove()


def test_a_good_step_begins_the_row_anew():
    model, step = make_step(2)
    for number in range(6):
        hook = poison_once(model) if number % 2 else None
        step(batch(), 0.1, number=number)
        if hook:
            hook.remove()
    assert step.bad_steps.total == 3
    assert step.sums[1] == 3 * 2  # samples of the good steps
    assert torch.isfinite(step.sums).all()


def test_zero_never_ends_the_run():
    model, step = make_step(0)
    poison_once(model)
    for number in range(12):
        step(batch(), 0.1, number=number)
    assert step.bad_steps.total == 12


def test_each_is_reported_but_not_without_end(caplog):
    seen = BadSteps(0)
    with caplog.at_level(logging.WARNING, logger="fastpose"):
        for number in range(MAX_WARNINGS + 5):
            seen.see(Place(0, number, samples=torch.arange(40)), True)
    lines = [record.message for record in caplog.records]
    assert len(lines) == MAX_WARNINGS
    assert lines[0].endswith(
        "step skipped in epoch 1, batch 1 (samples " + ", ".join(map(str, range(16))) + ", ...)"
    )
    assert lines[-1].endswith("(further ones are only counted)")


def test_place_without_samples():
    assert str(Place(0, 2)) == "epoch 1, batch 3"
