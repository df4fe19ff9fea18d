"""Short runs of every family of networks at toy size, and the trivial predictions they must beat."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import shared_path
from toy_networks import (
    toy_fullres,
    toy_hourglass,
    toy_hourglass_mobile,
    toy_hrnet,
    toy_pose_resnet,
    toy_prtr,
    toy_seg,
)

from fastpose.data.coco import coco_layout
from fastpose.data.persons import PersonTable
from fastpose.data.segmentation import SegmentationTable
from fastpose.metrics.pck import pck
from fastpose.metrics.segmentation import confusion_matrix, segmentation_scores
from fastpose.train.config_io import load_config
from fastpose.train.loop import Trainer
from fastpose.train.parallel.distributed import World

CLOSE = 0.1
"""Of the longer side of a person's box: how far a keypoint may be off and count as found."""

RUN = [
    "data.workers=0",
    "train.amp=none",
    "train.async_save=false",
    "train.keep=1",
    "val.every=999",
    "run.device=cpu",
    "run.name=toy",
    "run.pictures_every=0",
    "run.threads=1",
    "run.tensorboard=false",
]
FIGURES = [
    "data.figures.image_size=[128, 128]",
    "data.figures.people=[1, 1]",
    "data.figures.lying=0.3",  # the mean of standing figures alone is too close to each of them
    "data.figures.val_count=60",
]
PHOTOGRAPHS = ["augment.flip=false", "val.flip_test=false"]


@dataclass(frozen=True)
class Family:
    """`shipped` is the configuration whose recipe the toy follows; the settings make its runs short."""

    toy: Callable[..., Any]
    shipped: str
    figures: list[str]
    photographs: list[str] = field(default_factory=list)


CROPS = ["data.input_size=[64, 96]", "train.batch_size=8"]
FAMILIES = {
    "hrnet": Family(
        toy_hrnet,
        "samples/figures",
        [*CROPS, "data.figures.train_count=300", "train.epochs=4"],
        [*CROPS, "train.epochs=60"],
    ),
    "pose_resnet": Family(
        toy_pose_resnet,
        "samples/figures_pose_resnet50",
        ["data.input_size=[32, 64]", "data.figures.train_count=300", "train.epochs=4", "train.batch_size=8"],
        ["data.input_size=[64, 96]", "train.epochs=80"],
    ),
    "hourglass": Family(
        toy_hourglass,
        "samples/figures_hourglass2",
        [*CROPS, "data.figures.train_count=300", "train.epochs=3"],
        [*CROPS, "train.epochs=60"],
    ),
    "hourglass_mobile": Family(
        toy_hourglass_mobile,
        "samples/figures_hourglass2_mobile",
        [*CROPS, "data.figures.train_count=400", "train.epochs=4", "train.lr=1e-2"],
        [*CROPS, "train.epochs=80", "train.lr=1e-2"],
    ),
    "fullres": Family(
        toy_fullres,
        "samples/figures_fullres",
        ["data.figures.train_count=200", "train.epochs=2", "train.batch_size=4", "train.lr=5e-3"],
        ["data.input_size=[64, 64]", "data.sigma=2", "train.epochs=40", "train.lr=5e-3"],
    ),
    "prtr": Family(
        toy_prtr,
        "samples/figures_prtr",
        [*CROPS, "data.figures.train_count=400", "train.epochs=4", "train.lr=1e-3", "train.warmup_steps=50"],
        [*CROPS, "train.epochs=260", "train.lr=1e-3", "train.warmup_steps=50"],
    ),
}
SEGMENTATION = "samples/figures_segmentation"


def train_parts(folder: Path, *settings: str) -> Trainer:
    """A run over the body parts of rendered figures that has not begun."""
    count = ["data.figures.train_count=200", "train.epochs=8", "train.lr=5e-3"]
    small = [*FIGURES, "data.figures.image_size=[96, 96]", "data.input_size=[96, 96]", *count]
    return _trainer(SEGMENTATION, toy_seg, folder, [*small, *settings])


def train_masks(folder: Path, pictures: int, *settings: str) -> Trainer:
    """A run over the persons in a few photographs, that is also evaluated on them, that has not begun."""
    small = ["data.input_size=[160, 160]", "segmentation.base_size=160", "val.scales=[0.25]"]
    short = ["train.epochs=120", f"train.batch_size={pictures}", "segmentation.flip=false"]
    masks = [*_on_photographs(folder, pictures, everyone=True), *small, *short, *settings]
    return _trainer(SEGMENTATION, toy_seg, folder, masks)


