"""Label maps from the outlines and run-length masks of COCO instance annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastpose.classes import BACKGROUND, IGNORE, PERSON_2, ClassSet
from fastpose.data.annotations import OnBad, index_images, is_integer, load_coco, number_list
from fastpose.data.images import MAX_PIXELS, open_images
from fastpose.data.segmentation import LeftOutPictures, SegmentationTable
from fastpose.errors import DataError, ImageError

Size = tuple[int, int]  # width, height
Shapes = list[tuple[int, Any]]  # of a picture's objects the label (IGNORE: a crowd) and the segmentation


class CocoMasks:
    """A LabelSource that draws label maps from annotations when it is asked for.

    The annotations are kept as bytes in one array, which workers share instead of copying.

    Args:
        shapes: what is in each picture, by a name for its labels.
        sizes: (width, height) of each picture, by the same names.
    """

    def __init__(self, shapes: Mapping[str, Shapes], sizes: Mapping[str, Size]) -> None:
        self.names = np.array(sorted(shapes))
        texts = [json.dumps(shapes[name], separators=(",", ":")).encode() for name in self.names.tolist()]
        self._ends = np.cumsum([0, *map(len, texts)])
        self._text = np.frombuffer(b"".join(texts), np.uint8)
        self._sizes = np.array([sizes[name] for name in self.names.tolist()], np.int64).reshape(-1, 2)

    def read(self, name: str) -> np.ndarray:
        """(H, W) uint8; ImageError when no labels have this name.

        A pixel that objects of several classes claim is IGNORE, and so is one in a crowd and in no object.
        """
        place = int(np.searchsorted(self.names, name))
        if place == len(self.names) or self.names[place] != name:
            raise ImageError(f"{name!r}: no labels of this name")
        shapes = json.loads(self._text[self._ends[place] : self._ends[place + 1]].tobytes())
        width, height = self._sizes[place].tolist()
        labels = np.zeros((height, width), np.uint8)
        crowd, claimed_twice = np.zeros((2, height, width), bool)
        for label, segmentation in shapes:
            inside = _draw(segmentation, (width, height))
            if label == IGNORE:
                crowd |= inside
            else:
                claimed_twice |= inside & (labels > 0) & (labels != label)
                labels[inside] = label
        labels[(crowd & (labels == 0)) | claimed_twice] = IGNORE
        return labels


def read_coco_masks(
    annotation_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    classes: ClassSet = PERSON_2,
    on_bad: OnBad = "skip",
) -> SegmentationTable:
    """The pictures of a COCO file with an object of these classes, in the order of its images.

    A category is the class of the same name, the rest is background; `classes` must have one. Crowds become
    IGNORE, and so do pixels that objects of several classes claim. `image_root` is a folder or zip.
    Left out and counted in `skipped`: objects of other categories, pictures without an object. Malformed
    annotations are left out too, or raise with `on_bad="stop"`.
    Raises DataError naming file and position or annotation, or with all counts when no picture is left.
    """
    if classes.names[0] != BACKGROUND:
        raise DataError(
            f"classes {classes.name!r}: the first must be the background, not {classes.names[0]!r}"
        )
    file = os.fspath(annotation_file)
    data = load_coco(annotation_file, masks=True)
    images = index_images(data["images"])
    names, sizes = images.names.tolist(), [(width, height) for width, height in images.sizes.tolist()]
    labels = _labels_of_categories(data["categories"], classes, file)
    left_out = LeftOutPictures(file, on_bad)
    shapes = _shapes(data["annotations"], images.row, sizes, labels, left_out)
    del data
    left_out.by_rule("picture without an object", len(names) - len(shapes))
    left_out.refuse_empty(len(shapes))
    rows = sorted(shapes)
    keys = {row: str(images.ids[row]) for row in rows}  # two images may share a file
    return SegmentationTable(
        classes=classes,
        images=open_images(image_root),
        labels=CocoMasks({keys[row]: shapes[row] for row in rows}, {keys[row]: sizes[row] for row in rows}),
        file_names=np.array([names[row] for row in rows]),
        label_names=np.array([keys[row] for row in rows]),
        skipped=left_out.counts,
    )


def _labels_of_categories(categories: list[dict[str, Any]], classes: ClassSet, file: str) -> dict[int, int]:
    labels = {
        row["id"]: classes.names.index(row["name"])
        for row in categories
        if is_integer(row.get("id")) and row.get("name") in classes.names[1:]
    }
    if not labels:
        raise DataError(f"{file}: none of its categories is called {', '.join(classes.names[1:])}")
    return labels


def _shapes(
    annotations: list[dict[str, Any]],
    row: dict[int, int],
    sizes: list[Size],
    labels: dict[int, int],
    left_out: LeftOutPictures,
) -> dict[int, Shapes]:
    """What is in each picture that has an object, by its row."""
    shapes: dict[int, Shapes] = {}
    for place, annotation in enumerate(annotations):
        category = annotation.get("category_id")
        if is_integer(category) and category not in labels:
            left_out.by_rule("other category")
            continue
        reason = _malformed(annotation, row, sizes)
        if reason is not None:
            left_out.malformed(f"annotation {annotation.get('id', f'at index {place}')}", reason)
        else:
            label = IGNORE if annotation.get("iscrowd") else labels[annotation["category_id"]]
            found = shapes.setdefault(row[annotation["image_id"]], [])
            found.append((label, annotation["segmentation"]))
    return shapes


def _malformed(annotation: dict[str, Any], row: dict[int, int], sizes: list[Size]) -> str | None:
    """What is wrong with an annotation, or None."""
    image_id = annotation.get("image_id")
    if not is_integer(annotation.get("category_id")):
        return "category_id is not an integer"
    if not is_integer(image_id) or image_id not in row:
        return "image_id is not that of a usable image"
    size = sizes[row[image_id]]
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        return "its image has no usable width and height"
    segmentation = annotation.get("segmentation")
    reason = (
        _malformed_runs(segmentation, size)
        if isinstance(segmentation, dict)
        else _malformed_outline(segmentation)
    )
    return None if reason is None else f"segmentation: {reason}"


def _malformed_outline(polygons: Any) -> str | None:
    if not isinstance(polygons, list) or not polygons:
        return "missing" if not polygons else f"not a list but {type(polygons).__name__}"
    for polygon in polygons:
        if not isinstance(polygon, list):
            return f"a polygon is not a list but {type(polygon).__name__}"
        if len(polygon) < 6 or len(polygon) % 2:
            return f"a polygon of {len(polygon)} numbers instead of x, y of three points or more"
        numbers = number_list(polygon, len(polygon))
        if isinstance(numbers, str):
            return numbers
    return None


def _malformed_runs(runs: dict[str, Any], size: Size) -> str | None:
    if runs.get("size") != [size[1], size[0]]:
        return f"a mask of size {runs.get('size')!r} in an image of height and width {[size[1], size[0]]}"[
            :200
        ]
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _counts_of_text(counts)
        if counts is None:
            return "counts are not COCO's run-length text"
    if not isinstance(counts, list):
        return f"counts are not a list or text but {type(counts).__name__}"
    if not all(is_integer(count) and count >= 0 for count in counts):
        return "counts are not whole numbers"
    return None if sum(counts) == size[0] * size[1] else "counts do not add up to the size"


def _counts_of_text(text: str) -> list[int] | None:
    """The run lengths in COCO's text, None where it is none: pycocotools' C code would trust it.

    A number takes 5 bits of each character from chr(48) on, the lowest first; the sixth says that more
    follow, and the highest of the last is the sign. From the fourth on they are differences to the last but
    one (pycocotools common/maskApi.c).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << shift - 4
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if not shift else None


def _draw(segmentation: Any, size: Size) -> np.ndarray:
    """(H, W) bool, as pycocotools' `annToMask`."""
    from pycocotools import mask

    width, height = size
    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = mask.frPyObjects(segmentation, height, width)
    else:
        runs = {"size": [height, width], "counts": segmentation["counts"].encode()}
    return mask.decode(runs).astype(bool)
