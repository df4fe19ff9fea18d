"""Rendered figures as a data set: pictures on demand, and the table of their persons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastpose.data.affine import box_to_center_scale
from fastpose.data.coco import clean_boxes
from fastpose.data.figures.compose import compose_scene, compose_scenes
from fastpose.data.figures.render import render
from fastpose.data.figures.scene import Scene
from fastpose.data.figures.skeleton import LANDMARKS
from fastpose.data.figures.style import FigureStyle
from fastpose.data.persons import PersonTable
from fastpose.errors import DataError, ImageError
from fastpose.keypoints import COCO_17, KeypointSet

_NAME = re.compile(r"(\d{12})\.(?:jpg|png)", re.ASCII)
_CHUNK = 64  # scenes composed at once
_SIDES = (32, 4096)


@dataclass(frozen=True)
class FigureImages:
    """An ImageSource that draws picture "000000000001.jpg" and so on when it is asked for.

    A picture depends on seed, its number, image_size (width, height) and style only, not on count. Raises
    DataError for a count below 1, a size outside 32..4096 or a seed outside 0..2^64-1.
    """

    count: int
    seed: int = 0
    image_size: tuple[int, int] = (256, 256)
    style: FigureStyle = field(default_factory=FigureStyle)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(f"figures: count must be at least 1, got {self.count}")
        if not 0 <= self.seed < 1 << 64:
            raise DataError(f"figures: seed must be within 0..2^64-1, got {self.seed}")
        if len(self.image_size) != 2 or not all(_SIDES[0] <= side <= _SIDES[1] for side in self.image_size):
            limits = f"{_SIDES[0]}..{_SIDES[1]}"
            raise DataError(f"figures: image_size is (width, height) within {limits}, got {self.image_size}")

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 BGR; ImageError when no picture has this name."""
        return render(self.scene(name))

    def problem(self, name: str) -> str | None:
        """Why `read` would refuse the name, or None."""
        match = _NAME.fullmatch(name)
        if match is None or not 1 <= int(match[1]) <= self.count:
            return f"no rendered picture has this name: they are {1:012d}.jpg to {self.count:012d}.jpg"
        return None

    def part_masks(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Two (H, W) uint8 masks: index into PARTS, and 1 + the person's place from far to near."""
        scene = self.scene(name)
        return scene.part_mask(), scene.instance_mask()

    def scene(self, name: str) -> Scene:
        """What is in the picture, without drawing it; ImageError when no picture has this name."""
        reason = self.problem(name)
        if reason is not None:
            raise ImageError(f"{name!r}: {reason}")
        return compose_scene(self.seed, int(name[:12]) - 1, image_size=self.image_size, style=self.style)

    def scenes(self) -> Iterator[Scene]:
        """All scenes in order, several times faster than one by one."""
        for first in range(0, self.count, _CHUNK):
            indices = range(first, min(first + _CHUNK, self.count))
            yield from compose_scenes(self.seed, indices, image_size=self.image_size, style=self.style)


def read_figures(
    count: int,
    *,
    seed: int = 0,
    aspect_ratio: float = 0.75,
    keypoint_set: KeypointSet = COCO_17,
    image_size: tuple[int, int] = (256, 256),
    style: FigureStyle | None = None,
) -> PersonTable:
    """The persons of `count` rendered pictures, by the COCO reader's rules (hrnet lib/dataset/coco.py).

    `.images` is a FigureImages and `.annotations` COCO ground truth as a dict, with visibility 2 for what is
    in sight, 1 for what is hidden, 0 for what lies outside the picture. Persons almost wholly hidden have no
    joint labelled and no row. Take another seed for held-out pictures.
    aspect_ratio is width / height of the network's input; image_size is (width, height).
    Raises DataError for what FigureImages refuses and for a keypoint set with joints that figures lack.
    """
    images = FigureImages(count, seed, image_size, style or FigureStyle())
    landmarks = landmark_index(keypoint_set)
    annotations: list[dict[str, Any]] = []
    for scene in images.scenes():
        annotations += person_annotations(scene, landmarks, len(annotations) + 1)
    return _table(images, annotations, keypoint_set, aspect_ratio)


def _table(
    images: FigureImages, annotations: list[dict[str, Any]], keypoint_set: KeypointSet, aspect_ratio: float
) -> PersonTable:
    persons = [person for person in annotations if person["num_keypoints"]]
    labels = np.array([person["keypoints"] for person in persons], np.float64)
    labels = labels.reshape(-1, keypoint_set.num_joints, 3)
    area = np.array([person["area"] for person in persons], np.float64)
    sizes = np.tile(np.array(images.image_size, np.int32), (images.count, 1))
    row = np.array([person["image_id"] - 1 for person in persons], np.int64)
    boxes = np.array([person["bbox"] for person in persons], np.float64).reshape(-1, 4)
    box, keep = clean_boxes(boxes, area, sizes[row])
    center, scale = box_to_center_scale(box[keep], aspect_ratio)
    unlabelled = len(annotations) - len(persons)
    return PersonTable(
        keypoints=keypoint_set,
        images=images,
        image_ids=np.arange(1, images.count + 1, dtype=np.int64),
        file_names=np.array([file_name(i) for i in range(images.count)]),
        image_sizes=sizes,
        image_index=row[keep],
        center=center,
        scale=scale,
        box=box[keep],
        score=np.ones(len(center), np.float32),
        joints=np.ascontiguousarray(labels[keep, :, :2]),
        visible=(labels[keep, :, 2] > 0).astype(np.float32),
        area=area[keep],
        annotation_id=np.array([person["id"] for person in persons], np.int64)[keep],
        annotations=coco_document(images, annotations, keypoint_set),
        skipped=Counter({"no keypoints": unlabelled, "box without area": int((~keep).sum())}),
    )


def file_name(index: int, suffix: str = "jpg") -> str:
    """COCO's name of picture `index`, counted from 0."""
    return f"{index + 1:012d}.{suffix}"


def landmark_index(keypoint_set: KeypointSet) -> list[int]:
    """Places of the set's joints among the landmarks of a figure; DataError for joints that figures lack."""
    lacking = [name for name in keypoint_set.names if name not in LANDMARKS]
    if lacking:
        raise DataError(
            f"figures have no joints {', '.join(lacking)} ({keypoint_set.name}); use COCO_17 or MPII_16"
        )
    return [LANDMARKS.index(name) for name in keypoint_set.names]


def person_annotations(scene: Scene, landmarks: list[int], first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of the persons of whom a pixel is in sight; `first_id` is that of the first one."""
    rows: list[dict[str, Any]] = []
    for figure in scene.figures:
        if not figure.area:
            continue
        visibility = figure.visibility[landmarks]
        labels = np.column_stack([figure.landmarks[landmarks], visibility])
        labels[visibility == 0] = 0
        rows.append(
            {
                "id": first_id + len(rows),
                "image_id": scene.index + 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": figure.area,
                "bbox": list(figure.box),
                "num_keypoints": int((visibility > 0).sum()),
                "keypoints": labels.ravel().tolist(),
            }
        )
    return rows


def coco_document(
    images: FigureImages, annotations: list[dict[str, Any]], keypoint_set: KeypointSet, suffix: str = "jpg"
) -> dict[str, Any]:
    """COCO ground truth (the parsed form of a person_keypoints json); skeleton indices count from 1."""
    width, height = images.image_size
    person = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(keypoint_set.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoint_set.skeleton],
    }
    return {
        "info": {"description": "fastpose rendered figures", "seed": images.seed},
        "images": [
            {"id": i + 1, "file_name": file_name(i, suffix), "width": width, "height": height}
            for i in range(images.count)
        ],
        "annotations": annotations,
        "categories": [person],
    }
