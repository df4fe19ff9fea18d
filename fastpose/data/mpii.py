"""MPII annotations in the json form of the official HRNet and SimpleBaseline data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastpose.data.affine import PIXELS_PER_SCALE
from fastpose.data.annotations import (
    LARGEST_COORDINATE,
    LeftOut,
    OnBad,
    finite_number,
    load_json,
    number_list,
)
from fastpose.data.images import open_images, unsafe_name
from fastpose.data.persons import PersonTable
from fastpose.errors import DataError
from fastpose.keypoints import MPII_16

K = MPII_16.num_joints


class _Person(NamedTuple):
    image: str
    place: int
    center: np.ndarray  # (2,)
    scale: float
    joints: np.ndarray  # (K, 2)
    visible: np.ndarray  # (K,)


def mpii_layout(root: str | os.PathLike[str], split: str) -> tuple[Path, Path]:
    """Annotation file and image root of the official layout: annot/{split}.json and images/ (or images.zip).

    Raises DataError naming what was looked for.
    """
    annotation_file, images = Path(root) / "annot" / f"{split}.json", Path(root) / "images"
    if not annotation_file.is_file():
        raise DataError(f"no MPII split {split!r} under {root}: looked for {annotation_file}")
    archive = images.with_suffix(".zip")
    if not images.is_dir() and not archive.is_file():
        raise DataError(f"no MPII images under {root}: looked for {images}/ and {archive}")
    return annotation_file, images if images.is_dir() else archive


def read_mpii(
    root: str | os.PathLike[str], split: str, *, aspect_ratio: float = 1.0, on_bad: OnBad = "skip"
) -> PersonTable:
    """Persons of annot/{split}.json ("train", "valid", "trainval" or "test"), in file order.

    Coordinates become 0-based: center_y += 15 scale and scale *= 1.25 (both unless center_x is -1), then
    center and joints -= 1 (hrnet lib/dataset/mpii.py). Scales are held in float32, the official code's in
    float64: crops agree to about 1e-5 pixel. `aspect_ratio` is width / height of the network's input; the
    official square grows its short side for others. `box` is the square of 200 x the annotated scale,
    `area` is nan, image ids count the images from 0, `annotation_id` is the row of the file and gt_valid.mat.
    Entries without joints (the test split) have none visible. Malformed entries are left out and counted in
    `skipped`, or raise with `on_bad="stop"`. Raises DataError naming file and position or entry.
    """
    annotation_file, image_root = mpii_layout(root, split)
    left_out = LeftOut(str(annotation_file), on_bad)
    persons: list[_Person] = []
    for place, entry in enumerate(load_entries(annotation_file)):
        person = _person(entry, place)
        if isinstance(person, str):
            left_out.malformed(f"entry {place}", person)
        else:
            persons.append(person)
    left_out.refuse_empty(len(persons))
    return _table(persons, image_root, aspect_ratio, left_out)


def load_entries(annotation_file: str | os.PathLike[str], *, allow_nan: bool = False) -> list[dict[str, Any]]:
    """The list of persons in an MPII json; DataError when it is something else."""
    data = load_json(annotation_file, allow_nan=allow_nan)
    file = os.fspath(annotation_file)
    if not isinstance(data, list):
        raise DataError(f"{file}: MPII annotations are a json list of persons, got {type(data).__name__}")
    wrong = next((i for i, entry in enumerate(data) if not isinstance(entry, dict)), None)
    if wrong is not None:
        raise DataError(f"{file}: entry {wrong} must be an object, got {type(data[wrong]).__name__}")
    return data


def entry_joints(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | str:
    """Joints (16, 2) as written, 1-based, and visible (16,) of one entry, or what is wrong with them."""
    if "joints" not in entry and "joints_vis" not in entry:
        return np.ones((K, 2)), np.zeros(K)
    rows = entry.get("joints")
    if not isinstance(rows, list) or len(rows) != K or not all(isinstance(row, list) for row in rows):
        return f"joints: not a list of {K} pairs"
    joints = number_list([value for row in rows for value in row], 2 * K)
    if isinstance(joints, str):
        return f"joints: {joints}"
    visible = number_list(entry.get("joints_vis"), K)
    if isinstance(visible, str):
        return f"joints_vis: {visible}"
    return joints.reshape(K, 2), visible


def entry_place(entry: dict[str, Any]) -> tuple[np.ndarray, float] | str:
    """Center (2,) and scale as written, or what is wrong with them."""
    center, scale = number_list(entry.get("center"), 2), finite_number(entry.get("scale"))
    if isinstance(center, str):
        return f"center: {center}"
    if scale is None or not 0 < scale * PIXELS_PER_SCALE <= LARGEST_COORDINATE:
        return "scale is not a positive number"
    return center, scale


def _person(entry: dict[str, Any], place: int) -> _Person | str:
    image = entry.get("image")
    if not isinstance(image, str):
        return "image is not a file name"
    reason = unsafe_name(image)
    if reason is not None:
        return reason
    where = entry_place(entry)
    if isinstance(where, str):
        return where
    labels = entry_joints(entry)
    if isinstance(labels, str):
        return labels
    return _Person(image, place, *where, *labels)


def _table(persons: list[_Person], image_root: Path, aspect_ratio: float, left_out: LeftOut) -> PersonTable:
    rows: dict[str, int] = {}
    image_index = np.array([rows.setdefault(person.image, len(rows)) for person in persons], np.int64)
    center = np.stack([person.center for person in persons])
    side = np.array([person.scale for person in persons])
    box = np.stack([*(center - 1 - side[:, None] * 100).T, side * 200, side * 200], 1)
    given = center[:, 0] != -1
    center[:, 1] += np.where(given, 15 * side, 0)
    side = np.where(given, side * 1.25, side)
    scale = np.stack([side * max(1.0, aspect_ratio), side / min(1.0, aspect_ratio)], 1)
    count = len(persons)
    return PersonTable(
        keypoints=MPII_16,
        images=open_images(image_root),
        image_ids=np.arange(len(rows)),
        file_names=np.array(list(rows), dtype=np.str_),
        image_sizes=np.zeros((len(rows), 2), np.int32),
        image_index=image_index,
        center=(center - 1).astype(np.float32),
        scale=scale.astype(np.float32),
        box=box,
        score=np.ones(count, np.float32),
        joints=np.stack([person.joints for person in persons]) - 1,
        visible=(np.stack([person.visible for person in persons]) > 0).astype(np.float32),
        area=np.full(count, np.nan),
        annotation_id=np.array([person.place for person in persons], np.int64),
        skipped=left_out.counts,
    )
