"""Rendered figures as files in COCO's official layout."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastpose.data.figures.render import render
from fastpose.data.figures.shapes import PARTS
from fastpose.data.figures.style import FigureStyle
from fastpose.data.figures.table import (
    FigureImages,
    coco_document,
    file_name,
    landmark_index,
    person_annotations,
)
from fastpose.errors import DataError, OutputError
from fastpose.files import make_folder, write_text
from fastpose.keypoints import COCO_17, KeypointSet

_FORMATS = ("jpg", "png")


def write_figures(
    out: str | os.PathLike[str],
    count: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = (256, 256),
    split: str = "train2017",
    keypoint_set: KeypointSet = COCO_17,
    masks: bool = False,
    format: str = "jpg",
    style: FigureStyle | None = None,
) -> Path:
    """Draws `count` pictures into OUT/images/{split}/; returns OUT/annotations/person_keypoints_{split}.json.

    The pictures and persons are those of `read_figures` with the same arguments, so give a held-out split
    another seed. image_size is (width, height). format is "jpg" (quality 95) or "png" (exact). With `masks`
    also OUT/masks/{split}/{number}_parts.png, whose values are places in the json's info.parts, and
    {number}_persons.png, 1 + the person's place from far to near. The json is written last.
    Raises DataError for bad arguments and OutputError when a file cannot be written.
    """
    _check(format, split)
    images = FigureImages(count, seed, image_size, style or FigureStyle())
    landmarks = landmark_index(keypoint_set)
    root = Path(out)
    pictures = make_folder(root / "images" / split)
    mask_folder = make_folder(root / "masks" / split) if masks else None
    annotation_file = make_folder(root / "annotations") / f"person_keypoints_{split}.json"
    annotations: list[dict[str, Any]] = []
    for scene in images.scenes():
        annotations += person_annotations(scene, landmarks, len(annotations) + 1)
        _write_image(pictures / file_name(scene.index, format), render(scene))
        if mask_folder is not None:
            number = file_name(scene.index, "png").removesuffix(".png")
            _write_image(mask_folder / f"{number}_parts.png", scene.part_mask())
            _write_image(mask_folder / f"{number}_persons.png", scene.instance_mask())
    document = coco_document(images, annotations, keypoint_set, format)
    document["info"]["parts"] = list(PARTS)
    write_text(annotation_file, json.dumps(document, separators=(",", ":")))
    return annotation_file


def _check(format: str, split: str) -> None:
    if format not in _FORMATS:
        raise DataError(f"figures: format must be jpg or png, got {format!r}")
    if not re.fullmatch(r"[\w.-]+", split) or split.startswith("."):
        raise DataError(f"figures: split must be a plain name such as val2017, got {split!r}")


def _write_image(path: Path, image: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    _, data = cv2.imencode(path.suffix, image, options)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
