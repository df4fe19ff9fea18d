"""Images a second from JPEG files on: training, and inference to keypoints, with everything in between.

Each call is an epoch over rendered figures, written as JPEG files of COCO's size into a temporary folder and
held by the page cache. Loaders start with every call empty, so that what one side loads ahead while another
is timed does not count.
"""

from __future__ import annotations

import atexit
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bench.checks import check_close
from bench.official_feed import OfficialSamples
from bench.official_loop import forward_loss, train_epoch, validate
from bench.profiled import device_figures
from bench.rows import Case, Rows
from bench.training import RATE, SIGMA
from bench.ways import AMP, OFFICIAL, Way, make_network, place_network
from fastpose.data import (
    Augmentation,
    CropDataset,
    EpochSampler,
    PersonTable,
    coco_layout,
    make_loader,
    read_coco,
)
from fastpose.data.figures import write_figures
from fastpose.device import autocast_dtype
from fastpose.infer.forward import ForwardOptions, predict_batches
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.loading import auto_workers
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

PIXELS = 0.05  # between keypoints of two float32 networks whose heatmaps have the same peaks
SAME_PEAKS = 0.98
rows = Rows("end_to_end")


@dataclass(frozen=True)
class Setting:
    """size (width, height) of the crops; pictures have about two and a half persons each."""

    model: str
    size: tuple[int, int]
    batch: int
    pictures: int
    device: str

    @property
    def workers(self) -> int:
        return auto_workers("auto", torch.device(self.device)) if self.device == "cuda" else 0


@functools.cache
def persons(pictures: int, aspect_ratio: float) -> tuple[PersonTable, Path]:
    """Table of the persons, and the folder of their pictures."""
    folder = tempfile.TemporaryDirectory(prefix="bench_end_to_end_")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    write_figures(root, pictures, image_size=(640, 480))
    table = read_coco(*coco_layout(root, "train2017"), aspect_ratio=aspect_ratio)
    return table, root / "images" / "train2017"


class Feed:
    """Our loader and the official-like one over the same persons."""

    def __init__(self, setting: Setting, augmentation: Augmentation | None, training: bool) -> None:
        self.setting = setting
        table, root = persons(setting.pictures, setting.size[0] / setting.size[1])
        dataset = CropDataset(table, input_size=setting.size, augmentation=augmentation)
        self.table = table
        self.sampler = EpochSampler(len(table), setting.batch, shuffle=training, drop_last=training)
        on_gpu = setting.device == "cuda"
        self.ours = make_loader(dataset, self.sampler, workers=setting.workers, pin_memory=on_gpu)
        self.official = DataLoader(
            OfficialSamples(table, root, input_size=setting.size, sigma=SIGMA, augmentation=augmentation),
            setting.batch,
            shuffle=training,
            drop_last=training,
            num_workers=setting.workers,
            pin_memory=on_gpu,
            persistent_workers=setting.workers > 0,
            generator=torch.Generator(),
        )

    @property
    def samples(self) -> int:
        """Of an epoch."""
        return len(self.sampler) * self.setting.batch if self.sampler.drop_last else len(self.table)


class Training:
    """Calling it trains an epoch the way of `fastpose train`."""

    def __init__(self, network: nn.Module, feed: Feed, amp: str = "auto") -> None:
        self.feed, self.epoch = feed, 0
        device = torch.device(feed.setting.device)
        model = place_network(network, Way()).train()
        config = TrainConfig(lr=RATE)
        optimizer = build_optimizer(model, config, device)
        dtype = autocast_dtype(amp, device)
        self.step = TrainStep(
            model, optimizer, config, objective=HeatmapObjective(sigma=SIGMA), dtype=dtype, device=device
        )

    def __call__(self) -> torch.Tensor:
        self.feed.sampler.set_epoch(self.epoch)
        self.epoch += 1
        for batch in self.feed.ours:
            self.step(batch, RATE)
        self.step.finish()
        return self.step.sums


def official_training(network: nn.Module, feed: Feed, way: Way) -> Callable[[], float]:
    placed = place_network(network, way).train()
    optimizer = torch.optim.Adam(placed.parameters(), lr=RATE)
    return functools.partial(train_epoch, feed.official, placed, optimizer, way, feed.setting.device)


