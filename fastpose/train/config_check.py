"""Values that no run can use, refused before anything starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from fastpose.errors import ConfigError
from fastpose.reference.dark import check_blur_kernel
from fastpose.train.config import Config

AT_LEAST = {
    "data.cache_mb": 0,
    "run.pictures_every": 0,
    "run.seed": 0,
    "run.threads": 0,
    "train.batch_size": 1,
    "train.clip_grad": 0,
    "train.ema": 0,
    "train.epochs": 1,
    "train.keep": 1,
    "train.keep_every": 0,
    "train.max_bad_steps": 0,
    "train.momentum": 0,
    "train.ohem_keep": 1,
    "train.ohkm_topk": 1,
    "train.save_steps": 0,
    "train.warmup_steps": 0,
    "train.weight_decay": 0,
    "val.batch_size": 1,
    "val.every": 1,
}
ABOVE_ZERO = (
    "data.sigma", "run.patience", "train.bucket_mb", "train.gamma", "train.lr", "train.ohem_threshold",
    "train.poly_power",
)  # fmt: skip
LENGTHS = {
    "data.figures.facing": 3,
    "data.figures.image_size": 2,
    "data.figures.people": 2,
    "data.input_size": 2,
}


def check_config(config: Config) -> None:
    """Raises ConfigError for the first setting that cannot be, by name."""
    for key, value in _numbers(config):
        if not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
    for key, least in AT_LEAST.items():
        if not _value(config, key) >= least:
            raise ConfigError(f"{key}={_value(config, key)}: must be at least {least}")
    for key in ABOVE_ZERO:
        if not _value(config, key) > 0:
            raise ConfigError(f"{key}={_value(config, key)}: must be above 0")
    for key, length in LENGTHS.items():
        if len(_value(config, key)) != length:
            raise ConfigError(f"{key}={_value(config, key)}: must be {length} numbers")
    if config.model.num_modules != "auto" and config.model.num_modules < 1:
        raise ConfigError(f"model.num_modules={config.model.num_modules}: must be auto or at least 1")
    if config.model.weights is not None and config.model.backbone is not None:
        raise ConfigError("model.weights and model.backbone: give one of the two to start from")
    _check_data(config)
    _check_segmentation(config)
    name = config.run.name or config.name
    if Path(name).name != name or name == "..":
        raise ConfigError(f"run.name={name!r}: must be a name, not a path; run.dir is the folder of all runs")
    for key in ("val.cell_offset", "val.in_vis_threshold", "val.oks_threshold", "val.score_threshold"):
        if _value(config, key) != "auto" and not 0 <= _value(config, key) <= 1:
            raise ConfigError(f"{key}={_value(config, key)}: must be between 0 and 1")
    if config.train.backbone_lr is not None and not config.train.backbone_lr > 0:
        raise ConfigError(
            f"train.backbone_lr={config.train.backbone_lr}: must be above 0, or null for train.lr"
        )
    if config.train.ema >= 1:
        raise ConfigError(f"train.ema={config.train.ema}: must be below 1, such as 0.999; 0 for no average")
    if config.val.blur_kernel != "auto":
        try:
            check_blur_kernel(config.val.blur_kernel)
        except ValueError as error:
            raise ConfigError(f"val.{error}") from error
    if config.val.boxes == "detector" and not config.val.detections:
        raise ConfigError("val.boxes=detector needs the boxes: val.detections=FILE.json")


def _check_data(config: Config) -> None:
    data = config.data
    if any(side < 8 or side % 8 for side in data.input_size):  # the network may ask for more
        raise ConfigError(f"data.input_size={data.input_size}: both must be positive multiples of 8")
    if data.workers != "auto" and int(data.workers) < 0:
        raise ConfigError(f"data.workers={data.workers}: must be auto or at least 0")
    _check_simcc(config)
    if any(len(pair) != 2 for pair in data.flip_pairs or []):
        raise ConfigError(f"data.flip_pairs={data.flip_pairs}: must be pairs of joint numbers")
    files = (data.train_annotations, data.train_images, data.val_annotations, data.val_images)
    if (data.format in ("mpii", "voc") and not data.root) or (
        data.format == "coco" and not (data.root or all(files))
    ):
        raise ConfigError(
            f"data.root is not set: give the folder of the {data.format} data, data.root=FOLDER"
        )


def _check_simcc(config: Config) -> None:
    data = config.data
    if data.simcc_sigma is not None and (
        len(data.simcc_sigma) != 2 or not all(s > 0 for s in data.simcc_sigma)
    ):
        raise ConfigError(f"data.simcc_sigma={data.simcc_sigma}: must be two numbers above 0, or null")
    if not 0 <= data.simcc_smoothing < 1:
        raise ConfigError(f"data.simcc_smoothing={data.simcc_smoothing}: must be 0 or more and below 1")
    if data.simcc_smoothing and data.simcc_sigma is not None:
        raise ConfigError("data.simcc_smoothing is of one bin: set data.simcc_sigma=null")


def _check_segmentation(config: Config) -> None:
    val = config.val
    if val.window is not None and (len(val.window) != 2 or min(val.window) < 32):
        raise ConfigError(f"val.window={val.window}: must be width and height of 32 pixels or more, or null")
    if not 0 < val.stride_rate <= 1:
        raise ConfigError(f"val.stride_rate={val.stride_rate}: must be above 0 and at most 1")
    if not val.scales or not all(0 < scale <= 10 for scale in val.scales):
        raise ConfigError(f"val.scales={val.scales}: must be numbers above 0, such as [0.75, 1.0, 1.25]")
    weights = config.train.class_weights
    if weights is not None and not (all(0 <= weight < 1e6 for weight in weights) and any(weights)):
        raise ConfigError(f"train.class_weights={weights}: must be 0 or more, and not all 0")


def _numbers(group: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a group of settings and below it."""
    for field in dataclasses.fields(group):
        value, key = getattr(group, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{key}.")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float):
                yield key, one


def _value(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)
