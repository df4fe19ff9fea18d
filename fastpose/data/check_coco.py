"""Every problem of a COCO-format file and its pictures."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastpose.data.annotations import finite_number, is_integer, load_coco, number_list
from fastpose.data.categories import keypoint_names, skeleton_problem
from fastpose.data.coco import read_coco
from fastpose.data.images import unsafe_name
from fastpose.data.report import DataReport, Size, check_joints, check_pictures, open_source
from fastpose.errors import DataError

Rows = list[dict[str, Any]]


def check_coco(
    annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str], *, decode: bool = False
) -> DataReport:
    """Reads the whole file and looks at every picture: path, existence, header, and with `decode` its pixels.

    Kinds of problem: json, categories, image root, image id, image path, image missing, image unreadable,
    image size, annotation id, image_id, category_id, bbox, area, keypoints, visibility, num_keypoints,
    joints, persons (nobody is usable). Raises nothing for what it finds in the data.
    """
    file = os.fspath(annotation_file)
    report = DataReport(file)
    data = _load(file, report)
    if data is not None:
        names = _check_categories(data["categories"], file, report)
        sizes = _check_images(data["images"], image_root, report, decode=decode)
        _check_annotations(data, names, sizes, report)
    try:
        table = read_coco(annotation_file, image_root, aspect_ratio=1.0)
        report.persons, report.skipped = len(table), table.skipped
    except DataError as error:
        if str(error) not in (problem.message for problem in report.problems):
            report.add("persons", file, str(error))
    return report


def _load(file: str, report: DataReport) -> dict[str, Any] | None:
    """The file; NaN is reported and then let through, so that the rest of the file is looked at as well."""
    try:
        return load_coco(file)
    except DataError as error:
        report.add("json", file, str(error))
    try:
        return load_coco(file, allow_nan=True)
    except DataError:
        return None


def _check_categories(categories: Rows, file: str, report: DataReport) -> tuple[str, ...]:
    """Names of the keypoints; empty when the categories do not give them."""
    for category in categories:
        reason = skeleton_problem(category) if category.get("keypoints") else None
        if reason is not None:
            report.add("categories", f"category {category.get('id')}", reason)
    try:
        return keypoint_names(categories, file)
    except DataError as error:
        report.add("categories", file, str(error))
        return ()


def _check_images(
    images: Rows, image_root: str | os.PathLike[str], report: DataReport, *, decode: bool
) -> dict[int, Size | None]:
    """Size of each image by id, from the file itself where it can be read, else as the annotations say."""
    report.images = len(images)
    sizes: dict[int, Size | None] = {}
    named: list[tuple[int, str]] = []
    for place, image in enumerate(images):
        identity, name = image.get("id"), image.get("file_name")
        if not is_integer(identity):
            report.add("image id", f"images[{place}]", f"not an integer: {identity!r}"[:200])
            continue
        if identity in sizes:
            report.add("image id", f"image {identity}", f"duplicate, again at images[{place}]")
        width, height = finite_number(image.get("width")), finite_number(image.get("height"))
        stated = (int(width), int(height)) if width and height else None
        if stated is None or min(stated) < 1:
            got = f"{image.get('width')!r} x {image.get('height')!r}"[:200]
            report.add("image size", f"image {identity}", f"width and height must be positive, got {got}")
        sizes.setdefault(identity, stated)
        reason = unsafe_name(name) if isinstance(name, str) else f"file_name is {type(name).__name__}"
        if reason is not None:
            report.add("image path", f"image {identity} ({name!r})"[:200], reason)
        elif isinstance(name, str):
            named.append((identity, name))
    source = open_source(image_root, report)
    if source is not None:
        found = check_pictures([name for _, name in named], source, report, decode=decode)
        for (identity, name), size in zip(named, found, strict=True):
            stated = sizes[identity]
            if size is not None and stated is not None and stated != size:
                told = f"annotated as {stated[0]}x{stated[1]}, the file is {size[0]}x{size[1]}"
                report.add("image size", f"image {identity} ({name})", told)
            sizes[identity] = size or stated
    return sizes


def _check_annotations(
    data: dict[str, Any], names: tuple[str, ...], sizes: dict[int, Size | None], report: DataReport
) -> None:
    known = {category.get("id") for category in data["categories"] if is_integer(category.get("id"))}
    labelled = {category.get("id") for category in data["categories"] if category.get("keypoints")}
    seen: set[int] = set()
    for place, annotation in enumerate(data["annotations"]):
        identity, image_id = annotation.get("id"), annotation.get("image_id")
        category_id = annotation.get("category_id")
        where = f"annotation {identity}" if is_integer(identity) else f"annotations[{place}]"
        if not is_integer(identity):
            report.add("annotation id", where, f"not an integer: {identity!r}"[:200])
        elif identity in seen:
            report.add("annotation id", where, f"duplicate, again at annotations[{place}]")
        else:
            seen.add(identity)
        if not is_integer(image_id) or image_id not in sizes:
            report.add("image_id", where, f"no image has the id {image_id!r}"[:200])
        if not is_integer(category_id) or category_id not in known:
            report.add("category_id", where, f"no category has the id {category_id!r}"[:200])
        size = sizes.get(image_id) if is_integer(image_id) else None
        if not annotation.get("iscrowd"):
            _check_box(annotation, size, where, report)
            if names and (category_id in labelled or category_id not in known):
                _check_keypoints(annotation, names, size, where, report)


def _check_box(annotation: dict[str, Any], size: Size | None, where: str, report: DataReport) -> None:
    box = number_list(annotation.get("bbox"), 4)
    if isinstance(box, str):
        report.add("bbox", where, box)
    elif box[2] <= 0 or box[3] <= 0:
        report.add("bbox", where, f"without area: {box.tolist()}")
    elif size is not None and ((box[:2] >= size).any() or (box[:2] + box[2:] <= 0).any()):
        report.add("bbox", where, f"{box.tolist()} lies outside the image of {size[0]}x{size[1]}")
    area = finite_number(annotation.get("area"))
    if area is None or area <= 0:
        report.add("area", where, f"OKS needs a positive number, got {annotation.get('area')!r}"[:200])


def _check_keypoints(
    annotation: dict[str, Any], names: tuple[str, ...], size: Size | None, where: str, report: DataReport
) -> None:
    numbers = number_list(annotation.get("keypoints"), 3 * len(names))
    if isinstance(numbers, str):
        report.add("keypoints", where, numbers)
        return
    labels = numbers.reshape(-1, 3)
    if not np.isin(labels[:, 2], (0, 1, 2)).all():
        report.add("visibility", where, f"must be 0, 1 or 2, got {sorted(set(labels[:, 2].tolist()))}")
    shown = labels[:, 2] > 0
    count = annotation.get("num_keypoints")
    if type(count) is not int or count != shown.sum():
        report.add("num_keypoints", where, f"is {count!r}, but {shown.sum()} keypoints are labelled"[:200])
    if size is not None:
        check_joints(labels[:, :2], shown, names, size, where, report)
