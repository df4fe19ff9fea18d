"""Learning rates at the intended epochs."""

import pytest
import torch

from fastpose.train.config import TrainConfig
from fastpose.train.optim import build_optimizer, learning_rate


def test_official_drops_come_after_170_and_200_epochs():
    config = TrainConfig()
    rates = [learning_rate(config, epoch, 0, 100) for epoch in range(210)]
    assert rates[0] == rates[169] == 1e-3
    assert rates[170] == rates[199] == pytest.approx(1e-4)
    assert rates[200] == rates[209] == pytest.approx(1e-5)


def test_warmup_reaches_the_rate_and_is_linear():
    config = TrainConfig(warmup_steps=10)
    rates = [learning_rate(config, step // 4, step % 4, 4) for step in range(12)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) / 10 for step in range(10)])
    assert rates[10] == rates[11] == 1e-3


def test_cosine_falls_from_lr_to_nearly_zero():
    config = TrainConfig(schedule="cosine", epochs=4)
    rates = [learning_rate(config, step // 5, step % 5, 5) for step in range(20)]
    assert rates[0] == config.lr
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.02 * config.lr


@pytest.mark.parametrize(("name", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimizer(name, cls):
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.1), torch.device("cpu"))
    assert type(optimizer) is cls
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert [p is model.weight for p in optimizer.param_groups[0]["params"]] == [True]
