"""The step for others' loops does what the ordinary loop does."""

import copy

import pytest
import torch
from cuda_graph_on_cpu import play_cuda_on_cpu
from torch import nn

import fastpose
from fastpose.errors import ConfigError
from fastpose.nn.graph import MAX_RESETS, WARMUP, WORTH
from fastpose.train.engine.ema import Ema


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 8, 8, generator=draw), torch.randn(4, 2, 6, 6, generator=draw))
        for _ in range(count)
    ]


def test_equals_the_ordinary_loop_with_a_schedule_and_clipping(monkeypatch):
    play_cuda_on_cpu(monkeypatch)
    model, plain = network(), network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ordinary = torch.optim.AdamW(plain.parameters(), lr=0.01)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(one, 10) for one in (optimizer, ordinary)]
    step = fastpose.graph_step(model, nn.functional.mse_loss, optimizer, clip_grad=0.1)
    losses, expected = [], []
    for images, targets in batches(8):
        losses.append(step(images, targets))
        ordinary.zero_grad()
        loss = nn.functional.mse_loss(plain(images), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        ordinary.step()
        expected.append(loss.detach())
        for schedule in schedules:
            schedule.step()
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), rtol=1e-4, atol=1e-6)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
    assert step.reason == ""
    assert step._graph.captured == 1


def test_on_the_cpu_says_why_there_is_no_graph():
    model = network()
    step = fastpose.graph_step(model, nn.functional.mse_loss, torch.optim.Adam(model.parameters()))
    assert step.reason == "the device is cpu"
    first, second = (step(*batch) for batch in batches(2))
    assert first.ndim == second.ndim == 0
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("make", "captured"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), 1),
        (lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5), 1),
        (lambda p: torch.optim.Adagrad(p, lr=0.1), 0),
    ],
    ids=["sgd", "rmsprop", "adagrad-ungraphed"],
)
def test_other_optimizers(monkeypatch, make, captured):
    play_cuda_on_cpu(monkeypatch)
    model, plain = network(), network()
    step = fastpose.graph_step(model, nn.functional.mse_loss, make(model.parameters()))
    ordinary = make(plain.parameters())
    for images, targets in batches(WARMUP + 4):
        step(images, targets)
        ordinary.zero_grad()
        nn.functional.mse_loss(plain(images), targets).backward()
        ordinary.step()
    assert ("Adagrad" in step.reason) == (not captured)
    assert step._graph.captured == captured
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_options_that_change_with_each_step_end_the_captures(monkeypatch, caplog):
    """As OneCycleLR does with Adam's betas."""
    play_cuda_on_cpu(monkeypatch)
    model, plain = network(), network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step = fastpose.graph_step(model, nn.functional.mse_loss, optimizer)
    ungraphed = torch.optim.Adam(plain.parameters(), lr=0.01)
    other = fastpose.graph_step(plain, nn.functional.mse_loss, ungraphed, graph=False)
    for number, (images, targets) in enumerate(batches(MAX_RESETS + WARMUP + 3)):
        for one in (optimizer, ungraphed):
            one.param_groups[0]["betas"] = (0.9 - 0.01 * number, 0.99)
        step(images, targets)
        other(images, targets)
        assert bool(step.reason) == (number >= MAX_RESETS)
    said = "it would be captured anew every few steps (the optimizer's betas changed)"
    assert step.reason == said
    assert [record.message for record in caplog.records] == [
        f"the training step runs without a CUDA graph: {said}"
    ]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_changes_between_which_a_graph_pays_are_followed_for_good(monkeypatch):
    play_cuda_on_cpu(monkeypatch)
    model = nn.Linear(2, 1)
    step = fastpose.graph_step(model, nn.functional.mse_loss, torch.optim.Adam(model.parameters()))
    x, y = torch.randn(3, 2), torch.randn(3, 1)
    for number in range(MAX_RESETS + 2):
        model.train(bool(number % 2))
        for _ in range(WARMUP + WORTH):
            step(x, y)
        assert (step.reason, step._graph.captured) == ("", 1)


def test_an_optimizer_that_would_train_nothing_is_refused():
    of_another = torch.optim.Adam(copy.deepcopy(network()).parameters())
    with pytest.raises(ConfigError, match="optimizer: holds no parameter of the model"):
        fastpose.graph_step(network(), nn.functional.mse_loss, of_another)
    model = network()
    with pytest.raises(ConfigError, match="optimizer: LBFGS"):
        fastpose.graph_step(model, nn.functional.mse_loss, torch.optim.LBFGS(model.parameters()))


