"""The graphed step on a GPU: against the ungraphed one, compiled, over streams, skipping, and over time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

import fastpose
from fastpose.models import PoseModel, create_model
from fastpose.nn.graph import WARMUP
from fastpose.nn.streams import use_branch_streams
from fastpose.train.config import TrainConfig
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = torch.device("cuda")
SIZE = (96, 128)


def batch(number: int, size: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(number)
    tensors = {
        "crop": torch.randint(0, 256, (size, SIZE[1], SIZE[0], 3), generator=draw, dtype=torch.uint8),
        "joints": torch.rand(size, 17, 2, generator=draw) * 95,
        "weight": torch.ones(size, 17),
        "index": torch.arange(size) + 100 * number,
    }
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}


class Run:
    def __init__(
        self, *, dtype: torch.dtype | None = None, compile: Any = False, clip: float = 0.0, **options: Any
    ) -> None:
        torch.manual_seed(0)
        self.model: PoseModel = create_model("hrnet_w18_small", input_size=SIZE)
        self.model.reset_parameters("kaiming")
        self.model = self.model.to(DEVICE, memory_format=torch.channels_last).train()
        config = TrainConfig(clip_grad=clip, compile=compile)
        self.optimizer = build_optimizer(self.model, config, DEVICE)
        self.ema = Ema(self.model, 0.9)
        self.step = TrainStep(
            self.model,
            self.optimizer,
            config,
            objective=HeatmapObjective(sigma=2.0),
            dtype=dtype,
            device=DEVICE,
            ema=self.ema,
            **options,
        )

    def __call__(self, number: int, **options: Any) -> None:
        self.step(batch(number, **options), 1e-3 / (number % 5 + 1), number=number)

    def finish(self) -> list[Tensor]:
        self.step.finish()
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        weights = [*self.model.state_dict().values(), *self.ema.state_dict().values()]
        return [value.clone() for value in (*weights, *moments, self.step.sums)]


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"])
@pytest.mark.parametrize("clip", [0.0, 0.01], ids=["unclipped", "clipped"])
def test_graphed_run_equals_ungraphed_run(dtype, clip):
    """Bit for bit, with changing batches and rates: the same kernels on the same values in the same order."""
    results = []
    for graph in (True, False):
        run = Run(dtype=dtype, clip=clip, graph=graph)
        with use_branch_streams(False):
            for number in range(WARMUP + 6):
                run(number)
        results.append(run.finish())
        assert run.step.graph.captured == graph, run.step.graph.reason
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_branch_streams_change_nothing():
    results = []
    for mode in ("auto", False):
        run = Run(dtype=torch.bfloat16)
        with use_branch_streams(mode):
            for number in range(WARMUP + 6):
                run(number)
        assert run.step.graph.captured == 1, run.step.graph.reason
        results.append(run.finish())
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("compile", [True, "max-autotune"])
def test_compiled_step_is_captured(compile):
    runs = [Run(dtype=torch.bfloat16, compile=compile, graph=graph) for graph in (True, False)]
    for number in range(WARMUP + 5):
        for run in runs:
            run(number)
    states = [run.finish() for run in runs]
    assert runs[0].step.graph.captured == 1, runs[0].step.graph.reason
    torch.testing.assert_close(states[0][-1], states[1][-1], rtol=1e-2, atol=1e-6)
    eager = Run(dtype=torch.bfloat16, graph=False)
    for number in range(WARMUP + 5):
        eager(number)
    torch.testing.assert_close(states[0][-1][:2], eager.finish()[-1][:2], rtol=5e-2, atol=1e-6)


def test_second_shape_is_captured_too():
    runs = [Run(dtype=torch.bfloat16, graph=graph) for graph in (True, False)]
    for number in range(2 * (WARMUP + 3)):
        for run in runs:
            with use_branch_streams(False):
                run(number, size=4 if number % 2 else 6)
    for a, b in zip(*(run.finish() for run in runs), strict=True):
        assert torch.equal(a, b)
    assert runs[0].step.graph.captured == 2


@pytest.mark.parametrize("when", [1, WARMUP + 2], ids=["warming up", "replayed"])
def test_nan_is_skipped_inside_the_graph(when):
    run = Run(dtype=torch.bfloat16)
    for number in range(when):
        run(number)
    before = run.finish()
    with torch.no_grad():
        weight = run.model.conv1.weight.clone()
        run.model.conv1.weight.view(-1)[0] = float("nan")
    run(when)
    with torch.no_grad():
        run.model.conv1.weight.copy_(weight)
    after = run.finish()
    assert run.step.latest is not None
    assert run.step.latest.skipped
    count = len(run.model.state_dict())
    for a, b in zip(before[:count], after[:count], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(before[2 * count :], after[2 * count :], strict=True):
        assert torch.equal(a, b)
    run(when + 1)
    run.step.finish()
    assert not run.step.latest.skipped


def test_run_ends_after_bad_steps_in_a_row():
    run = Run(dtype=torch.bfloat16, max_bad_steps=3)
    for number in range(WARMUP + 2):
        run(number)
    with torch.no_grad():
        run.model.conv1.weight.view(-1)[0] = float("nan")

    def go_on() -> None:
        for number in range(20, 30):
            run(number)
        run.step.finish()

    with pytest.raises(fastpose.errors.TrainingError, match=r"batch 21 \(samples 2000, 2001"):
        go_on()


def test_memory_is_stable_over_replays():
    run = Run(dtype=torch.bfloat16)
    for number in range(WARMUP + 5):
        run(number)
    run.step.finish()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for number in range(200):
        run(number)
    run.step.finish()
    assert torch.cuda.memory_allocated() <= allocated
    assert torch.cuda.memory_reserved() <= reserved


def test_step_does_not_wait_for_the_device():
    run = Run(dtype=torch.bfloat16)
    for number in range(WARMUP + 2):
        run(number)
    run.step.finish()
    data = batch(7)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.step(data, 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.step.finish()
    assert run.step.latest is not None


def test_batches_on_the_device_and_a_side_stream():
    runs = [Run(dtype=torch.bfloat16, graph=graph) for graph in (True, False)]
    side = torch.cuda.Stream()
    for number in range(WARMUP + 4):
        data = {name: tensor.cuda() for name, tensor in batch(number).items()}
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), use_branch_streams(False):
            for run in runs:
                run.step(data, 1e-3)
        torch.cuda.current_stream().wait_stream(side)
    for a, b in zip(*(run.finish() for run in runs), strict=True):
        assert torch.equal(a, b)


def test_loaded_state_is_what_goes_on():
    results = []
    for graph in (True, False):
        run = Run(dtype=torch.bfloat16, graph=graph)
        with use_branch_streams(False):
            for number in range(WARMUP + 2):
                run(number)
            run.optimizer.load_state_dict(run.optimizer.state_dict())
            for number in range(WARMUP + 2):
                run(number)
        results.append(run.finish())
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_step_that_cannot_be_captured_goes_on(caplog):
    model = create_model("hrnet_w18_small", input_size=SIZE).to(DEVICE).train()

    def loss_fn(heatmaps: Tensor) -> Tensor:
        loss = heatmaps.square().mean()
        assert loss.item() >= 0  # waits for the device
        return loss

    step = fastpose.graph_step(model, loss_fn, torch.optim.Adam(model.parameters()), amp="bf16")
    images = torch.randn(2, 3, SIZE[1], SIZE[0])
    with caplog.at_level(logging.INFO, logger="fastpose"):
        losses = [float(step(images)) for _ in range(WARMUP + 4)]
    assert "its capture failed" in step.reason
    assert len(caplog.records) == 1
    assert losses[-1] < losses[0]


def test_graph_step_of_an_own_loop():
    losses = []
    for graph in (True, False):
        torch.manual_seed(0)
        model = create_model("hrnet_w18_small", input_size=SIZE).to(DEVICE).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        step = fastpose.graph_step(model, torch.nn.functional.mse_loss, optimizer, amp="bf16", graph=graph)
        found = []
        with use_branch_streams(False):
            for number in range(WARMUP + 6):
                draw = torch.Generator().manual_seed(number)
                images = torch.randn(2, 3, SIZE[1], SIZE[0], generator=draw).pin_memory()
                target = torch.rand(2, 17, SIZE[1] // 4, SIZE[0] // 4, generator=draw).pin_memory()
                found.append(step(images, target))
                schedule.step()
        losses.append(torch.stack(found))
        assert (step.reason == "") == graph
    assert torch.equal(*losses)
