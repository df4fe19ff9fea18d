"""From a configuration to labelled pictures and a segmentation network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastpose.classes import ClassSet
from fastpose.data.figures.parts import read_figure_parts
from fastpose.data.segmentation import SegmentationTable
from fastpose.data.segmentation_coco import read_coco_masks
from fastpose.data.segmentation_dataset import SegmentationDataset
from fastpose.data.voc import read_voc
from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import (
    SegmentationMeta,
    SegmentationModel,
    create_model,
    create_trained,
    read_meta,
)
from fastpose.train.config import Config
from fastpose.train.tasks.networks import network_options, start_network
from fastpose.train.tasks.pose_data import VAL_FIGURES_SEED, coco_files, figure_style


def read_table(config: Config, part: str) -> SegmentationTable:
    """Labelled pictures of 'train' or 'val': VOC's layout, persons of a COCO file, or rendered body parts."""
    data = config.data
    if data.format == "voc":
        split = data.train_split if part == "train" else data.val_split
        return read_voc(str(data.root), split, on_bad=data.on_bad)
    if data.format == "coco":
        annotations, images = coco_files(config, part)
        return read_coco_masks(annotations, images, on_bad=data.on_bad)
    if data.format == "figures":
        training = part == "train"
        figures = data.figures
        return read_figure_parts(
            figures.train_count if training else figures.val_count,
            seed=config.run.seed if training else VAL_FIGURES_SEED + config.run.seed,
            image_size=(figures.image_size[0], figures.image_size[1]),
            style=figure_style(config),
        )
    raise ConfigError(f"data.format={data.format}: segmentation networks take voc, coco or figures")


def build_network(config: Config, classes: ClassSet, trained: str | Path | None = None) -> SegmentationModel:
    """The network of a configuration for these classes: with the weights to start from, or `trained`."""
    options = {"classes": classes, **network_options(config)}
    name, count = config.model.name, classes.num_classes
    if trained is not None:
        _check_classes(trained, classes)
        return _segmentation(create_trained(name, count, trained, **options))
    model = _segmentation(create_model(name, count, **options))
    start_network(model, config, options)
    return model


def train_pictures(config: Config, table: SegmentationTable, channel_order: str) -> SegmentationDataset:
    """Scaled, cut and mirrored crops of a table."""
    return SegmentationDataset(
        table,
        crop_size=(config.data.input_size[0], config.data.input_size[1]),
        channel_order="bgr" if channel_order == "bgr" else "rgb",
        augmentation=config.segmentation,
        seed=config.run.seed,
        on_bad=config.data.on_bad,
        cache_mb=config.data.cache_mb,
    )


def _segmentation(network: Any) -> SegmentationModel:
    if not isinstance(network, SegmentationModel):
        raise ConfigError(f"{network.meta.model} is a {network.meta.task} network, not one for segmentation")
    return network


def _check_classes(trained: str | Path, classes: ClassSet) -> None:
    """Weights that say which classes they know are not scored on others."""
    saved = read_meta(trained)
    if not isinstance(saved, SegmentationMeta) or saved.classes is None:
        return
    if saved.classes.names != classes.names:
        raise CheckpointError(
            f"{trained}: trained on the classes {', '.join(saved.classes.names)}, not on the data's: "
            f"{', '.join(classes.names)}"
        )
