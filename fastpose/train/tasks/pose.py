"""Finding the joints of persons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastpose.data.persons import PersonTable
from fastpose.errors import ConfigError
from fastpose.infer.evaluation import Evaluation
from fastpose.infer.forward import Predictions
from fastpose.models import PoseModel
from fastpose.train.config import Config
from fastpose.train.objectives import HeatmapObjective, Objective
from fastpose.train.parallel.distributed import World
from fastpose.train.pictures import save_sheet
from fastpose.train.simcc_objective import SimCCObjective
from fastpose.train.tasks.conventions import pose_conventions
from fastpose.train.tasks.pose_data import build_model, crop_dataset, train_table, val_table
from fastpose.train.tasks.pose_validation import reading, rows_of, validate
from fastpose.train.tasks.task import OnBatch

LOSSES = {"heatmaps": ("mse", "keypoint_mse", "ohkm"), "queries": ("set",), "bins": ("kl",)}
"""`train.loss` by what a network predicts; auto is the first."""


class PoseTask:
    """A `fastpose.train.tasks.Task` over tables of persons."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train_table(self) -> PersonTable:
        return train_table(self.config)

    def val_table(self) -> PersonTable:
        return val_table(self.config)

    def check(self, train: PersonTable, val: PersonTable) -> None:
        ours, theirs = train.keypoints, val.keypoints
        if ours.names != theirs.names:
            raise ConfigError(
                f"data: the training set has the {ours.num_joints} keypoints {', '.join(ours.names)}, the "
                f"validation set the {theirs.num_joints} {', '.join(theirs.names)}; they must be the same"
            )
        topk = self.config.train.ohkm_topk
        if self.config.train.loss == "ohkm" and topk > ours.num_joints:
            raise ConfigError(f"train.ohkm_topk={topk}: the data has {ours.num_joints} joints")

    def describe(self, table: PersonTable) -> str:
        return f"{len(table)} persons in {len(table.file_names)} pictures"

    def build_model(self, table: PersonTable, trained: str | Path | None = None) -> PoseModel:
        return build_model(self.config, table.keypoints, trained)

    def train_dataset(self, table: PersonTable, model: PoseModel, *, parts: bool) -> Any:
        return crop_dataset(self.config, table, model.meta, training=True, parts=parts)

    def objective(self, model: PoseModel) -> Objective:
        data, train, meta = self.config.data, self.config.train, model.meta
        fitting = LOSSES[model.output]
        if train.loss not in ("auto", *fitting):
            *first, last = fitting
            choice = f"{', '.join(first)} or {last}" if first else last
            raise ConfigError(
                f"train.loss={train.loss}: {meta.model} predicts {model.output}; choose {choice}"
            )
        if model.output == "queries":
            from fastpose.train.set_objective import SetObjective

            return SetObjective(visible_only=train.visible_only, mean=meta.mean, std=meta.std)
        if model.output == "bins":
            sigma = None if data.simcc_sigma is None else (data.simcc_sigma[0], data.simcc_sigma[1])
            smoothing = data.simcc_smoothing
            return SimCCObjective(sigma=sigma, smoothing=smoothing, mean=meta.mean, std=meta.std)
        return HeatmapObjective(
            sigma=data.sigma,
            unbiased=data.target == "unbiased",
            topk=train.ohkm_topk if train.loss == "ohkm" else None,
            codec=meta.codec,
            linear_weight=train.loss == "keypoint_mse",
            heatmaps=model.heatmaps,
            mean=meta.mean,
            std=meta.std,
        )

    def validate(
        self, model: Any, table: PersonTable, device: torch.device, on_batch: OnBatch, world: World
    ) -> tuple[Evaluation, Predictions]:
        return validate(model, self.config, table, device, on_batch, world)

    def rows(self, count: int, world: World) -> int:
        return len(rows_of(self.config, count, world))

    def draw(self, path: Path, table: PersonTable, predictions: Predictions) -> None:
        save_sheet(path, table, predictions)

    def conventions(self, model: PoseModel) -> dict[str, Config]:
        return pose_conventions(self.config, model.meta, model.output)

    def conditions(self, model: PoseModel, count: int) -> str:
        """Boxes, crops, precision, flip test, codec, refinement, and other ways to read the output."""
        val, (width, height) = self.config.val, self.config.data.input_size
        boxes = f"detector boxes from {val.detections}" if val.boxes == "detector" else "annotated boxes"
        flip = "with" if val.flip_test else "without"
        crops = f"crops {width}x{height} {model.meta.channel_order}"
        own = reading(self.config, model.meta)
        how = [] if model.meta.codec == "msra" else [f"codec {model.meta.codec}"]
        if model.output == "heatmaps":
            how.append(f"refine {own.refine}")
            how += [f"peaks {own.cell_offset:g} cells on"] if own.cell_offset else []
        elif model.output == "queries":
            how.append(f"softmax {'with' if own.background else 'without'} the class for no keypoint")
        return ", ".join([f"{count} {boxes}", crops, f"amp {val.amp}", f"{flip} flip test", *how])
