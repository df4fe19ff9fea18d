"""Running a network over a person table and scoring it, for `train` and for `val`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch

from fastpose.data.loader import make_loader
from fastpose.data.persons import PersonTable
from fastpose.data.sharding import RowsSampler
from fastpose.device import autocast_dtype
from fastpose.infer.chunks import chunk_rows, chunk_size, fixed_chunks, no_predictions, without_padding
from fastpose.infer.evaluation import Evaluation, ScoreOptions, evaluate_predictions
from fastpose.infer.forward import ForwardOptions, Predictions, predict_batches
from fastpose.models import ModelMeta, PoseModel
from fastpose.models.reading import Reading, kernel_for, reading_of
from fastpose.train.config import Config
from fastpose.train.loading import auto_workers
from fastpose.train.parallel.distributed import World
from fastpose.train.tasks.networks import reading_settings
from fastpose.train.tasks.pose_data import crop_dataset


def reading(config: Config, meta: ModelMeta) -> Reading:
    """How the output of a network is read: as `config.val` says, else as its weights do; the taps of a blur
    that neither gives are those for `data.sigma`."""
    asked = reading_settings(config.val)
    if asked["blur_kernel"] == "auto" and meta.blur_kernel is None:
        asked["blur_kernel"] = kernel_for(config.data.sigma)
    return reading_of(meta, **asked)


def validate(
    model: PoseModel,
    config: Config,
    table: PersonTable,
    device: torch.device,
    on_batch: Callable[[int], None] = lambda size: None,
    world: World | None = None,
) -> tuple[Evaluation, Predictions]:
    """Predicts every person of `table` and scores them as `config.val` says.

    The processes of `world` share the persons. Every one gets the same metrics; rank 0 has all predictions
    and the result rows, the others have their own predictions and no rows. The network runs in chunks of one
    size that hold the same persons however many processes there are, so the figures agree to the last bit,
    and for all batch sizes that are not below a chunk (`infer.chunks.CHUNK`).
    `on_batch(persons)` is told of this process's `rows_of` them.
    """
    world = world or World(device)
    predictions = _predict(model, config, table, device, on_batch, world)
    chunk = chunk_size(config.val.batch_size, device)
    counts = [len(chunk_rows(len(table), chunk, rank, world.size)) for rank in range(world.size)]
    whole = Predictions(
        *(world.gather_rows(getattr(predictions, field.name), counts) for field in fields(Predictions))
    )
    return _score(config, table, whole, world), whole


def rows_of(config: Config, count: int, world: World) -> range:
    """Rows of a table of `count` persons that this process predicts."""
    chunk = chunk_size(config.val.batch_size, world.device)
    return chunk_rows(count, chunk, world.rank, world.size)


def _predict(
    model: PoseModel,
    config: Config,
    table: PersonTable,
    device: torch.device,
    on_batch: Callable[[int], None],
    world: World,
) -> Predictions:
    val = config.val
    rows = rows_of(config, len(table), world)
    if not rows:
        return no_predictions(table.keypoints.num_joints)
    chunk = chunk_size(val.batch_size, device)
    dataset = crop_dataset(config, table, model.meta, training=False)
    sampler = RowsSampler(rows.start, rows.stop, val.batch_size // chunk * chunk)
    workers = auto_workers(config.data.workers, device, world.local_size)
    loader = make_loader(dataset, sampler, workers=workers)
    options = ForwardOptions(
        device,
        table.keypoints.flip_index,
        flip_test=val.flip_test,
        **reading(config, model.meta)._asdict(),
        dtype=autocast_dtype(val.amp, device),
        mean=model.meta.mean,
        std=model.meta.std,
    )
    return without_padding(predict_batches(model, fixed_chunks(loader, chunk, on_batch), options))


def _score(config: Config, table: PersonTable, predictions: Predictions, world: World) -> Evaluation:
    """Worked out on rank 0, where the predictions are."""
    val, results = config.val, []

    def figures() -> list[Any]:
        score = ScoreOptions(val.nms, val.oks_threshold, val.in_vis_threshold)
        evaluation = evaluate_predictions(table, predictions, score)
        results.extend(evaluation.results)
        return [{name: float(value) for name, value in evaluation.metrics.items()}, evaluation.headline]

    metrics, headline = world.from_main(figures)
    return Evaluation(metrics, headline, results)
