"""Giving every pixel a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpose.data.segmentation import SegmentationTable
from fastpose.data.sharding import share_of
from fastpose.device import autocast_dtype
from fastpose.errors import ConfigError, ImageError
from fastpose.infer.evaluation import Evaluation
from fastpose.infer.overlay import segmentation_sheet
from fastpose.infer.results import write_png
from fastpose.infer.segmentation_evaluation import SegmentationOptions, evaluate_segmentation, predict_labels
from fastpose.metrics.segmentation import class_table, segmentation_results, segmentation_scores
from fastpose.models import SegmentationModel
from fastpose.train.config import Config
from fastpose.train.loading import auto_workers
from fastpose.train.objectives import Objective
from fastpose.train.parallel.distributed import World
from fastpose.train.segmentation_objective import SegmentationObjective
from fastpose.train.tasks.conventions import segmentation_conventions
from fastpose.train.tasks.segmentation_data import build_network, read_table, train_pictures
from fastpose.train.tasks.task import OnBatch
from fastpose.wording import counted

HEADLINE = "mIoU"
LOSSES = ("auto", "ce", "ohem", "ce_dice", "ce_dice_seed")
MEANS = {"softmax": "probabilities", "exp": "exp(logits)"}
"""By `val.average`."""
SHEET = 6
"""Pictures of a sheet."""


@dataclass
class Evaluated:
    """What `SegmentationTask.draw` predicts its pictures with."""

    model: SegmentationModel
    options: SegmentationOptions


class SegmentationTask:
    """A `fastpose.train.tasks.Task` over tables of labelled pictures."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train_table(self) -> SegmentationTable:
        return read_table(self.config, "train")

    def val_table(self) -> SegmentationTable:
        return read_table(self.config, "val")

    def check(self, train: SegmentationTable, val: SegmentationTable) -> None:
        ours, theirs = train.classes.names, val.classes.names
        if ours != theirs:
            raise ConfigError(
                f"data: the training set has the classes {', '.join(ours)}, the validation set "
                f"{', '.join(theirs)}; they must be the same"
            )
        given = self.config.train.class_weights
        if given is not None and len(given) != len(ours):
            raise ConfigError(f"train.class_weights: {len(given)} weights for {len(ours)} classes")
        if self.config.data.warp == "gpu" or self.config.data.crop_cache:
            raise ConfigError("data.warp=gpu and data.crop_cache cut persons out; segmentation has none")

    def describe(self, table: SegmentationTable) -> str:
        return f"{counted(len(table), 'picture')} with {table.classes.num_classes} classes"

    def build_model(self, table: SegmentationTable, trained: str | Path | None = None) -> SegmentationModel:
        return build_network(self.config, table.classes, trained)

    def train_dataset(self, table: SegmentationTable, model: SegmentationModel, *, parts: bool) -> Any:
        return train_pictures(self.config, table, model.meta.channel_order)

    def objective(self, model: SegmentationModel) -> Objective:
        train, meta = self.config.train, model.meta
        if train.loss not in LOSSES:
            raise ConfigError(
                f"train.loss={train.loss}: {meta.model} is for segmentation; choose {', '.join(LOSSES[1:])}"
            )
        return SegmentationObjective(
            loss="ce" if train.loss == "auto" else train.loss,
            weight=train.class_weights,
            align_corners=meta.align_corners,
            threshold=train.ohem_threshold,
            min_kept=train.ohem_keep,
            batch_size=train.batch_size,
            mean=meta.mean,
            std=meta.std,
        )

    def validate(
        self, model: Any, table: SegmentationTable, device: torch.device, on_batch: OnBatch, world: World
    ) -> tuple[Evaluation, Evaluated]:
        """Every process counts its share of the pictures; whole numbers, so their sum is always the same."""
        options = self._options(device, world)
        rows = share_of(len(table), world.rank, world.size)
        confusion = evaluate_segmentation(model, table, options, rows, on_batch)
        total = np.array(world.sum(confusion.astype(np.float64).ravel().tolist()), np.int64)
        total = total.reshape(confusion.shape)
        evaluation = Evaluation(
            segmentation_scores(total, table.classes),
            HEADLINE,
            segmentation_results(total, table.classes),
            by_class=class_table(total, table.classes),
        )
        return evaluation, Evaluated(model, options)

    def rows(self, count: int, world: World) -> int:
        share = share_of(count, world.rank, world.size)
        return share.stop - share.start

    def draw(self, path: Path, table: SegmentationTable, predictions: Evaluated) -> None:
        pictures: list[np.ndarray] = []
        found: list[np.ndarray] = []
        truth: list[np.ndarray] = []
        for row in np.unique(np.linspace(0, len(table) - 1, min(SHEET, len(table))).astype(int)):
            try:
                sample = table.read(int(row))
            except ImageError:
                continue
            pictures.append(sample.pixels)
            truth.append(sample.labels)
            found += predict_labels(predictions.model, [sample.pixels], predictions.options)
        if pictures:
            write_png(path, segmentation_sheet(pictures, found, table.classes, truth=truth, columns=1))

    def conventions(self, model: SegmentationModel) -> dict[str, Config]:
        return segmentation_conventions(self.config, model.meta.channel_order, model.meta.align_corners)

    def conditions(self, model: SegmentationModel, count: int) -> str:
        """Window, scales, what is averaged over them, mirror and precision."""
        val, meta = self.config.val, model.meta
        window = "whole" if val.window is None else f"windows of {val.window[0]}x{val.window[1]}"
        scales = "one scale" if val.scales == [1.0] else f"scales {', '.join(map(str, val.scales))}"
        flip = "with" if val.flip_test else "without"
        several = val.window is not None or len(val.scales) > 1
        mean = f", mean of {MEANS[val.average]}" if several else ""
        return (
            f"{counted(count, 'picture')}, {window}, {meta.channel_order}, {scales}{mean}, amp {val.amp}, "
            f"{flip} flip test, align_corners {str(meta.align_corners).lower()}"
        )

    def _options(self, device: torch.device, world: World) -> SegmentationOptions:
        val = self.config.val
        return SegmentationOptions(
            device,
            dtype=autocast_dtype(val.amp, device),
            window=None if val.window is None else (val.window[0], val.window[1]),
            stride_rate=val.stride_rate,
            scales=val.scales,
            flip=val.flip_test,
            average=val.average,
            batch_size=val.batch_size,
            workers=auto_workers(self.config.data.workers, device, world.local_size),
            on_bad=self.config.data.on_bad,
        )
