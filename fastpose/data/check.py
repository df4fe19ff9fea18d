"""Every problem of a dataset in one pass, before a training run finds them one by one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data.check_coco import check_coco
from fastpose.data.check_voc import check_voc, voc_splits
from fastpose.data.mpii import entry_joints, entry_place, load_entries, read_mpii
from fastpose.data.report import (
    DataReport,
    Problem,
    Size,
    check_joints,
    check_pictures,
    merge_reports,
    open_source,
)
from fastpose.errors import DataError
from fastpose.keypoints import MPII_16

__all__ = ["DataReport", "Problem", "check_coco", "check_data", "check_mpii", "check_voc"]


def check_data(
    path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None, decode: bool = False
) -> DataReport:
    """One report on all splits of a folder in the official COCO, MPII or VOC layout, or on one COCO json.

    `images` is the folder or zip of a json's pictures; `decode` decodes every picture, otherwise path,
    existence and header are looked at. Raises DataError where there is neither layout, or no `images` given
    for a json.
    """
    place = Path(path)
    if place.is_dir():
        return merge_reports(str(place), _check_folder(place, decode))
    if not place.exists():
        raise DataError(f"{place}: no such folder or file; check the path")
    if images is None:
        raise DataError(f"{place}: say where the pictures of this file are (images, --images)")
    return check_coco(place, images, decode=decode)


def check_mpii(root: str | os.PathLike[str], split: str, *, decode: bool = False) -> DataReport:
    """As `check_coco` for annot/{split}.json of the official MPII layout.

    Kinds of problem: json, image root, image path, image missing, image unreadable, center, joints,
    visibility, persons (nobody is usable). Raises nothing for what it finds in the data.
    """
    file = Path(root) / "annot" / f"{split}.json"
    report = DataReport(str(file))
    entries = _load(file, report)
    if entries is not None:
        names = sorted({entry["image"] for entry in entries if isinstance(entry.get("image"), str)})
        report.images = len(names)
        source = open_source(Path(root) / "images", report)
        found = check_pictures(names, source, report, decode=decode) if source else [None] * len(names)
        sizes = dict(zip(names, found, strict=True))
        for place, entry in enumerate(entries):
            _check_entry(entry, f"entry {place}", sizes, report)
    try:
        table = read_mpii(root, split)
        report.persons, report.skipped = len(table), table.skipped
    except DataError as error:
        if str(error) not in (problem.message for problem in report.problems):
            report.add("persons", str(file), str(error))
    return report


def _check_folder(root: Path, decode: bool) -> list[DataReport]:
    coco = sorted(root.glob("annotations/person_keypoints_*.json"))
    mpii = sorted(root.glob("annot/*.json"))
    voc = voc_splits(root)
    if not coco and not mpii and not voc:
        looked_for = (
            "annotations/person_keypoints_*.json (COCO), annot/*.json (MPII) and ImageSets/Segmentation (VOC)"
        )
        raise DataError(
            f"{root}: no dataset there; looked for {looked_for}; for a layout of your own run "
            "fastpose check ANNOTATIONS.json --images FOLDER"
        )
    reports = []
    for file in coco:
        split = file.stem.removeprefix("person_keypoints_")
        reports.append(check_coco(file, root / "images" / split, decode=decode))
    reports += [check_mpii(root, file.stem, decode=decode) for file in mpii]
    return reports + [check_voc(root, split, decode=decode) for split in voc]


def _load(file: Path, report: DataReport) -> list[dict[str, Any]] | None:
    try:
        return load_entries(file)
    except DataError as error:
        report.add("json", str(file), str(error))
    try:
        return load_entries(file, allow_nan=True)
    except DataError:
        return None


def _check_entry(
    entry: dict[str, Any], where: str, sizes: dict[str, Size | None], report: DataReport
) -> None:
    image = entry.get("image")
    if not isinstance(image, str):
        report.add("image path", where, f"image is not a file name: {image!r}"[:200])
    place = entry_place(entry)
    if isinstance(place, str):
        report.add("center", where, place)
    labels = entry_joints(entry)
    if isinstance(labels, str):
        report.add("joints", where, labels)
        return
    joints, visible = labels
    if not np.isin(visible, (0, 1)).all():
        report.add("visibility", where, f"joints_vis must be 0 or 1, got {sorted(set(visible.tolist()))}")
    size = sizes.get(image) if isinstance(image, str) else None
    if size is not None:
        check_joints(joints - 1, visible > 0, MPII_16.names, size, where, report)
