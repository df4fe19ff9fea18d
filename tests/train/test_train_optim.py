"""Learning rates at the intended epochs."""

import pytest
import torch

from fastpose.train.config import TrainConfig
from fastpose.train.optim import build_optimizer, learning_rate, set_learning_rate


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


def test_poly_is_the_power_of_what_remains():
    config = TrainConfig(schedule="poly", epochs=4, poly_power=0.9)
    rates = [learning_rate(config, step // 5, step % 5, 5) for step in range(21)]
    assert rates == pytest.approx([config.lr * (1 - step / 20) ** 0.9 for step in range(21)])


@pytest.mark.parametrize(("name", "cls"), [("sgd", torch.optim.SGD), ("rmsprop", torch.optim.RMSprop)])
def test_momentum(name, cls):
    config = TrainConfig(optimizer=name, momentum=0.9)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), config, torch.device("cpu"))
    assert type(optimizer) is cls
    assert optimizer.param_groups[0]["momentum"] == 0.9


class WithBackbone(torch.nn.Module):
    backbone_layers = ("body",)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)


def test_backbone_has_a_rate_of_its_own_at_every_step():
    model, config = WithBackbone(), TrainConfig(lr=1e-4, backbone_lr=1e-5)
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    for rate in (1e-4, 5e-5):
        set_learning_rate(optimizer, rate)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert {rates[id(p)] for p in model.head.parameters()} == {rate}
        assert [rates[id(p)] for p in model.body.parameters()] == pytest.approx([rate / 10] * 2)
    assert len(rates) == 4


def test_backbone_rate_of_a_network_without_one_changes_nothing():
    optimizer = build_optimizer(torch.nn.Linear(2, 2), TrainConfig(backbone_lr=1e-5), torch.device("cpu"))
    set_learning_rate(optimizer, 1e-3)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]


def test_rate_that_is_a_tensor_keeps_its_memory():
    held = torch.zeros(())
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=held)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is held
    assert held == 0.25
