"""Running a network over a person table and scoring it, for `train` and for `val`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import torch

from fastpose.data.loader import EpochSampler, make_loader
from fastpose.data.persons import PersonTable
from fastpose.device import autocast_dtype
from fastpose.infer.evaluation import Evaluation, ScoreOptions, evaluate_predictions
from fastpose.infer.forward import ForwardOptions, Predictions, predict_batches
from fastpose.models import PoseModel
from fastpose.reference.dark import MAX_BLUR_KERNEL
from fastpose.train.config import Config
from fastpose.train.datasets import crop_dataset


def auto_workers(setting: int | Literal["auto"], device: torch.device) -> int:
    """Loader processes: as asked, or enough to feed the device without taking the CPU that computes."""
    if setting != "auto":
        return setting
    cores = len(os.sched_getaffinity(0))
    return min(cores, 16) if device.type == "cuda" else (0 if cores <= 2 else min(4, cores // 4 + 1))


def blur_kernel(setting: int | Literal["auto"], sigma: float) -> int:
    """Taps of the blur of `dark`: as asked, or the published ones, 11 for targets of sigma 2 and 17 for 3."""
    if setting != "auto":
        return setting
    return min(max(2 * round(3 * sigma) - 1, 1), MAX_BLUR_KERNEL)


def validate(
    model: PoseModel,
    config: Config,
    table: PersonTable,
    device: torch.device,
    on_batch: Callable[[int], None] = lambda size: None,
) -> tuple[Evaluation, Predictions]:
    """Predicts every person of `table` and scores them as `config.val` says."""
    val = config.val
    dataset = crop_dataset(config, table, model.meta.channel_order, training=False)
    sampler = EpochSampler(len(dataset), val.batch_size, shuffle=False, seed=0)
    loader = make_loader(dataset, sampler, workers=auto_workers(config.data.workers, device))
    options = ForwardOptions(
        device,
        table.keypoints.flip_index,
        flip_test=val.flip_test,
        shift=val.shift_heatmap,
        refine=val.refine,
        blur_kernel=blur_kernel(val.blur_kernel, config.data.sigma),
        dtype=autocast_dtype(val.amp, device),
    )
    predictions = predict_batches(model, loader, options, on_batch)
    score = ScoreOptions(val.nms, val.oks_threshold, val.in_vis_threshold)
    return evaluate_predictions(table, predictions, score), predictions
