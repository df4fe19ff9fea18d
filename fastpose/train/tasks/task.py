"""What the loop asks of a task, and which task a configuration is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from fastpose.infer.evaluation import Evaluation
from fastpose.models import Network, SegmentationMeta
from fastpose.models.registry import task_of
from fastpose.train.config import Config
from fastpose.train.objectives import Objective
from fastpose.train.parallel.distributed import World
from fastpose.train.tasks.networks import check_evaluation

OnBatch = Callable[[int], None]


class Table(Protocol):
    """Samples by row; `skipped` counts the annotations that were left out, by reason."""

    skipped: Counter[str]

    def __len__(self) -> int: ...


class Task(Protocol):
    """The parts of a run that depend on what the network does. Tables are those of the task's own readers."""

    def train_table(self) -> Any:
        """Samples to train on."""

    def val_table(self) -> Any:
        """Samples to evaluate."""

    def check(self, train: Any, val: Any) -> None:
        """ConfigError where two tables, or a table and the configuration, do not go together."""

    def describe(self, table: Any) -> str:
        """Such as '120 persons in 40 pictures'."""

    def build_model(self, table: Any, trained: str | Path | None = None) -> Network:
        """The network for a table: with the weights to start from, or `trained`."""

    def train_dataset(self, table: Any, model: Any, *, parts: bool) -> Any:
        """Augmented samples; `parts` of pictures where a GPU is to cut them."""

    def objective(self, model: Any) -> Objective:
        """What the network is trained towards."""

    def validate(
        self, model: Any, table: Any, device: torch.device, on_batch: OnBatch, world: World
    ) -> tuple[Evaluation, Any]:
        """Scores, the same in every process, and what was predicted, which `draw` takes on rank 0."""

    def rows(self, count: int, world: World) -> int:
        """How many of `count` samples this process evaluates."""

    def draw(self, path: Path, table: Any, predictions: Any) -> None:
        """A sheet of predictions as PNG."""

    def conventions(self, model: Any) -> dict[str, Config]:
        """Configurations that score the same network otherwise, by what is different in them."""

    def conditions(self, model: Any, count: int) -> str:
        """What the scores of `count` samples rest on, for a table's title."""


def task_for(config: Config) -> Task:
    """The task of `config.model.name`; ConfigError for an unknown network or the evaluation of another."""
    check_evaluation(config)
    if task_of(config.model.name) == SegmentationMeta.task:
        from fastpose.train.tasks.segmentation import SegmentationTask

        return SegmentationTask(config)
    from fastpose.train.tasks.pose import PoseTask

    return PoseTask(config)