def train_figures(family: Family, folder: Path, *settings: str) -> Trainer:
    """A run over rendered figures that has not begun."""
    return _trainer(family.shipped, family.toy, folder, [*FIGURES, *family.figures, *settings])


def train_photographs(family: Family, folder: Path, persons: int, *settings: str) -> Trainer:
    """A run over a few persons of coco_mini, that is also evaluated on them, that has not begun."""
    every = [*_on_photographs(folder, persons), *PHOTOGRAPHS, *family.photographs]
    return _trainer(family.shipped, family.toy, folder, [*every, f"train.batch_size={persons}", *settings])


def _on_photographs(folder: Path, pictures: int, *, everyone: bool = False) -> list[str]:
    found = few_photographs(folder, pictures, everyone)
    places = [f"data.{part}_{kind}={path}" for part in ("train", "val") for kind, path in found.items()]
    return ["data.format=coco", *places]


def _trainer(shipped: str, toy: Callable[..., Any], folder: Path, settings: list[str]) -> Trainer:
    config = load_config(shipped, [*RUN, f"model.name={toy.__name__}", *settings, f"run.dir={folder}"])
    return Trainer(config, folder / "toy")


def few_photographs(folder: Path, count: int, everyone: bool) -> dict[str, Path]:
    """Annotations of the persons with most keypoints, one a picture, and the folder of their pictures.

    everyone: also those of the other persons in these pictures, which then all are 640 pixels long.
    """
    annotations, images = coco_layout(shared_path("data", "coco_mini"), "train2017")
    data = json.loads(annotations.read_text())
    fitting = {row["id"] for row in data["images"] if not everyone or max(row["width"], row["height"]) == 640}
    best: dict[int, dict[str, Any]] = {}
    for row in sorted(data["annotations"], key=lambda row: (-row["num_keypoints"], -row["area"])):
        if row["image_id"] in fitting:
            best.setdefault(row["image_id"], row)
    chosen = list(best.values())[:count]
    kept = {row["image_id"] for row in chosen}
    everybody = [row for row in data["annotations"] if row["image_id"] in kept]
    data["annotations"] = everybody if everyone else chosen
    data["images"] = [row for row in data["images"] if row["id"] in kept]
    path = folder / "few.json"
    path.write_text(json.dumps(data))
    return {"annotations": path, "images": images}


def found_share(run: Trainer) -> float:
    """PCK at `CLOSE` of the network as it is, on the persons held out, of the box's longer side."""
    world = World(torch.device("cpu"))
    _, found = run.task.validate(run.model, run.val_table, world.device, lambda count: None, world)
    assert found.usable.all()
    assert found.index.tolist() == list(range(len(run.val_table)))
    return share_close(run.val_table, found.keypoints)


def mean_pose_share(run: Trainer) -> float:
    """The same for the mean pose of the training crops, put into each crop."""
    train, held = run.train_table, run.val_table
    in_crop = (train.joints - train.center[:, None]) / train.scale[:, None]
    labelled = (train.visible > 0)[..., None]
    mean = (in_crop * labelled).sum(0) / labelled.sum(0)
    return share_close(held, mean * held.scale[:, None] + held.center[:, None])


def share_close(table: PersonTable, keypoints: np.ndarray) -> float:
    return pck(keypoints, table.joints, table.visible, table.box[:, 2:].max(axis=1), CLOSE)


def mean_iou(run: Trainer) -> float:
    """mIoU of the network as it is, on the pictures held out."""
    world = World(torch.device("cpu"))
    scores, _ = run.task.validate(run.model, run.val_table, world.device, lambda count: None, world)
    return scores.metrics["mIoU"]


def background_score(table: SegmentationTable) -> float:
    """mIoU where every pixel is said to be background."""
    count = table.classes.num_classes
    total = np.zeros((count, count), np.int64)
    for row in range(len(table)):
        labels = table.read(row).labels
        total += confusion_matrix(np.zeros(labels.shape, np.int64), labels.astype(np.int64), count)
    return segmentation_scores(total, table.classes)["mIoU"]
