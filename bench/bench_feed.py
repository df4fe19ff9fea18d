"""Samples a second of one core, from JPEG files to batches in memory: ours against the official pipeline.

The photographs are the 86 persons of 28 pictures of the sample data where they are, and rendered figures
otherwise. Each call is an epoch of them: files in the page cache, in one process, augmented as for COCO, in
batches of 32. Where each person's picture is decoded for it, the epoch has one person of each picture: in so
small a set several would share a batch, and a decoding, by chance. Stages are timed alone.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from bench.official_feed import OfficialSamples, read_rgb, to_network
from bench.rows import Case, Rows, Side
from fastpose.data import (
    Augmentation,
    CropDataset,
    EpochSampler,
    PersonTable,
    coco_layout,
    make_loader,
    read_coco,
)
from fastpose.data.affine import get_affine_transform
from fastpose.data.augment import augment_person
from fastpose.data.crop_cache import CropCache
from fastpose.data.encode import Encoding
from fastpose.data.figures import write_figures
from fastpose.data.prepare import prepare_crops
from fastpose.data.region import Cutter, whole_picture
from fastpose.data.sampler import count_decodes
from fastpose.nn.normalize import normalize_crops

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco_mini"
SIZE, SIGMA, BATCH, FIGURES = (192, 256), 2.0, 32, 32
ASPECT = SIZE[0] / SIZE[1]
AUGMENTATION = Augmentation()
rows = Rows("feed")


@dataclass(frozen=True)
class Data:
    table: PersonTable
    root: Path  # of the pictures
    pictures: int

    def one_person_each(self) -> Data:
        """The first person of every picture."""
        first = np.unique(self.table.image_index, return_index=True)[1]
        names = (
            "image_index",
            "center",
            "scale",
            "box",
            "score",
            "joints",
            "visible",
            "area",
            "annotation_id",
        )
        columns = {name: getattr(self.table, name)[first] for name in names}
        return replace(self, table=replace(self.table, **columns))


@functools.cache
def data() -> Data:
    """The photographs, or figures written as JPEG files of COCO's size."""
    root = PHOTOGRAPHS
    if not root.is_dir():
        root = _scratch() / "figures"
        write_figures(root, FIGURES, image_size=(640, 480))
    table = read_coco(*coco_layout(root, "train2017"), aspect_ratio=ASPECT)
    return Data(table, root / "images" / "train2017", len(np.unique(table.image_index)))


@functools.cache
def _scratch() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="bench_feed_")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def crops(kind: Any) -> CropCache:
    return prepare_crops(
        data().table,
        _scratch() / kind,
        augmentation=AUGMENTATION,
        aspect_ratio=ASPECT,
        encoding=Encoding(kind),
    )


@dataclass(frozen=True)
class Feed:
    """A way from files to batches."""

    what: str
    grouped: bool = False
    store: str = ""  # of a crop cache
    single: bool = False  # one person of each picture

    def data(self) -> Data:
        return data().one_person_each() if self.single else data()


class Epochs:
    """Calling it loads the next epoch and gives its last batch."""

    def __init__(self, feed: Feed, augmentation: Augmentation | None = AUGMENTATION) -> None:
        table, store, grouped = feed.data().table, feed.store, feed.grouped
        cache = crops(store) if store else None
        dataset = CropDataset(table, input_size=SIZE, augmentation=augmentation, crops=cache)
        groups = table.image_index if grouped else None
        self.sampler = EpochSampler(len(table), BATCH, shuffle=augmentation is not None, groups=groups)
        self.loader = make_loader(dataset, self.sampler)
        self.epoch = itertools.count()

    def __call__(self) -> Any:
        self.sampler.set_epoch(next(self.epoch))
        for batch in self.loader:
            last = batch
        return last


def official_epochs(feed: Feed, augmentation: Augmentation | None = AUGMENTATION) -> Callable[[], Any]:
    found = feed.data()
    samples = OfficialSamples(
        found.table, found.root, input_size=SIZE, sigma=SIGMA, augmentation=augmentation
    )
    loader = DataLoader(samples, BATCH, shuffle=augmentation is not None, generator=torch.Generator())

    def epoch() -> Any:
        for batch in loader:
            last = batch
        return last

    return epoch


def check_epochs(feed: Feed) -> None:
    """Without augmentation the last batch is the official one's; JPEGs of JPEGs err by a few grey levels."""
    ours = Epochs(feed, None)()
    pixels, _, _, meta = official_epochs(feed, None)()
    assert torch.equal(ours["joints"], meta["joints"].float())
    assert torch.equal(ours["visible"], meta["joints_vis"])
    error = (normalize_crops(ours["crop"]) - pixels).abs()
    assert error.mean() < 0.05 if feed.store == "jpeg" else error.max() < 1e-5


