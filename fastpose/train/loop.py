"""The run: epochs of steps, validation, checkpoints, and a resume that changes nothing."""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch

from fastpose.data.digest import table_digest
from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import DataError, TrainingError
from fastpose.files import make_folder
from fastpose.infer.evaluation import Evaluation
from fastpose.models import Network
from fastpose.train.config import Config
from fastpose.train.engine.deterministic import make_deterministic
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import SUMS, StepReport, TrainStep
from fastpose.train.feed import TrainFeed
from fastpose.train.log import RunLog, SilentLog
from fastpose.train.optim import build_optimizer, learning_rate
from fastpose.train.parallel.batch_plan import plan_batches
from fastpose.train.parallel.distributed import World
from fastpose.train.parallel.skipped_steps import SkippedSteps
from fastpose.train.saving.run_folder import CHECKPOINTS
from fastpose.train.saving.run_states import RunStates
from fastpose.train.tasks import task_for

logger = logging.getLogger(__name__)


class Trainer:
    """Trains one configuration in one run folder; an existing run there is continued from its last state.

    All processes of `world` train; rank 0 alone reads and writes the folder.
    """

    def __init__(self, config: Config, folder: Path, world: World | None = None) -> None:
        self.config, self.folder = config, folder
        self.world = world or World(pick_device(config.run.device))
        self.device = self.world.device
        if config.run.deterministic:
            make_deterministic()
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.run.seed)
        self.task = task_for(config)
        self.train_table, self.val_table = self.task.train_table(), self.task.val_table()
        self.task.check(self.train_table, self.val_table)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = self.task.build_model(self.train_table)
        self.model: Network = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.plan = plan_batches(
            len(self.train_table),
            config.train.batch_size,
            rank=self.world.rank,
            world=self.world.size,
            per=config.train.batch_per,
            scaling=config.train.lr_scaling,
        )
        self.ema = Ema(self.model, config.train.ema) if config.train.ema else None
        self.step = self._make_step()
        self.feed = TrainFeed(config, self.task, self.train_table, self.model, self.plan, self.world)
        self.steps_per_epoch = self.feed.steps
        data = {"training": table_digest(self.train_table), "validation": table_digest(self.val_table)}
        self.states = RunStates(config, folder, self.world, self.model, self.step, self.ema, data)
        self.progress, self.resumed = self.states.open(self.plan.total)
        self.step.bad_steps.describe = SkippedSteps(self.world, folder, self.states.attempt)
        self.step.bad_steps.aloud = self.world.is_main
        self._skipped_before = 0

    def _make_step(self) -> TrainStep:
        config = self.config
        forward = self.world.wrap(
            self.model,
            weight=self.plan.weight,
            sync_bn=config.train.sync_bn,
            bucket_mb=config.train.bucket_mb,
        )
        return TrainStep(
            self.model,
            build_optimizer(self.model, config.train, self.device),
            config.train,
            objective=self.task.objective(self.model),
            dtype=autocast_dtype(config.train.amp, self.device),
            device=self.device,
            forward=None if forward is self.model else forward,
            ema=self.ema,
            graph=config.train.graph,
            max_bad_steps=config.train.max_bad_steps,
        )

    def fit(self) -> Evaluation | None:
        """Runs to the last epoch; returns the last evaluation (None when resumed after the end)."""
        config, progress = self.config, self.progress
        evaluation = None
        with ExitStack() as stack:
            stack.enter_context(self.states)
            log: RunLog | SilentLog = SilentLog()
            if self.world.is_main:
                start = progress.epoch + 1
                log = RunLog(self.folder, tensorboard=config.run.tensorboard, start_epoch=start)
            stack.callback(log.close)
            while progress.epoch < config.train.epochs:
                started = time.perf_counter()
                row, samples = self._epoch(log)
                seconds = time.perf_counter() - started
                if samples:  # not an epoch resumed at its very end
                    row |= {"seconds": round(seconds, 2), "images_per_second": round(samples / seconds, 1)}
                last = progress.epoch + 1 == config.train.epochs
                if last or (progress.epoch + 1) % config.val.every == 0:
                    evaluation = self._validate(log, row)
                self._finish_epoch(log, row, evaluation)
        return evaluation

    def _epoch(self, log: RunLog | SilentLog) -> tuple[dict[str, Any], float]:
        """The row of the results, and how many samples were trained on since the start or the resume."""
        config, progress = self.config, self.progress
        self.feed.unusable = progress.unusable if self.world.is_main else 0
        self._skipped_before = self.step.bad_steps.total - progress.skipped
        before = progress.sums[1] if progress.sums else 0.0
        self.model.train()
        saved = progress.sums if self.world.is_main else []  # they are those of all processes
        self.step.sums.copy_(torch.tensor(saved or [0.0] * len(SUMS), dtype=torch.float64))
        with log.bar(f"epoch {progress.epoch + 1}", self.steps_per_epoch) as advance:
            for batch in self.feed.batches(progress.epoch, progress.batch):
                if batch is not None:
                    self.step(batch, self._rate(), epoch=progress.epoch, number=progress.batch)
                progress.batch += 1
                advance(1, _told(self.step.latest))
                self.states.check()
                at_end = progress.batch == self.steps_per_epoch  # where a state is saved anyway
                every = config.train.save_steps
                if every and progress.batch % every == 0 and not at_end:
                    self._save_within()
        loss, samples, correct, counted = self._meet()
        if not samples:
            _refuse_empty(progress.skipped)
        row = {
            "epoch": progress.epoch + 1,
            "lr": self._rate(-1),
            "loss": loss / samples,
            "accuracy": correct / max(counted, 1.0),
            "skipped": progress.skipped,
            "unusable": progress.unusable,
        }
        return row, samples - before

    def _save_within(self) -> None:
        """A state in the middle of an epoch."""
        self._meet()
        self.states.save(self.progress)

    def _meet(self) -> list[float]:
        """Waits for the steps begun; the processes agree on sums and running statistics. Returns the sums."""
        progress = self.progress
        self.step.finish()
        progress.sums = self.world.collect(self.step.sums)
        progress.skipped = self.step.bad_steps.total - self._skipped_before
        progress.unusable = int(self.world.sum([self.feed.unusable])[0])
        self.feed.unusable = progress.unusable if self.world.is_main else 0  # as with the sums
        if not math.isfinite(progress.sums[0]):
            raise TrainingError(
                f"the loss is not finite in epoch {progress.epoch + 1} by batch {progress.batch}; "
                "lower train.lr or set train.amp=none; earlier checkpoints in "
                f"{self.folder / CHECKPOINTS} are intact"
            )
        self.world.check_in_step(self.model, progress.epoch, progress.batch)
        self.world.average_buffers(self.model, self.plan.weight)
        if self.ema:
            self.world.average_buffers(self.ema.module, self.plan.weight)
        return progress.sums

    def _rate(self, offset: int = 0) -> float:
        progress = self.progress
        place = progress.epoch, progress.batch + offset, self.steps_per_epoch
        return self.plan.rate * learning_rate(self.config.train, *place)

    def _validate(self, log: RunLog | SilentLog, row: dict[str, Any]) -> Evaluation:
        config, epoch = self.config, self.progress.epoch + 1
        model: Any = self.ema.module if self.ema else self.model
        with log.bar("validation", self.task.rows(len(self.val_table), self.world)) as advance:
            evaluation, predictions = self.task.validate(
                model, self.val_table, self.device, advance, self.world
            )
        row |= evaluation.metrics
        every = config.run.pictures_every  # the first validation at or after each of these epochs draws
        due = every and (epoch // every > (epoch - config.val.every) // every or epoch == config.train.epochs)
        if self.world.is_main and due:
            self.states.attempt(lambda: self._draw(epoch, predictions))
        return evaluation

    def _draw(self, epoch: int, predictions: Any) -> None:
        pictures = make_folder(self.folder / "pictures")
        self.task.draw(pictures / f"epoch_{epoch:04d}.png", self.val_table, predictions)

    def _finish_epoch(
        self, log: RunLog | SilentLog, row: dict[str, Any], evaluation: Evaluation | None
    ) -> None:
        progress = self.progress
        headline = evaluation.headline if evaluation else None
        score = row.get(headline) if headline else None
        note = {"epoch": progress.epoch + 1, "metric": headline, "score": score}
        counts = score is not None and math.isfinite(score)
        best = bool(counts and (progress.best is None or score > progress.best))  # type: ignore[operator]
        if best:
            progress.best, progress.best_epoch = score, progress.epoch + 1
        progress.history.append(row)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, []
        progress.skipped = progress.unusable = 0
        self.states.wait()  # or results.csv could get two rows ahead of the states
        self.states.attempt(lambda: log.epoch(progress.history, self.config.train.epochs))
        self.states.save(progress, note=note, best=best)


def _refuse_empty(skipped: int) -> NoReturn:
    if skipped:
        raise TrainingError(
            "every step of the epoch was skipped, since no gradient was finite; lower train.lr or set "
            "train.amp=none"
        )
    raise DataError("not one picture of the training data is readable; run `fastpose check` on it")


def _told(report: StepReport | None) -> str:
    """For the bar: a finished step, which may be a few before the one just begun."""
    if report is None:
        return ""
    return "skipped" if report.skipped else f"loss {report.loss:.3g} accuracy {report.accuracy:.3f}"
