"""Boxes from a person detector, in COCO's result format."""

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
    load_json,
    number_list,
)
from fastpose.data.categories import keypoints_of_file
from fastpose.data.images import open_images
from fastpose.data.persons import PersonTable
from fastpose.errors import DataError
from fastpose.keypoints import KeypointSet


class _Box(NamedTuple):
    image: int
    box: np.ndarray  # (4,)
    score: float


def read_detections(
    detection_file: str | os.PathLike[str],
    annotation_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    aspect_ratio: float,
    keypoint_set: KeypointSet | None = None,
    sigmas: Sequence[float] | None = None,
    flip_pairs: Sequence[tuple[int | str, int | str]] | None = None,
    score_threshold: float = 0.0,
    on_bad: OnBad = "skip",
) -> PersonTable:
    """Detector boxes of the images of a COCO file, in the order of the detection file.

    `detection_file` is a json list of {image_id, category_id, bbox [x, y, width, height], score}. Kept are
    the category that carries the keypoints (COCO: 1) and scores of at least `score_threshold`; the boxes
    are not clipped to the image, as in hrnet lib/dataset/coco.py `_load_coco_person_detection_results`.
    Left out and counted beyond the official rules: boxes without area or wholly outside their image, which
    have no crop. `joints` and `visible` are zero, `area` nan, `annotation_id` -1. Malformed entries are
    left out too, or raise with `on_bad="stop"`.
    Raises DataError naming file and position or entry, or with all counts when no box is left.
    """
    data = load_coco(annotation_file)
    images = index_images(data["images"])
    keypoints, categories = keypoints_of_file(
        data["categories"],
        os.fspath(annotation_file),
        keypoint_set=keypoint_set,
        sigmas=sigmas,
        flip_pairs=flip_pairs,
    )
    left_out = LeftOut(os.fspath(detection_file), on_bad)
    boxes = _boxes(_entries(detection_file), images, categories, score_threshold, left_out)
    left_out.refuse_empty(len(boxes))
    return _table(boxes, images, keypoints, image_root, Path(annotation_file), aspect_ratio, left_out)


def _table(
    boxes: list[_Box],
    images: ImageIndex,
    keypoints: KeypointSet,
    image_root: str | os.PathLike[str],
    annotation_file: Path,
    aspect_ratio: float,
    left_out: LeftOut,
) -> PersonTable:
    count, joints = len(boxes), keypoints.num_joints
    box = np.stack([entry.box for entry in boxes])
    center, scale = box_to_center_scale(box, aspect_ratio)
    return PersonTable(
        keypoints=keypoints,
        images=open_images(image_root),
        image_ids=images.ids,
        file_names=images.names,
        image_sizes=images.sizes,
        image_index=np.array([entry.image for entry in boxes], np.int64),
        center=center,
        scale=scale,
        box=box,
        score=np.array([entry.score for entry in boxes], np.float32),
        joints=np.zeros((count, joints, 2)),
        visible=np.zeros((count, joints), np.float32),
        area=np.full(count, np.nan),
        annotation_id=np.full(count, -1, np.int64),
        annotations=annotation_file,
        skipped=left_out.counts,
    )


def _entries(detection_file: str | os.PathLike[str]) -> list[dict[str, Any]]:
    data = load_json(detection_file)
    if not isinstance(data, list):
        got = f"an object with {list(data)[:4]}" if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{os.fspath(detection_file)}: detections are a json list of boxes, got {got}")
    wrong = next((i for i, entry in enumerate(data) if not isinstance(entry, dict)), None)
    if wrong is not None:
        got = type(data[wrong]).__name__
        raise DataError(f"{os.fspath(detection_file)}: entry {wrong} must be an object, got {got}")
    return data


def _boxes(
    entries: list[dict[str, Any]],
    images: ImageIndex,
    categories: frozenset[int],
    threshold: float,
    left_out: LeftOut,
) -> list[_Box]:
    boxes: list[_Box] = []
    for place, entry in enumerate(entries):
        box, score = number_list(entry.get("bbox"), 4), finite_number(entry.get("score"))
        image_id = entry.get("image_id")
        if entry.get("category_id") not in categories:
            left_out.by_rule("other category")
        elif isinstance(box, str):
            left_out.malformed(f"entry {place}", f"bbox: {box}")
        elif score is None:
            left_out.malformed(f"entry {place}", "score is not a number")
        elif not is_integer(image_id) or image_id not in images.row:
            left_out.malformed(f"entry {place}", "image_id is not that of a usable image")
        elif score < threshold:
            left_out.by_rule("score below threshold")
        elif box[2] <= 0 or box[3] <= 0:
            left_out.by_rule("box without area")
        elif _is_outside(box, images.sizes[images.row[image_id]]):
            left_out.by_rule("box outside the image")
        else:
            boxes.append(_Box(images.row[image_id], box, score))
    return boxes


def _is_outside(box: np.ndarray, size: np.ndarray) -> bool:
    end = np.where(size > 0, size, np.inf)
    return bool((box[:2] >= end).any() or (box[:2] + box[2:] <= 0).any())
