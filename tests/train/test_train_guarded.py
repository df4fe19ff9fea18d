"""Optimisers that a flag on the device can stop, and what is noticed of changes to them."""

import copy

import pytest
import torch
from cuda_graph_on_cpu import play_cuda_on_cpu
from torch import nn

import fastpose
from fastpose.errors import ConfigError
from fastpose.nn import capture
from fastpose.nn.graph import WARMUP
from fastpose.train.engine.guarded import GuardedOptimizer

CPU = torch.device("cpu")
GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)
KINDS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "sgd-momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.01),
    "sgd-nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "rmsprop-momentum": lambda p, lr: torch.optim.RMSprop(
        p, lr=lr, momentum=0.5, centered=True, weight_decay=0.01
    ),
}
OTHERS = {
    "sgd-dampening": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, dampening=0.5),
    "adagrad": torch.optim.Adagrad,
}


@pytest.fixture(params=[False, True], ids=["host", "capturable"])
def captures(request, monkeypatch):
    """Whether the device is taken for one that captures."""
    if request.param:
        play_cuda_on_cpu(monkeypatch)
    return request.param


def layer(kind: str) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    draw_gradients(model, 0)
    return model, {**KINDS, **OTHERS}[kind](model.parameters(), lr=0.1)


def draw_gradients(model: nn.Linear, seed: int, bad: bool = False) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
        if bad:
            parameter.grad.view(-1)[0] = float("nan")


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = optimizer.state_dict()["state"].values()
    held = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return [tensor.detach().clone() for tensor in (*model.parameters(), *held)]


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_bad_step_changes_nothing_and_good_step_is_the_optimizers_own(kind, captures):
    model, optimizer = layer(kind)
    plain, plain_optimizer = layer(kind)
    guarded = GuardedOptimizer(optimizer, CPU)
    for number, flag in enumerate((GOOD, BAD, GOOD, BAD, BAD, GOOD)):
        before = tensors(model, optimizer)
        draw_gradients(model, number, bad=bool(flag))
        guarded.step(flag)
        if flag:
            for a, b in zip(before, tensors(model, optimizer), strict=True):
                assert torch.equal(a, b)
        else:
            draw_gradients(plain, number)
            plain_optimizer.step()
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_a_first_step_that_is_bad_leaves_a_beginning(kind, captures):
    """Memory that nobody wrote, or a gradient that is not finite, must not become the momentum."""
    model, optimizer = layer(kind)
    plain, plain_optimizer = layer(kind)
    guarded = GuardedOptimizer(optimizer, CPU)
    for number in range(2):
        draw_gradients(model, number, bad=True)
        guarded.step(BAD)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    for number in range(3):
        for one in (model, plain):
            draw_gradients(one, number)
        guarded.step(GOOD)
        plain_optimizer.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_step_is_captured(kind, monkeypatch):
    """What a capture recorded goes on computing: with new gradients, another rate and a bad step between."""
    play_cuda_on_cpu(monkeypatch)
    model, optimizer = layer(kind)
    plain, plain_optimizer = layer(kind)
    guarded, bad, held = (
        GuardedOptimizer(optimizer, CPU),
        torch.zeros(()),
        [p.grad for p in model.parameters()],
    )

    def fill(one: nn.Module, number: int) -> None:
        for parameter, values in zip(one.parameters(), values_of(number), strict=True):
            parameter.grad.copy_(values)

    def values_of(number: int) -> list[torch.Tensor]:
        draw = torch.Generator().manual_seed(number)
        return [torch.randn(gradient.shape, generator=draw) for gradient in held]

    fill(model, 0)
    guarded.step(bad)
    with torch.no_grad():
        graph, _ = capture.capture(lambda: (guarded.step(bad), bad)[1], CPU, None)
    for number in range(4):
        rate = 0.1 / (number + 1)
        optimizer.param_groups[0]["lr"] = plain_optimizer.param_groups[0]["lr"] = rate
        assert guarded.refresh() is False
        fill(plain, number)
        plain_optimizer.step()
        if number:
            fill(model, number)
            bad.fill_(0.0)
            graph.replay()
        before = tensors(model, optimizer)
        held[0].fill_(float("nan"))
        bad.fill_(1.0)
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, optimizer), strict=True))
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert graph.replays == 7