def check_training(network: nn.Module, setting: Setting) -> None:
    """The loss of the first step on the plain crops, in float32, is the official one."""
    feed = Feed(setting, None, training=False)
    ours = Training(network, feed, amp="none")
    ours.step(next(iter(feed.ours)), RATE)
    ours.step.finish()
    loss, samples = ours.step.sums[:2].tolist()
    images, target, weight, _ = next(iter(feed.official))
    _, expected = forward_loss(
        place_network(network, OFFICIAL).train(), images, target, weight, OFFICIAL, setting.device
    )
    check_close("loss", torch.tensor(loss / samples), expected.detach().cpu(), tolerance=2e-3)


def training_case(setting: Setting) -> Case:
    cv2.setNumThreads(1)
    network = make_network(setting.model, setting.device)
    feed = Feed(setting, Augmentation(), training=True)
    ours = Training(network, feed)
    rivals = {"official-like": official_training(network, feed, OFFICIAL)}
    if setting.device == "cuda":
        rivals["official-like, AMP channels_last"] = official_training(network, feed, AMP)
    return Case(
        candidate=ours,
        rivals=rivals,
        check=functools.partial(check_training, network, setting),
        method="wall",
        items=feed.samples,
        unit="images",
        figures=functools.partial(device_figures, ours, ()) if setting.device == "cuda" else None,
        poison=False,  # the check is of float32, what is timed would be built again
    )


class Inference:
    """Calling it gives the keypoints (N, K, 2) of all persons, by the flip test."""

    def __init__(self, network: nn.Module, feed: Feed, amp: str) -> None:
        device = torch.device(feed.setting.device)
        self.feed, self.network = feed, place_network(network, Way()).eval()
        self.options = ForwardOptions(
            device, feed.table.keypoints.flip_index, dtype=autocast_dtype(amp, device)
        )

    def __call__(self) -> np.ndarray:
        return predict_batches(self.network, self.feed.ours, self.options).keypoints


def check_keypoints(got: np.ndarray, expected: np.ndarray) -> None:
    """An untrained network has maps with several peaks as high, so that rounding may choose another."""
    assert got.shape == expected.shape, f"keypoints: shape {got.shape}, expected {expected.shape}"
    near = (np.abs(got - expected) <= PIXELS).all(axis=-1).mean()
    assert near >= SAME_PEAKS, f"keypoints: {near:.1%} are the official ones, expected {SAME_PEAKS:.0%}"


def inference_case(setting: Setting) -> Case:
    """In float32 on a CPU, as the predictor runs by default; in bfloat16 on CUDA."""
    cv2.setNumThreads(1)
    network = make_network(setting.model, setting.device)
    feed = Feed(setting, None, training=False)
    on_gpu = setting.device == "cuda"
    official = place_network(network, OFFICIAL).eval()
    rivals = {"official-like": functools.partial(validate, feed.official, official, OFFICIAL, setting.device)}

    def check() -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            check_keypoints(Inference(network, feed, "none")(), rivals["official-like"]())

    return Case(
        candidate=Inference(network, feed, "bf16" if on_gpu else "none"),
        rivals=rivals,
        check=check,
        method="wall",
        items=feed.samples,
        unit="images",
        poison=False,  # deterministic convolutions are others than those that are timed
    )


SMALL = Setting("hrnet_w18_small", (96, 128), 8, 8, "cpu")
LARGE = Setting("hrnet_w48", (192, 256), 64, 768, "cuda")
for _setting in (SMALL, LARGE):
    _height = f"{_setting.size[1]}x{_setting.size[0]}"
    _name = f"{_setting.model.removeprefix('hrnet_').replace('_', '-')}-{_height}"
    _on = f"{_setting.model} at {_height}, batch {_setting.batch}, from JPEG files"
    _where = ", one core" if _setting.device == "cpu" else ""
    for _kind, _case, _what in (
        ("train", training_case, f"training of {_on}{_where}"),
        ("infer", inference_case, f"flip-test inference of {_on} to keypoints{_where}"),
    ):
        rows(f"{_kind}-{_name}", group="end_to_end", device=_setting.device, what=_what, headline=True)(
            functools.partial(_case, _setting)
        )


@pytest.mark.parametrize("row", rows, ids=str)
def bench_end_to_end(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