@pytest.mark.parametrize("given", ["None", "StepLR", "list"])
def test_what_is_no_optimizer_is_refused(given):
    model = network()
    adam = torch.optim.Adam(model.parameters())
    made = {"None": None, "StepLR": torch.optim.lr_scheduler.StepLR(adam, 1), "list": [adam]}[given]
    name = "NoneType" if made is None else given
    with pytest.raises(
        ConfigError, match=rf"optimizer: expected a torch\.optim\.Optimizer, got {name}; give"
    ):
        fastpose.graph_step(model, nn.functional.mse_loss, made)


def test_bad_batch_is_skipped_and_counted():
    model = network()
    step = fastpose.graph_step(model, nn.functional.mse_loss, torch.optim.Adam(model.parameters()))
    step(*batches(1)[0])
    before = copy.deepcopy(model.state_dict())
    images, targets = batches(1)[0]
    images[0, 0, 0, 0] = float("nan")
    assert step(images, targets).isnan()
    assert step.skipped == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_eval_mode_is_captured_anew(monkeypatch):
    play_cuda_on_cpu(monkeypatch)
    model, plain = network(), network()
    steps = [
        fastpose.graph_step(
            one, nn.functional.mse_loss, torch.optim.Adam(one.parameters(), lr=0.01), graph=graph
        )
        for one, graph in ((model, True), (plain, False))
    ]
    for number, (images, targets) in enumerate(batches(2 * WARMUP + 4)):
        for one, step in zip((model, plain), steps, strict=True):
            one.train(number < WARMUP + 2)
            step(images, targets)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert int(model[1].num_batches_tracked) == WARMUP + 2


def test_average_of_the_weights_follows():
    model = network()
    ema = Ema(model, 0.5)
    step = fastpose.graph_step(
        model, nn.functional.mse_loss, torch.optim.Adam(model.parameters(), lr=0.1), ema=ema
    )
    start = model[0].weight.detach().clone()
    step(*batches(1)[0])
    torch.testing.assert_close(ema.module[0].weight, (start + model[0].weight.detach()) / 2)


def test_bf16_computes_in_bf16():
    seen = []

    def loss_fn(prediction, targets):
        seen.append(prediction.dtype)
        return nn.functional.mse_loss(prediction.float(), targets)

    model = network()
    fastpose.graph_step(model, loss_fn, torch.optim.Adam(model.parameters()), amp="bf16")(*batches(1)[0])
    assert seen == [torch.bfloat16]


def test_arguments_that_cannot_be_are_named():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ConfigError, match="amp='int8'"):
        fastpose.graph_step(model, nn.functional.mse_loss, optimizer, amp="int8")
    with pytest.raises(ConfigError, match=r"compile: expected .* got 'fast'"):
        fastpose.graph_step(model, nn.functional.mse_loss, optimizer, compile="fast")
    for norm in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="clip_grad: expected a norm, or 0 for none"):
            fastpose.graph_step(model, nn.functional.mse_loss, optimizer, clip_grad=norm)
    with pytest.raises(ConfigError, match="model: has no parameters"):
        fastpose.graph_step(nn.ReLU(), nn.functional.mse_loss, optimizer)
    step = fastpose.graph_step(model, lambda prediction, targets: prediction - targets, optimizer)
    images, targets = batches(1)[0]
    with pytest.raises(TypeError, match=r"targets\[0\]: expected a torch.Tensor, got int"):
        step(images, 3)
    with pytest.raises(
        ValueError, match=r"loss_fn: expected it to return a scalar tensor, got shape \(4, 2, 6, 6\)"
    ):
        step(images, targets)


def test_parameters_of_the_loss_get_fresh_gradients_too() -> None:
    """A loss with a parameter of its own, such as a learned weight, that the optimiser holds as well."""
    torch.manual_seed(0)
    model, weight = torch.nn.Linear(3, 2), torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([*model.parameters(), weight], lr=1e-3)
    step = fastpose.graph_step(model, lambda y, t: (y - t).square().mean() + 3 * weight, optimizer)
    for _ in range(3):
        step(torch.randn(4, 3), torch.randn(4, 2))
        assert weight.grad is not None
        assert weight.grad.item() == 3.0
