"""One optimisation step: bytes and coordinates in, updated weights and running sums out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastpose.device import autocast
from fastpose.nn.compiling import compiled
from fastpose.nn.graph import StepGraph, warmup_of
from fastpose.nn.streams import run_branches
from fastpose.train.config import TrainConfig
from fastpose.train.engine.bad_steps import BadSteps, Place
from fastpose.train.engine.batch_counts import BatchCounts
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.guarded import GuardedOptimizer
from fastpose.train.engine.readback import Readback
from fastpose.train.engine.update import Update
from fastpose.train.objectives import Objective
from fastpose.train.optim import set_learning_rate

SUMS = ("loss", "samples", "correct", "counted")


@dataclass
class StepReport:
    """What a finished step says: `accuracy`, the objective's score; `skipped`, nothing changed."""

    place: Place
    loss: float
    accuracy: float
    skipped: bool


class TrainStep:
    """Forward, loss, backward and update of one batch on one device; on a GPU as one CUDA graph.

    `sums` (float64, on the device, see SUMS) grow with every step that is not skipped and are read when
    somebody asks. What each step did arrives a little later in `latest`, without waiting for the device. A
    step whose gradient is not finite changes nothing (see `Update`); `max_bad_steps` of them in a row, 0 for
    never, raise TrainingError from a step soon after, or from `finish`.

    Args:
        model: the plain network, on `device`.
        objective: what its output is trained towards.
        forward: what computes the prediction with it if not the model itself, such as
            DistributedDataParallel; `config.compile` compiles it.
        dtype: of autocast; float16 gets a loss scale, which stays on the device.
        ema: average of the weights, updated with every step.
        graph: False runs every step ungraphed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        *,
        objective: Objective,
        dtype: torch.dtype | None,
        device: torch.device,
        forward: nn.Module | None = None,
        ema: Ema | None = None,
        graph: bool = True,
        max_bad_steps: int = 10,
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.objective, self.dtype, self.device = objective, dtype, device
        self.ema = ema
        self.forward = compiled(forward or model, config.compile)
        self.scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
        self.latest: StepReport | None = None
        self.bad_steps = BadSteps(max_bad_steps)
        self.guarded = GuardedOptimizer(optimizer, device)
        self.update = Update(model, self.guarded, clip_grad=config.clip_grad, scaler=self.scaler, ema=ema)
        why_not = self.guarded.reason if graph else "it is switched off"
        self.graph = StepGraph(
            self.run_on_device, device, why_not=why_not, quiet=not graph, warmup=warmup_of(forward)
        )
        self._counts = BatchCounts(model) if self.forward is model else None
        self._reports: Readback[Place] = Readback()

    def __call__(self, batch: Mapping[str, Tensor], rate: float, *, epoch: int = 0, number: int = 0) -> None:
        """Takes one step, or starts it: a GPU may be up to two steps behind.

        Args:
            batch: what the objective takes (its `inputs`), B samples each, and, for messages, index (B,); on
                the host, pinned for speed, or on the device.
            rate: learning rate.
            epoch, number: which batch this is, for messages; from 0.

        Raises:
            TrainingError: too many steps in a row had no finite gradient.
        """
        if self.guarded.refresh():
            self.graph.reset(self.guarded.changed)
        set_learning_rate(self.optimizer, rate)
        report = self.graph({name: batch[name] for name in self.objective.inputs})
        self._reports.push(report, Place(epoch, number, rate, batch.get("index")))
        self._read(self._reports.ready())

    def finish(self) -> None:
        """Waits for all steps begun; raises as a step does."""
        self._read(self._reports.wait())

    def run_on_device(self, batch: dict[str, Tensor]) -> Tensor:
        """The whole work of a step, without reading anything back.

        Returns (3,) float64: loss, accuracy, and 1 for a skipped step.
        """
        objective = self.objective
        self.update.before()
        counting = self._counts.together() if self._counts else contextlib.nullcontext()
        with autocast(self.dtype, self.device), counting:
            prediction = self.forward(objective.network_input(batch))
        loss = objective.loss(prediction, batch)
        settled = tree_map_only(Tensor, Tensor.detach, prediction)
        # The prediction may be a tree of tensors; it is held here until the branches have met.
        value, accuracy = run_branches(
            [self.update.backward, lambda _: objective.score(settled, batch)], [loss, loss.detach()]
        )
        samples = len(batch[objective.inputs[0]])
        return self._count(value.double(), accuracy, samples, self.update.step())

    @torch.no_grad()
    def _count(self, loss: Tensor, accuracy: Tensor, samples: int, skipped: Tensor) -> Tensor:
        """accuracy: (2,) float64, the mean score and of how many."""
        mean, counted = accuracy.unbind()
        size = torch.full_like(mean, samples)
        row = torch.stack([loss * size, size, mean * counted, counted])
        self.sums += torch.where(skipped > 0, 0.0, row)
        return torch.stack([loss, mean, skipped.double()])

    def _read(self, reports: list[tuple[Place, list[float]]]) -> None:
        for place, (loss, accuracy, skipped) in reports:
            self.latest = StepReport(place, loss, accuracy, bool(skipped))
            self.bad_steps.see(place, bool(skipped))
