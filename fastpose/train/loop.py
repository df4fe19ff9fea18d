"""The run: epochs of steps, validation, checkpoints, and a resume that changes nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastpose.data.loader import EpochSampler, make_loader
from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import ConfigError, DataError, TrainingError
from fastpose.files import make_folder, remove_leftovers
from fastpose.infer.evaluation import Evaluation
from fastpose.keypoints import KeypointSet
from fastpose.models import PoseModel
from fastpose.train.checkpoint import Progress, load_state, save_named, save_state
from fastpose.train.config import Config
from fastpose.train.config_io import save_config
from fastpose.train.datasets import build_model, crop_dataset, train_table, val_table
from fastpose.train.log import RunLog
from fastpose.train.optim import build_optimizer, learning_rate
from fastpose.train.pictures import save_sheet
from fastpose.train.run_folder import CHECKPOINTS, check_resumable, lock_run
from fastpose.train.step import SUMS, TrainStep, replace_unusable
from fastpose.train.validate import auto_workers, validate

logger = logging.getLogger(__name__)


class Trainer:
    """Trains one configuration in one run folder; an existing run there is continued from its last state."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.device = pick_device(config.run.device)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.run.seed)
        self.train_persons, self.val_persons = train_table(config), val_table(config)
        _check_keypoints(config, self.train_persons.keypoints, self.val_persons.keypoints)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = build_model(config, self.train_persons.keypoints)
        self.model: PoseModel = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, config.train, self.device)
        self.step = TrainStep(
            self.model,
            self.optimizer,
            config.train,
            sigma=config.data.sigma,
            unbiased=config.data.target == "unbiased",
            dtype=autocast_dtype(config.train.amp, self.device),
            device=self.device,
        )
        self._feed()
        self.lock = lock_run(make_folder(folder))
        try:
            state = self._open()
        except BaseException:
            self.lock.close()
            raise
        self.resumed, self.progress = state is not None, state or Progress()
        self.unusable = 0

    def _open(self) -> Progress | None:
        """The state to go on from, if there is one; config.yaml changes only once that has proved to fit."""
        check_resumable(self.config, self.folder)
        for place in (self.folder, self.folder / CHECKPOINTS):
            remove_leftovers(place)
        state = load_state(self.folder / CHECKPOINTS, self.model, self.optimizer, self.step.scaler)
        save_config(self.config, self.folder / "config.yaml")
        return state

    def _feed(self) -> None:
        config = self.config
        dataset = crop_dataset(config, self.train_persons, self.model.meta.channel_order, training=True)
        full = len(dataset) >= config.train.batch_size  # a last short batch would skew BatchNorm
        self.sampler = EpochSampler(
            len(dataset), config.train.batch_size, shuffle=True, seed=config.run.seed, drop_last=full
        )
        self.steps_per_epoch = len(self.sampler)
        workers = auto_workers(config.data.workers, self.device)
        self.loader = make_loader(
            dataset, self.sampler, workers=workers, pin_memory=self.device.type == "cuda"
        )

    def fit(self) -> Evaluation | None:
        """Runs to the last epoch; returns the last evaluation (None when resumed after the end)."""
        config, progress = self.config, self.progress
        log = RunLog(self.folder, tensorboard=config.run.tensorboard, start_epoch=progress.epoch + 1)
        evaluation = None
        try:
            while progress.epoch < config.train.epochs:
                started, first = time.perf_counter(), progress.batch
                row = self._epoch(log)
                seconds = time.perf_counter() - started
                samples = (self.steps_per_epoch - first) * config.train.batch_size
                if samples:  # not an epoch resumed at its very end
                    row |= {"seconds": round(seconds, 2), "images_per_second": round(samples / seconds, 1)}
                last = progress.epoch + 1 == config.train.epochs
                if last or (progress.epoch + 1) % config.val.every == 0:
                    evaluation = self._validate(log, row)
                self._finish_epoch(log, row, evaluation)
        finally:
            log.close()
            self.lock.close()
        return evaluation

    def _epoch(self, log: RunLog) -> dict[str, Any]:
        config, progress = self.config, self.progress
        self.unusable = 0
        self.model.train()
        self.step.sums.copy_(torch.tensor(progress.sums or [0.0] * len(SUMS), dtype=torch.float64))
        with log.bar(f"epoch {progress.epoch + 1}", self.steps_per_epoch) as advance:
            for batch in self._batches():
                if batch["usable"].any():
                    self.step(batch, self._rate())
                progress.batch += 1
                advance(1)
                if config.train.save_steps and progress.batch % config.train.save_steps == 0:
                    self._check_and_save()
        loss, samples, correct, joints = self._read_sums()
        if not samples:
            raise DataError("not one picture of the training data is readable; run `fastpose check` on it")
        return {
            "epoch": progress.epoch + 1,
            "lr": self._rate(-1),
            "loss": loss / samples,
            "accuracy": correct / max(joints, 1.0),
        }

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        self.sampler.set_epoch(self.progress.epoch, self.progress.batch)
        for batch in self.loader:
            self.unusable += replace_unusable(batch)
            yield batch

    def _rate(self, offset: int = 0) -> float:
        progress = self.progress
        return learning_rate(self.config.train, progress.epoch, progress.batch + offset, self.steps_per_epoch)

    def _read_sums(self) -> list[float]:
        sums = self.step.sums.tolist()
        if not math.isfinite(sums[0]):
            progress = self.progress
            raise TrainingError(
                f"the loss is not finite in epoch {progress.epoch + 1} by batch {progress.batch}; "
                "lower train.lr or set train.amp=none; earlier checkpoints in "
                f"{self.folder / CHECKPOINTS} are intact"
            )
        return sums

    def _validate(self, log: RunLog, row: dict[str, Any]) -> Evaluation:
        config, epoch = self.config, self.progress.epoch + 1
        with log.bar("validation", len(self.val_persons)) as advance:
            evaluation, predictions = validate(self.model, config, self.val_persons, self.device, advance)
        row |= evaluation.metrics
        every = config.run.pictures_every  # the first validation at or after each of these epochs draws
        if every and (epoch // every > (epoch - config.val.every) // every or epoch == config.train.epochs):
            pictures = make_folder(self.folder / "pictures")
            save_sheet(pictures / f"epoch_{epoch:04d}.png", self.val_persons, predictions)
        return evaluation

    def _finish_epoch(self, log: RunLog, row: dict[str, Any], evaluation: Evaluation | None) -> None:
        progress = self.progress
        row["unusable"] = self.unusable
        headline = evaluation.headline if evaluation else None
        score = row.get(headline) if headline else None
        note = {"epoch": progress.epoch + 1, "metric": headline, "score": score}
        if score is not None and (progress.best is None or score > progress.best):
            progress.best = score
            save_named(self.folder, "best", self.model, note)
        save_named(self.folder, "last", self.model, note)
        progress.history.append(row)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, []
        log.epoch(progress.history, self.config.train.epochs)
        self._save()

    def _check_and_save(self) -> None:
        self.progress.sums = self._read_sums()
        self._save()

    def _save(self) -> None:
        save_state(
            self.folder / CHECKPOINTS,
            self.model,
            self.optimizer,
            self.step.scaler,
            self.progress,
            self.config.train.keep,
        )


def _check_keypoints(config: Config, train: KeypointSet, val: KeypointSet) -> None:
    if train.names != val.names:
        raise ConfigError(
            f"data: the training set has the {train.num_joints} keypoints {', '.join(train.names)}, the "
            f"validation set the {val.num_joints} {', '.join(val.names)}; they must be the same"
        )
    if config.train.loss == "ohkm" and config.train.ohkm_topk > train.num_joints:
        raise ConfigError(f"train.ohkm_topk={config.train.ohkm_topk}: the data has {train.num_joints} joints")
