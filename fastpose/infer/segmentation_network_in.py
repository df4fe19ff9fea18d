"""From what a user calls a model to a segmentation network and its classes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from fastpose.classes import CITYSCAPES_19, VOC_21, ClassSet, voc_color
from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.network_in import StrPath, expect, is_exported, open_network
from fastpose.models import SegmentationMeta, SegmentationModel, list_models
from fastpose.models.checkpoint_formats import weights_file
from fastpose.models.registry import task_of
from fastpose.models.weights import create_fitting

logger = logging.getLogger(__name__)


def find_segmentation(
    model: torch.nn.Module | StrPath, weights: StrPath | None = None, **options: Any
) -> SegmentationModel:
    """The network of a name and its weights, of a .safetensors file, of a run folder, or the one given.

    options: those of the model's factory, for a name only; None changes nothing. The number of classes is
    that of the file, which `classes` must have too. Raises ConfigError for a model that is not known or not
    for segmentation, CheckpointError for a file that cannot be used.
    """
    options = {name: value for name, value in options.items() if value is not None}
    for file in (model, weights):
        if file is not None and is_exported(file):
            raise ConfigError(
                f"{file}: an exported network, which fastpose.infer.engines.open_graph runs on tensors; "
                "predict with the weights that it was exported from"
            )
    return _segmentation(open_network(model, weights, options, _by_name, "Segmenter('hrnet_seg_w48'"))


def classes_of(meta: SegmentationMeta) -> ClassSet:
    """The classes that the weights know. Where they do not say, 19 are those of Cityscapes and 21 those of
    PASCAL VOC, as in published files, and others are numbered, in VOC's colours; a log line tells which."""
    if meta.classes is not None:
        return meta.classes
    count = meta.num_classes
    for known in (CITYSCAPES_19, VOC_21):
        if known.num_classes == count:
            logger.info("%s: %d classes without names, taken for %s", meta.model, count, known.name)
            return known
    logger.info(
        "%s: %d classes without names are numbered; classes=ClassSet(...) names them, on the command line "
        "--config with a configuration whose data.root holds their classes.json",
        meta.model,
        count,
    )
    names = tuple(f"class {label}" for label in range(count))
    return ClassSet(f"unnamed{count}", names, tuple(voc_color(label) for label in range(count)))


def _by_name(name: str, weights: StrPath | None, options: dict[str, Any]) -> SegmentationModel:
    if task_of(name) != SegmentationMeta.task:
        known = ", ".join(list_models(SegmentationMeta.task))
        raise ConfigError(
            f"{name} is a {task_of(name)} network, which fastpose.Predictor runs; for segmentation: {known}"
        )
    if weights is None:
        raise ConfigError(f"{name}: an untrained network finds nothing; give weights=FILE")
    if "num_classes" in options:
        raise ConfigError("num_classes: the weights have their own number; leave it out")
    classes = options.pop("classes", None)
    if classes is not None and not isinstance(classes, ClassSet):
        raise ConfigError(f"classes: expected a fastpose.classes.ClassSet, got {type(classes).__name__}")
    file = weights_file(Path(weights))
    network = _segmentation(create_fitting(name, file, **options))
    count = network.meta.num_classes
    if classes is not None and classes.num_classes != count:
        raise CheckpointError(
            f"{file}: has {count} classes, and the set {classes.name!r} names {classes.num_classes}; give "
            "that of its training (classes=, on the command line --config), or leave it out"
        )
    network.meta = network.meta.with_options({"classes": classes})
    return network


def _segmentation(network: torch.nn.Module) -> SegmentationModel:
    return expect(network, SegmentationModel, "segmentation", "fastpose.Predictor")
