"""From a configuration to its person tables, crops and network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastpose.data.coco import coco_layout, read_coco, read_detections
from fastpose.data.crop_cache import CropCache
from fastpose.data.dataset import CropDataset
from fastpose.data.figures import FigureStyle, read_figures
from fastpose.data.mpii import read_mpii
from fastpose.data.persons import PersonTable
from fastpose.errors import CheckpointError, ConfigError
from fastpose.keypoints import KeypointSet
from fastpose.models import (
    ModelMeta,
    Network,
    PoseModel,
    create_model,
    create_trained,
    read_meta,
)
from fastpose.models.weights import layer_options
from fastpose.nn.frozen_norm import FrozenBatchNorm2d
from fastpose.train.config import Config
from fastpose.train.tasks.networks import network_options, say_kernel, start_network

logger = logging.getLogger(__name__)

VAL_FIGURES_SEED = 1_000_003  # held-out figures never share a picture with any training seed below it


def aspect_ratio(config: Config) -> float:
    width, height = config.data.input_size
    return width / height


def train_table(config: Config) -> PersonTable:
    """Persons to train on."""
    return _read(config, "train")


def val_table(config: Config) -> PersonTable:
    """Persons to evaluate: annotated boxes, or the detector's when `val.boxes` says so."""
    if config.val.boxes == "gt":
        return _read(config, "val")
    if config.data.format != "coco":
        raise ConfigError(f"val.boxes=detector needs data.format=coco, not {config.data.format}")
    annotations, images = coco_files(config, "val")
    truth = _read(config, "val")
    return read_detections(
        _place(config, str(config.val.detections)),
        annotations,
        images,
        aspect_ratio=aspect_ratio(config),
        keypoint_set=truth.keypoints,
        score_threshold=config.val.score_threshold,
        on_bad=config.data.on_bad,
    )


def build_model(config: Config, keypoints: KeypointSet, trained: str | Path | None = None) -> PoseModel:
    """The network of a configuration for these keypoints: with the weights to start from, or `trained`."""
    options = {"keypoints": keypoints, **network_options(config)}
    name, joints = config.model.name, keypoints.num_joints
    if trained is not None:
        _check_meta(trained, options)
        return pose_model(say_kernel(create_trained(name, joints, trained, **options), config))
    # What nothing says of the layers is what the weights to start from were made with.
    layers = layer_options(name, config.model.weights)
    options |= {option: value for option, value in layers.items() if options.get(option) is None}
    model = pose_model(create_model(name, joints, **options))
    start_network(model, config, options)
    if config.model.weights is None and config.model.backbone is None:
        _warn_frozen(model)
    return model


def _warn_frozen(model: PoseModel) -> None:
    """Of a network of which a part that never learns has nothing to start from."""
    if any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()):
        logger.warning(
            "%s starts from nothing, and its frozen BatchNorms and first layers never learn: give ImageNet's "
            "weights of its backbone, model.weights=%s.pth",
            model.meta.model, model.meta.model.removeprefix("prtr_"),
        )  # fmt: skip


def pose_model(network: Network) -> PoseModel:
    if not isinstance(network, PoseModel):
        raise ConfigError(f"{network.meta.model} is a {network.meta.task} network, not one for poses")
    return network


def _check_meta(trained: str | Path, options: dict[str, Any]) -> None:
    """Weights that say on which keypoints and with which codec they were trained are not scored otherwise."""
    saved = read_meta(trained)
    if not isinstance(saved, ModelMeta):  # loading says what is wrong with one for another task
        return
    if saved.keypoints is not None and saved.keypoints.names != options["keypoints"].names:
        raise CheckpointError(
            f"{trained}: trained on the keypoints {', '.join(saved.keypoints.names)}, not on the data's: "
            f"{', '.join(options['keypoints'].names)}"
        )
    if options["codec"] not in (None, saved.codec):
        raise CheckpointError(
            f"{trained}: trained with codec {saved.codec}, not data.codec={options['codec']}, which would "
            "read its joints in wrong places; leave data.codec=auto"
        )
    if saved.input_size != options["input_size"]:
        logger.warning(
            "%s was trained on crops of %s, not %s", trained, saved.input_size, options["input_size"]
        )


def crop_dataset(
    config: Config, table: PersonTable, meta: ModelMeta, *, training: bool, parts: bool = False
) -> CropDataset:
    """The crops of a table for the network of `meta`, augmented and seeded for training; `parts` of pictures,
    for a GPU to warp."""
    return CropDataset(
        table,
        input_size=(config.data.input_size[0], config.data.input_size[1]),
        channel_order="bgr" if meta.channel_order == "bgr" else "rgb",
        augmentation=config.augment if training else None,
        seed=config.run.seed,
        on_bad=config.data.on_bad,
        joint_weights=config.data.joint_weights,
        cache_mb=config.data.cache_mb,
        crops=CropCache(config.data.crop_cache) if training and config.data.crop_cache else None,
        codec=meta.codec,
        parts=parts,
    )


def _read(config: Config, part: str) -> PersonTable:
    if config.data.format == "figures":
        return _figures(config, part)
    if config.data.format == "mpii":
        return _mpii(config, part)
    if config.data.format == "voc":
        raise ConfigError("data.format=voc: pose networks take coco, mpii or figures")
    annotations, images = coco_files(config, part)
    pairs = config.data.flip_pairs
    return read_coco(
        annotations,
        images,
        aspect_ratio=aspect_ratio(config),
        sigmas=config.data.sigmas,
        flip_pairs=None if pairs is None else [(left, right) for left, right in pairs],
        on_bad=config.data.on_bad,
    )


def _mpii(config: Config, part: str) -> PersonTable:
    root = Path(str(config.data.root))
    split = config.data.train_split if part == "train" else config.data.val_split
    table = read_mpii(root, split, aspect_ratio=aspect_ratio(config), on_bad=config.data.on_bad)
    head_boxes = root / "annot" / f"gt_{split}.mat"
    if head_boxes.is_file():
        table.annotations = head_boxes
    return table


def coco_files(config: Config, part: str) -> tuple[Path, Path]:
    """Annotations and pictures of 'train' or 'val'."""
    data = config.data
    training = part == "train"
    annotations = data.train_annotations if training else data.val_annotations
    images = data.train_images if training else data.val_images
    if annotations and images:
        return _place(config, annotations), _place(config, images)
    if data.root is None:
        raise ConfigError(f"data.root, or data.{part}_annotations and data.{part}_images, must be set")
    layout = coco_layout(Path(data.root), data.train_split if training else data.val_split)
    return (
        _place(config, annotations) if annotations else layout[0],
        _place(config, images) if images else layout[1],
    )


def _place(config: Config, path: str) -> Path:
    """A path as it stands, or else below data.root."""
    below = Path(config.data.root or ".", path)
    return below if below.exists() and not Path(path).exists() else Path(path)


def figure_style(config: Config) -> FigureStyle:
    """What rendered pictures look like."""
    figures = config.data.figures
    return FigureStyle(
        people=(figures.people[0], figures.people[1]),
        occluders=figures.occluders,
        truncation=figures.truncation,
        lying=figures.lying,
        facing=(figures.facing[0], figures.facing[1], figures.facing[2]),
    )


def _figures(config: Config, part: str) -> PersonTable:
    figures = config.data.figures
    training = part == "train"
    return read_figures(
        figures.train_count if training else figures.val_count,
        seed=config.run.seed if training else VAL_FIGURES_SEED + config.run.seed,
        aspect_ratio=aspect_ratio(config),
        image_size=(figures.image_size[0], figures.image_size[1]),
        style=figure_style(config),
    )
