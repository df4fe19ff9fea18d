"""The graphed step does what the ungraphed one does, with captures and replays played on the CPU."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from cuda_graph_on_cpu import play_cuda_on_cpu
from torch import Tensor, nn

from fastpose.models import create_model
from fastpose.nn import graph as graph_module
from fastpose.nn.graph import WARMUP, StepGraph
from fastpose.train.config import TrainConfig
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

CPU = torch.device("cpu")
K = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, K, 1)
    ).train()


def batch(number: int, size: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(number)
    return {
        "crop": torch.randint(0, 256, (size, 32, 48, 3), generator=draw, dtype=torch.uint8),
        "joints": torch.rand(size, K, 2, generator=draw) * torch.tensor([47.0, 31.0]),
        "weight": torch.ones(size, K),
        "index": torch.arange(size) + 100 * number,
    }


class Run:
    """A training step and everything it changes."""

    def __init__(self, graph: bool, dtype: torch.dtype | None = None, **options: Any) -> None:
        config = TrainConfig(clip_grad=0.05, optimizer="adamw", weight_decay=0.01)
        self.model = network()
        self.optimizer = build_optimizer(self.model, config, CPU)
        self.ema = Ema(self.model, 0.9)
        self.step = TrainStep(
            self.model, self.optimizer, config, objective=HeatmapObjective(sigma=1.0),
            dtype=dtype, device=CPU, ema=self.ema, graph=graph,
            **options,
        )  # fmt: skip

    def __call__(self, number: int, rate: float | None = None, **options: Any) -> None:
        data = batch(number, **options)
        self.step(data, 0.01 / (number + 1) if rate is None else rate, epoch=1, number=number)

    def state(self) -> list[Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        weights = [*self.model.state_dict().values(), *self.ema.state_dict().values()]
        return [value.clone() for value in (*weights, *moments, self.step.sums, self.step.update.skipped)]


def assert_same(a: Run, b: Run) -> None:
    for x, y in zip(a.state(), b.state(), strict=True):
        assert torch.equal(x, y)


@pytest.fixture(autouse=True)
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda_on_cpu(monkeypatch)


def test_graphed_run_equals_ungraphed_run():
    runs = Run(graph=True), Run(graph=False)
    for number in range(WARMUP + 4):
        for run in runs:
            run(number)
        assert_same(*runs)
        reports = [run.step.latest for run in runs]
        assert reports[0].loss == reports[1].loss
        assert reports[0].accuracy == reports[1].accuracy
        assert reports[0].place.batch == number
    assert runs[0].step.graph.captured == 1
    assert runs[1].step.graph.captured == 0
    assert runs[0].step.graph.reason == ""


def test_capture_changes_nothing_and_keeps_its_memory():
    run = Run(graph=True)
    for number in range(WARMUP):
        run(number)
    before, addresses = run.state(), [p.data_ptr() for p in run.model.parameters()]
    shape = next(iter(run.step.graph._shapes.values()))
    run.step.graph._capture(shape, shape.staging.put(batch(9)))
    assert shape.graph is not None
    assert all(torch.equal(a, b) for a, b in zip(before, run.state(), strict=True))
    run(9)
    assert [p.data_ptr() for p in run.model.parameters()] == addresses
    assert not torch.equal(before[0], run.state()[0])


def test_each_shape_has_its_graph_and_rare_shapes_none():
    runs = Run(graph=True), Run(graph=False)
    for number in range(2 * (WARMUP + 2)):
        for run in runs:
            run(number, size=4 if number % 2 else 6)
    for run in runs:
        run(50, size=2)
    assert_same(*runs)
    assert runs[0].step.graph.captured == 2


def test_shapes_beyond_the_largest_number_run_as_they_are(monkeypatch):
    monkeypatch.setattr(graph_module, "MAX_SHAPES", 1)
    runs = Run(graph=True), Run(graph=False)
    for number in range(2 * (WARMUP + 1)):
        for run in runs:
            run(number, size=4 if number % 2 else 6)
    assert_same(*runs)
    assert runs[0].step.graph.captured == 1


@pytest.mark.parametrize("when", [1, WARMUP + 1], ids=["warming up", "replayed"])
def test_step_with_nan_changes_nothing(when):
    run = Run(graph=True)
    for number in range(when):
        run(number)
    before = run.state()
    poisoned = batch(when)
    with torch.no_grad():
        weight = run.model[0].weight.clone()
        run.model[0].weight[0, 0, 0, 0] = float("nan")
    run.step(poisoned, 0.01)
    assert not run.model[1].running_mean.isnan().any()
    with torch.no_grad():
        run.model[0].weight.copy_(weight)
    after = run.state()
    names = [*run.model.state_dict()]
    for name, a, b in zip(names, before, after, strict=False):
        assert torch.equal(a, b), name
    moments = len(names) + len(run.ema.state_dict())
    for a, b in zip(before[moments:-1], after[moments:-1], strict=True):  # optimizer state and sums
        assert torch.equal(a, b)
    assert after[-1] == before[-1] + 1
    run.step.finish()
    assert run.step.latest is not None
    assert run.step.latest.skipped
    run(when + 1)
    assert not torch.equal(run.state()[0], after[0])


def test_float16_overflow_is_skipped_and_lowers_the_scale():
    runs = [Run(graph=graph, dtype=torch.float16, max_bad_steps=0) for graph in (True, False)]
    for run in runs:
        assert run.step.scaler is not None
        run.step.scaler.load_state_dict(
            {**run.step.scaler.state_dict(), "scale": 2.0**40, "growth_interval": 3}
        )
        for number in range(28):
            run(number, rate=0.001)
    assert_same(*runs)
    scale = runs[0].step.scaler.get_scale()
    assert scale == runs[1].step.scaler.get_scale()
    assert scale < 2.0**40
    assert 0 < runs[0].step.update.skipped < 28
    assert runs[0].step.graph.captured == 1


def test_loaded_optimizer_state_is_what_goes_on():
    runs = Run(graph=True), Run(graph=False)
    for run in runs:
        for number in range(WARMUP + 2):
            run(number)
        saved = copy.deepcopy(run.optimizer.state_dict())
        weights = copy.deepcopy(run.model.state_dict())
        run(20)
        run.optimizer.load_state_dict(saved)
        run.model.load_state_dict(weights)
        for number in range(30, 30 + WARMUP + 2):
            run(number)
    assert_same(*runs)
    assert runs[0].step.graph.captured == 1


def test_changed_options_are_captured_again():
    runs = Run(graph=True), Run(graph=False)
    for run in runs:
        for number in range(WARMUP + 2):
            run(number)
        run.optimizer.param_groups[0]["betas"] = (0.5, 0.9)
        for number in range(WARMUP + 2):
            run(number)
    assert_same(*runs)


def test_step_that_cannot_be_captured_runs_on_and_says_why(caplog):
    done: list[float] = []

    def body(inputs: dict[str, Tensor]) -> Tensor:
        done.append(inputs["x"].sum().item())
        return inputs["x"] * 2

    with caplog.at_level(logging.INFO, logger="fastpose"):
        graph = StepGraph(body, CPU)
        outputs = [graph({"x": torch.full((2,), float(n))}) for n in range(WARMUP + 3)]
    assert [float(output[0]) for output in outputs] == [2.0 * n for n in range(WARMUP + 3)]
    assert done == [2.0 * n for n in range(WARMUP + 3)]
    assert graph.captured == 0
    assert "not permitted when stream is capturing" in graph.reason
    assert [record.message for record in caplog.records] == [
        f"the training step runs without a CUDA graph: {graph.reason}"
    ]


def test_float16_step_goes_on_after_a_capture_that_broke_off(monkeypatch):
    run = Run(graph=True, dtype=torch.float16)
    for number in range(WARMUP):
        run(number)
    guarded, calls = run.step.guarded, []
    step = guarded.step

    def fails_once(bad: Tensor) -> None:
        calls.append(bad)
        if len(calls) == 1:
            raise RuntimeError("capture broke off")
        step(bad)

    monkeypatch.setattr(guarded, "step", fails_once)
    run(5)
    run(6)
    assert "capture broke off" in run.step.graph.reason
    assert len(calls) == 3
    plain = Run(graph=False, dtype=torch.float16)
    for number in (*range(WARMUP), 5, 6):
        plain(number)
    assert_same(run, plain)


def test_whole_network_is_captured():
    """Every operation of an HRNet step, its data taken to the network included, may be captured."""
    config, runs = TrainConfig(loss="ohkm", ohkm_topk=2), []
    for graph in (True, False):
        torch.manual_seed(0)
        model = create_model("hrnet_w18_small", K, input_size=(64, 64)).train()
        model.reset_parameters("kaiming")
        optimizer = build_optimizer(model, config, CPU)
        options = {
            "objective": HeatmapObjective(sigma=1.0, topk=2),
            "dtype": torch.bfloat16,
            "device": CPU,
            "graph": graph,
        }
        step = TrainStep(model, optimizer, config, **options)
        for number in range(WARMUP + 2):
            draw = torch.Generator().manual_seed(number)
            crop = torch.randint(0, 256, (2, 64, 64, 3), generator=draw, dtype=torch.uint8)
            step(
                {
                    "crop": crop,
                    "joints": torch.rand(2, K, 2, generator=draw) * 63,
                    "weight": torch.ones(2, K),
                },
                1e-3,
            )
        runs.append((model, step))
    assert runs[0][1].graph.reason == ""
    assert runs[0][1].graph.captured == 1
    assert torch.equal(runs[0][1].sums, runs[1][1].sums)
    for (name, a), b in zip(runs[0][0].state_dict().items(), runs[1][0].state_dict().values(), strict=True):
        assert torch.equal(a, b), name
