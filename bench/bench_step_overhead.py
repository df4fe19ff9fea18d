"""What the training step costs beside forward, backward and optimiser, and what its graph saves.

On a CPU the rows' figures tell the same of an epoch of a run, in time of the processor (`bench.loop_cost`):
that of the steps and that of the loop around them, in per cent of what the network takes.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.checks import check_close
from bench.loop_cost import LoopCost, loop_cost
from bench.rows import Case, Rows
from fastpose.device import autocast
from fastpose.models import create_model
from fastpose.nn.normalize import normalize_crops
from fastpose.nn.streams import Mode, use_branch_streams
from fastpose.ops import heatmap_loss
from fastpose.train.config import TrainConfig
from fastpose.train.config_io import load_config
from fastpose.train.engine.step import TrainStep
from fastpose.train.log import SilentLog
from fastpose.train.loop import Trainer
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

JOINTS, RATE = 17, 1e-4
rows = Rows("step_overhead")


class Loop:
    """A network of its own, and how its steps are taken; every call returns the batch's loss."""

    def __init__(self, model: str, size: tuple[int, int], device: torch.device, dtype: torch.dtype | None):
        torch.manual_seed(0)
        self.size, self.device, self.dtype = size, device, dtype
        network = create_model(model, JOINTS, input_size=size)
        network.reset_parameters("kaiming")
        network = network.to(device, memory_format=torch.channels_last)
        self.model = network.train()
        self.optimizer = build_optimizer(self.model, TrainConfig(lr=RATE), device)


class Plain(Loop):
    """Forward, loss, backward and optimiser, and nothing else."""

    def __call__(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        with autocast(self.dtype, self.device):
            prediction = self.model(normalize_crops(crop))
        loss = heatmap_loss(prediction, joints, weight, input_size=self.size)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Engine(Loop):
    """The training step with all that it counts and guards."""

    def __init__(self, *args: Any, graph: bool = True, streams: Mode = "auto") -> None:
        super().__init__(*args)
        self.streams = streams
        self.step = TrainStep(
            self.model, self.optimizer, TrainConfig(lr=RATE), objective=HeatmapObjective(sigma=2.0),
            dtype=self.dtype, device=self.device,
            graph=graph, max_bad_steps=0,
        )  # fmt: skip

    def __call__(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        with use_branch_streams(self.streams):
            self.step({"crop": crop, "joints": joints, "weight": weight}, RATE)
        return self.step.sums


def _inputs(batch: int, size: tuple[int, int], draw: torch.Generator) -> tuple[Tensor, ...]:
    device = draw.device
    crop = torch.randint(
        0, 256, (batch, size[1], size[0], 3), generator=draw, device=device, dtype=torch.uint8
    )
    joints = torch.rand(batch, JOINTS, 2, generator=draw, device=device) * 60
    return crop, joints, torch.ones(batch, JOINTS, device=device)


def epoch_cost(model: str, size: tuple[int, int], batch: int, steps: int = 6) -> LoopCost:
    """Of the second epoch of a run over rendered figures, on the CPU and with one thread of torch."""
    settings = [f"model.name={model}", f"data.input_size={list(size)}", f"train.batch_size={batch}"]
    settings += [f"data.figures.train_count={batch * steps}", "data.figures.people=[1, 1]", "data.workers=0"]
    settings += [
        "data.figures.val_count=1",
        "train.amp=none",
        "run.threads=1",
        "run.device=cpu",
        "run.tensorboard=false",
    ]
    with tempfile.TemporaryDirectory(prefix="bench_loop_") as folder:
        trainer = Trainer(load_config("samples/figures", settings), Path(folder) / "run")
        with trainer.states:
            for _ in range(2):
                trainer.progress.batch, trainer.progress.sums = 0, []
                cost = loop_cost(trainer, SilentLog())
    return cost


def _shares(model: str, size: tuple[int, int], batch: int) -> dict[str, float]:
    cost = epoch_cost(model, size, batch)
    return {"step %": 100 * cost.step / cost.network, "loop %": 100 * cost.loop / cost.network}


def _case(model: str, size: tuple[int, int], batch: int, device: str) -> Case:
    on_gpu = device == "cuda"
    place = (model, size, torch.device(device), torch.bfloat16 if on_gpu else None)
    rivals: dict[str, Callable[..., object]] = {"forward, backward, optimiser": Plain(*place)}
    if on_gpu:
        rivals["without graph"] = Engine(*place, graph=False)
        rivals["graph, one stream"] = Engine(*place, streams=False)

    def check(*batch_of: Tensor) -> None:
        plain, engine = Plain(*place), Engine(*place, graph=False)
        for _ in range(2):
            loss = plain(*batch_of)
            before = engine.step.sums[0].clone()
            engine(*batch_of)
            check_close(
                "loss", (engine.step.sums[0] - before) / batch, loss.double(), dtype=place[3] or torch.float32
            )

    return Case(
        candidate=Engine(*place),
        rivals=rivals,
        check=check,
        inputs=functools.partial(_inputs, batch, size),
        method="events" if on_gpu else "wall",
        cold=False,
        items=batch,
        unit="images",
        figures=None if on_gpu else functools.partial(_shares, model, size, batch),
    )


for _device, _model, _size, _batch in (
    ("cpu", "hrnet_w18_small", (128, 128), 16),
    ("cuda", "hrnet_w32", (192, 256), 32),
    ("cuda", "hrnet_w48", (192, 256), 32),
):
    rows(f"{_model}-b{_batch}", group="stage", device=_device, what=f"one step of {_model}, batch {_batch}")(
        functools.partial(_case, _model, _size, _batch, _device)
    )


@pytest.mark.parametrize("row", rows, ids=str)
def bench_step_overhead(row, check_and_measure):
    check_and_measure(row)