def epochs_case(feed: Feed) -> Case:
    cv2.setNumThreads(1)
    ours, table = Epochs(feed), feed.data().table

    def figures() -> dict[str, float]:
        stored = sum(shard["bytes"] for shard in crops(feed.store).manifest["shards"]) if feed.store else 0
        decodes = len(table) if feed.store else count_decodes(ours.sampler, table.image_index)
        return {"persons": len(table), "pictures": data().pictures, "decodes": decodes, "cache bytes": stored}

    return Case(
        candidate=ours,
        rivals={"official-like": official_epochs(feed)},
        check=functools.partial(check_epochs, feed),
        items=len(table),
        unit="samples",
        figures=figures,
    )


def stage_case(make: Callable[[], tuple[Side, Side, Callable[..., object]]], count: int = 1) -> Case:
    cv2.setNumThreads(1)
    candidate, rival, check = make()
    return Case(candidate, {"official-like": rival}, check, items=count, unit="samples")


def decode_stage() -> tuple[Side, Side, Callable[..., object]]:
    """All pictures once; the official one converts all of each to RGB."""
    found = data()
    names = [str(found.table.file_names[row]) for row in np.unique(found.table.image_index)]

    def ours() -> Any:
        return [found.table.images.read(name) for name in names][-1]

    def official() -> Any:
        return [read_rgb(found.root / name) for name in names][-1]

    def check() -> None:
        assert np.array_equal(ours()[..., ::-1], official())

    return ours, official, check


def warp_stage() -> tuple[Side, Side, Callable[..., object]]:
    """One decoded picture, a crop of its first person as it is and one mirrored: bytes here, normalised
    tensors there."""
    table = data().table
    pixels = table.images.read(str(table.file_names[table.image_index[0]]))
    rgb, region, cutter = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), whole_picture(pixels), Cutter()
    person = augment_person(
        AUGMENTATION, table.keypoints, table.joints[0], table.visible[0], table.center[0], table.scale[0],
        aspect_ratio=ASPECT, image_width=pixels.shape[1], rng=np.random.default_rng(0),
    )  # fmt: skip
    place = person.center, person.scale, person.rotation, SIZE

    def cut(flipped: bool) -> Any:
        crop = cutter.cut(region, get_affine_transform(*place), SIZE, flipped=flipped)
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, crop)

    def ours() -> Any:
        return [cut(flipped) for flipped in (False, True)]

    def official() -> Any:
        sides = rgb, rgb[:, ::-1, :]
        return [to_network(cv2.warpAffine(side, get_affine_transform(*place), SIZE)) for side in sides]

    def check() -> None:
        got = normalize_crops(torch.from_numpy(np.stack(ours())))
        assert (got - torch.stack(official())).abs().max() < 1e-5

    return ours, official, check


def collate_stage() -> tuple[Side, Side, Callable[..., object]]:
    """A batch out of samples that are there: bytes and coordinates against floats, targets and all else."""
    table = data().table
    order = np.arange(BATCH) % len(table)
    mine = CropDataset(table, input_size=SIZE)
    theirs = OfficialSamples(table, data().root, input_size=SIZE, sigma=SIGMA, augmentation=None)
    own, other = [mine[int(i)] for i in order], [theirs[int(i)] for i in order]

    def check() -> None:
        assert torch.equal(default_collate(own)["joints"], default_collate(other)[3]["joints"].float())

    return functools.partial(default_collate, own), functools.partial(default_collate, other), check


FEEDS = {
    "pictures": Feed("each person's picture decoded for it", single=True),
    "group-images": Feed("data.group_images, each picture decoded once", grouped=True),
    "crop-cache-jpeg": Feed("from a crop cache, JPEG quality 95", store="jpeg"),
    "crop-cache-raw": Feed("from a crop cache of raw pixels", store="raw"),
}
for _name, _feed in FEEDS.items():
    rows(
        _name,
        group="feed",
        device="cpu",
        what=f"JPEG files to batches of {BATCH}, {SIZE[0]}x{SIZE[1]}, one core: {_feed.what}",
        headline=_name in ("group-images", "crop-cache-jpeg"),
    )(functools.partial(epochs_case, _feed))
for _name, _what, _make, _count in (
    ("stage-decode", "decoding the pictures", decode_stage, FIGURES),
    ("stage-warp", "two crops out of a decoded picture", warp_stage, 2),
    ("stage-collate", f"a batch of {BATCH} out of its samples", collate_stage, BATCH),
):
    rows(_name, group="feed", device="cpu", what=f"feed, {_what}, one core", rank=1)(
        functools.partial(stage_case, _make, _count)
    )


@pytest.mark.parametrize("row", rows, ids=str)
def bench_feed(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
