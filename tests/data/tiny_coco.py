"""A tiny COCO-format dataset that a test bends as it likes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastpose.keypoints import COCO_17

WIDTH, HEIGHT = 80, 60


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def person(identity: int, image_id: int) -> dict[str, Any]:
    """All 17 joints labelled, inside a box of 30 x 40 at (20, 10)."""
    xy = np.random.default_rng(identity).uniform((22, 12), (48, 48), (17, 2)).round(1)
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [20, 10, 30, 40],
        "area": 900,
        "num_keypoints": 17,
        "keypoints": [value for x, y in xy.tolist() for value in (x, y, 2)],
    }


def coco_content() -> dict[str, Any]:
    """Three pictures, four persons."""
    images = [{"id": 10 + i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(3)]
    skeleton = [[a + 1, b + 1] for a, b in COCO_17.skeleton]
    category = {"id": 1, "name": "person", "keypoints": list(COCO_17.names), "skeleton": skeleton}
    return {
        "images": images,
        "annotations": [person(1, 12), person(2, 10), person(3, 10), person(4, 11)],
        "categories": [category],
    }


def write_coco(root: Path, change: Callable[[dict[str, Any]], object] | None = None) -> tuple[Path, Path]:
    """Annotation file and image folder of split "tiny" in the official layout, after `change`."""
    content = coco_content()
    if change is not None:
        change(content)
    annotations, images = root / "annotations" / "person_keypoints_tiny.json", root / "images" / "tiny"
    annotations.parent.mkdir(exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))
    for i in range(3):
        cv2.imwrite(str(images / f"{i}.jpg"), picture(i))
    return annotations, images