def test_reason_names_what_cannot_be_captured():
    assert GuardedOptimizer(layer("adagrad")[1], CPU).reason == (
        "the optimizer Adagrad is none of torch.optim.Adam, AdamW, SGD and RMSprop"
    )
    assert "dampening" in GuardedOptimizer(layer("sgd-dampening")[1], CPU).reason
    model, _ = layer("adam")
    slow = torch.optim.Adam(model.parameters(), differentiable=True)
    assert "differentiable" in GuardedOptimizer(slow, CPU).reason
    assert all(GuardedOptimizer(layer(kind)[1], CPU).reason == "" for kind in KINDS)


def test_an_optimizer_with_a_closure_is_refused():
    with pytest.raises(ConfigError, match="LBFGS computes the loss several times a step"):
        GuardedOptimizer(torch.optim.LBFGS(nn.Linear(2, 2).parameters()), CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_rate_set_by_hand_or_by_a_schedule_reaches_the_tensor(monkeypatch, kind):
    play_cuda_on_cpu(monkeypatch)
    _, optimizer = layer(kind)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    guarded = GuardedOptimizer(optimizer, CPU)
    group = optimizer.param_groups[0]
    held = group["lr"]
    assert float(held) == pytest.approx(0.1)
    assert group.get("capturable", True)
    group["lr"] = 0.25
    assert guarded.refresh() is False
    assert group["lr"] is held
    assert float(held) == 0.25
    guarded.step(GOOD)
    schedule.step()
    assert guarded.refresh() is False
    assert group["lr"] is held
    assert float(held) == pytest.approx(0.125)


@pytest.mark.parametrize("kind", ["adam", "sgd-momentum", "rmsprop"])
def test_what_makes_a_capture_out_of_date_is_noticed_once(monkeypatch, kind):
    play_cuda_on_cpu(monkeypatch)
    _, optimizer = layer(kind)
    guarded = GuardedOptimizer(optimizer, CPU)
    assert guarded.refresh() is False
    guarded.step(GOOD)
    assert guarded.refresh() is False
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    assert guarded.changed == "a state was loaded into the optimizer"
    optimizer.param_groups[0]["weight_decay"] = 0.5
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    assert guarded.changed == "the optimizer's weight_decay changed"
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert [guarded.refresh(), guarded.refresh()] == [True, False]
    assert guarded.changed == "parameters were added to the optimizer"
    assert all(group["lr"].ndim == 0 for group in optimizer.param_groups)
    assert all(group["foreach" if kind == "rmsprop" else "fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_a_plain_optimizer_is_taken_over(monkeypatch, kind):
    play_cuda_on_cpu(monkeypatch)
    model, optimizer = layer(kind)
    plain, plain_optimizer = layer(kind)
    optimizer.step()
    GuardedOptimizer(optimizer, CPU).step(GOOD)
    plain_optimizer.step()
    plain_optimizer.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert all(float(state.get("step", 2.0)) == 2.0 for state in optimizer.state.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_captured_on_a_device_it_is_the_plain_optimizer(kind):
    device = torch.device("cuda")
    (model, optimizer), (plain, ordinary) = layer(kind), layer(kind)
    for one in (model, plain):
        one.to(device)
        one.zero_grad()
    step = fastpose.graph_step(model, nn.functional.mse_loss, optimizer)
    for number in range(2 * WARMUP + 4):
        draw = torch.Generator().manual_seed(number)
        x, y = (torch.randn(8, size, generator=draw).to(device) for size in (4, 3))
        poisoned = number in (0, WARMUP + 2)  # ahead of any state, and in a replay
        step(x * torch.nan if poisoned else x, y)
        if not poisoned:
            ordinary.zero_grad()
            nn.functional.mse_loss(plain(x), y).backward()
            ordinary.step()
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert (step.reason, step._graph.captured, step.skipped) == ("", 1, 2)
