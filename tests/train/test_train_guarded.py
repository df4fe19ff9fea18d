"""Optimisers that a flag on the device can stop, and what is noticed of changes to them."""

import copy

import pytest
import torch
from torch import nn

from fastpose.train.engine import capture
from fastpose.train.engine.guarded import GuardedOptimizer

CPU = torch.device("cpu")
GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)
KINDS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
}


def layer(kind: str) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model, KINDS[kind](model.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_step_changes_nothing_and_good_step_is_the_optimizers_own(kind):
    model, optimizer = layer(kind)
    plain, plain_optimizer = layer(kind)
    guarded = GuardedOptimizer(optimizer, CPU)
    for flag in (GOOD, BAD, GOOD, BAD):
        before = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
        guarded.step(flag)
        if flag:
            for a, b in zip(before[0], model.parameters(), strict=True):
                assert torch.equal(a, b)
            for a, b in zip(before[1].values(), optimizer.state_dict()["state"].values(), strict=True):
                assert all(torch.equal(a[name], b[name]) for name in a)
        else:
            plain_optimizer.step()
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert not hasattr(optimizer, "found_inf")


def test_reason_names_what_cannot_be_captured():
    assert GuardedOptimizer(layer("sgd")[1], CPU).reason == (
        "the optimizer SGD is neither torch.optim.Adam nor AdamW"
    )
    model, _ = layer("adam")
    slow = torch.optim.Adam(model.parameters(), differentiable=True)
    assert "differentiable" in GuardedOptimizer(slow, CPU).reason
    assert GuardedOptimizer(layer("adamw")[1], CPU).reason == ""


def test_rate_set_by_hand_or_by_a_schedule_reaches_the_tensor(monkeypatch):
    monkeypatch.setattr(capture, "can_capture", lambda device: True)
    _, optimizer = layer("adam")
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    guarded = GuardedOptimizer(optimizer, CPU)
    group = optimizer.param_groups[0]
    held = group["lr"]
    assert float(held) == pytest.approx(0.1)
    assert group["capturable"]
    group["lr"] = 0.25
    assert guarded.refresh() is False
    assert group["lr"] is held
    assert float(held) == 0.25
    guarded.step(GOOD)
    schedule.step()
    assert guarded.refresh() is False
    assert group["lr"] is held
    assert float(held) == pytest.approx(0.125)


def test_what_makes_a_capture_out_of_date_is_noticed_once(monkeypatch):
    monkeypatch.setattr(capture, "can_capture", lambda device: True)
    _, optimizer = layer("adam")
    guarded = GuardedOptimizer(optimizer, CPU)
    assert guarded.refresh() is False
    guarded.step(GOOD)
    assert guarded.refresh() is False
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    optimizer.param_groups[0]["weight_decay"] = 0.5
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    assert all(group["lr"].ndim == 0 and group["fused"] for group in optimizer.param_groups)


def test_state_of_a_plain_optimizer_is_taken_over(monkeypatch):
    monkeypatch.setattr(capture, "can_capture", lambda device: True)
    model, optimizer = layer("adam")
    plain, plain_optimizer = layer("adam")
    optimizer.step()
    GuardedOptimizer(optimizer, CPU).step(GOOD)
    plain_optimizer.step()
    plain_optimizer.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert [float(state["step"]) for state in optimizer.state.values()] == [2.0, 2.0]
