"""COCO keypoint annotations, and any file in their format with keypoints of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastpose.data.affine import box_to_center_scale
from fastpose.data.annotations import (
    ImageIndex,
    LeftOut,
    OnBad,
    finite_number,
    index_images,
    is_integer,
    load_coco,
    number_list,
)
from fastpose.data.categories import keypoints_of_file
from fastpose.data.detections import read_detections
from fastpose.data.images import open_images
from fastpose.data.persons import PersonTable
from fastpose.errors import DataError
from fastpose.keypoints import KeypointSet

__all__ = ["clean_boxes", "coco_layout", "read_coco", "read_detections"]


class _Person(NamedTuple):
    image: int
    id: int
    box: np.ndarray  # (4,)
    area: float
    keypoints: np.ndarray  # (3K,)


def read_coco(
    annotation_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    aspect_ratio: float,
    keypoint_set: KeypointSet | None = None,
    sigmas: Sequence[float] | None = None,
    flip_pairs: Sequence[tuple[int | str, int | str]] | None = None,
    on_bad: OnBad = "skip",
) -> PersonTable:
    """Persons of a COCO keypoint file, in the order of its images and then of its annotations.

    `image_root` is a folder or zip that the file names are relative to; `aspect_ratio` is width / height of
    the network's input. `categories.keypoints_of_file` says how the keypoints are found and overridden.
    Left out and counted in `skipped`: crowds, other categories, persons whose largest keypoint number is 0,
    boxes without area after `clean_boxes`. Malformed annotations are left out too, or raise with
    `on_bad="stop"`. Joints labelled as hidden (v=1) count as visible, as in hrnet lib/dataset/coco.py.
    Raises DataError naming file and position or annotation, or with all counts when nobody is left.
    """
    file = os.fspath(annotation_file)
    data = load_coco(annotation_file)
    images = index_images(data["images"])
    keypoints, categories = keypoints_of_file(
        data["categories"], file, keypoint_set=keypoint_set, sigmas=sigmas, flip_pairs=flip_pairs
    )
    left_out = LeftOut(file, on_bad)
    persons = _persons(data["annotations"], images, keypoints.num_joints, categories, left_out)
    del data
    persons.sort(key=lambda person: person.image)
    return _table(persons, images, keypoints, image_root, Path(annotation_file), aspect_ratio, left_out)


def coco_layout(root: str | os.PathLike[str], split: str) -> tuple[Path, Path]:
    """Annotation file and image root of the official layout under `root`, split such as "val2017".

    Images are the folder images/{split} or images/{split}.zip. Raises DataError naming what was looked for.
    """
    annotation_file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
    if not annotation_file.is_file():
        raise DataError(f"no COCO split {split!r} under {root}: looked for {annotation_file}")
    folder = Path(root) / "images" / split
    archive = folder.with_name(f"{split}.zip")
    if folder.is_dir():
        return annotation_file, folder
    if archive.is_file():
        return annotation_file, archive
    raise DataError(f"no images of COCO split {split!r} under {root}: looked for {folder}/ and {archive}")


def clean_boxes(box: np.ndarray, area: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped as the official reader does, and which of them to keep.

    `box` (N, 4) x, y, width, height; `area` (N,) annotated area, nan where unknown (the box's own counts);
    `size` (N, 2) image width and height, 0 where unknown (no clip on that side). Returns clean boxes (N, 4),
    one pixel smaller than given, and keep (N,) bool. A clean box of 0 x 0 is not kept: it has no crop.
    Source: hrnet lib/dataset/coco.py `_load_coco_person_keypoint_annotation_kernal`.
    """
    limit = np.where(size > 0, size - 1.0, np.inf)
    corner = np.maximum(box[:, :2], 0)
    end = np.minimum(corner + np.maximum(box[:, 2:] - 1, 0), limit)
    clean = np.concatenate([corner, end - corner], 1)
    known_area = np.where(np.isnan(area), box[:, 2] * box[:, 3], area)
    keep = (known_area > 0) & (clean[:, 2:] >= 0).all(1) & (clean[:, 2:] > 0).any(1)
    return clean, keep


def _persons(
    annotations: list[dict[str, Any]],
    images: ImageIndex,
    num_joints: int,
    categories: frozenset[int],
    left_out: LeftOut,
) -> list[_Person]:
    persons: list[_Person] = []
    seen: set[int] = set()
    for place, annotation in enumerate(annotations):
        if annotation.get("iscrowd"):
            left_out.by_rule("crowd")
        elif is_integer(annotation.get("category_id")) and annotation["category_id"] not in categories:
            left_out.by_rule("other category")
        else:
            person = _person(annotation, images, num_joints, seen)
            if isinstance(person, str):
                left_out.malformed(f"annotation {annotation.get('id', f'at index {place}')}", person)
            elif person.keypoints.max(initial=0) == 0:
                left_out.by_rule("no keypoints")
            else:
                persons.append(person)
    return persons


def _person(annotation: dict[str, Any], images: ImageIndex, num_joints: int, seen: set[int]) -> _Person | str:
    identity, image_id = annotation.get("id"), annotation.get("image_id")
    if not is_integer(annotation.get("category_id")):
        return "category_id is not an integer"
    if not is_integer(identity):
        return "id is not an integer"
    if identity in seen:
        return "duplicate annotation id"
    if not is_integer(image_id) or image_id not in images.row:
        return "image_id is not that of a usable image"
    seen.add(identity)
    box = number_list(annotation.get("bbox"), 4)
    if isinstance(box, str):
        return f"bbox: {box}"
    keypoints = number_list(annotation.get("keypoints"), 3 * num_joints)
    if isinstance(keypoints, str):
        return f"keypoints: {keypoints}"
    area = finite_number(annotation["area"]) if "area" in annotation else np.nan
    if area is None:
        return "area is not a number"
    return _Person(images.row[image_id], identity, box, area, keypoints)


def _table(
    persons: list[_Person],
    images: ImageIndex,
    keypoints: KeypointSet,
    image_root: str | os.PathLike[str],
    annotation_file: Path,
    aspect_ratio: float,
    left_out: LeftOut,
) -> PersonTable:
    left_out.refuse_empty(len(persons))
    row = np.array([person.image for person in persons], np.int64)
    area = np.array([person.area for person in persons])
    box, keep = clean_boxes(np.stack([person.box for person in persons]), area, images.sizes[row])
    left_out.by_rule("box without area", int((~keep).sum()))
    left_out.refuse_empty(int(keep.sum()))
    labels = np.stack([person.keypoints for person in persons])[keep].reshape(-1, keypoints.num_joints, 3)
    center, scale = box_to_center_scale(box[keep], aspect_ratio)
    return PersonTable(
        keypoints=keypoints,
        images=open_images(image_root),
        image_ids=images.ids,
        file_names=images.names,
        image_sizes=images.sizes,
        image_index=row[keep],
        center=center,
        scale=scale,
        box=box[keep],
        score=np.ones(len(center), np.float32),
        joints=np.ascontiguousarray(labels[..., :2]),
        visible=(labels[..., 2] > 0).astype(np.float32),
        area=area[keep],
        annotation_id=np.array([person.id for person in persons], np.int64)[keep],
        annotations=annotation_file,
        skipped=left_out.counts,
    )
