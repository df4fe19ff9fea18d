"""Every problem of a split in VOC's layout."""

from __future__ import annotations

import os
from pathlib import Path

from fastpose.classes import IGNORE, ClassSet
from fastpose.data.report import DataReport, open_source
from fastpose.data.voc import (
    LABELS,
    LISTS,
    PICTURES,
    PngLabels,
    picture_problem,
    read_voc,
    split_names,
    voc_folder,
)
from fastpose.errors import DataError, ImageError
from fastpose.wording import counted


def voc_splits(root: Path) -> list[str]:
    """Names of the lists of a folder in VOC's layout; [] where there is none."""
    try:
        return sorted(path.stem for path in (voc_folder(root) / LISTS).glob("*.txt"))
    except DataError:
        return []


def check_voc(root: str | os.PathLike[str], split: str, *, decode: bool = False) -> DataReport:
    """As `check_coco` for one list of ImageSets/Segmentation.

    Kinds of problem: list, image root, listed twice, picture (path, existence, header, size against its
    labels), labels (with `decode`: pixels that cannot be read), class (with `decode`: values that are no
    class and are ignored, or nothing but pixels to be ignored), pictures (none is usable). Raises DataError
    where the layout is not there, and nothing for what it finds in it.
    """
    folder = voc_folder(Path(root))
    file = folder / LISTS / f"{split}.txt"
    report = DataReport(str(file), things="pictures")
    sources = [open_source(folder / name, report) for name in (PICTURES, LABELS)]
    try:
        names = split_names(file)
    except DataError as error:
        report.add("list", str(file), str(error))
        return report
    seen: set[str] = set()
    for line, name in names:
        if name in seen:
            report.add("listed twice", f"line {line}", repr(name)[:200])
        elif sources[0] is not None and sources[1] is not None:
            reason = picture_problem(name, sources[0], sources[1])
            if reason is not None:
                report.add("picture", f"line {line}: {name!r}"[:200], reason)
        seen.add(name)
    report.images = len(seen)
    _read(root, split, report, decode)
    return report


def _read(root: str | os.PathLike[str], split: str, report: DataReport, decode: bool) -> None:
    try:
        table = read_voc(root, split)
    except (DataError, ImageError) as error:
        if not report.problems:
            report.add("pictures", report.name, str(error))
        return
    report.persons, report.skipped = len(table), table.skipped
    assert isinstance(table.labels, PngLabels)
    for row in range(len(table) if decode else 0):
        name = str(table.file_names[row])
        try:
            ignored = table.read(row).labels == IGNORE
        except ImageError as error:
            report.add("labels", name, str(error))
            continue
        # What is no class has become IGNORE: only then is it worth reading the file again.
        unknown = table.labels.unknown(str(table.label_names[row])) if ignored.any() else {}
        if unknown:
            report.add("class", name, _told(unknown, table.classes))
        elif ignored.all():
            report.add("class", name, f"every pixel is {IGNORE}, to be ignored; nothing is learnt from it")


def _told(unknown: dict[int, int], classes: ClassSet) -> str:
    values = ", ".join(map(str, sorted(unknown)[:8])) + (", ..." if len(unknown) > 8 else "")
    return (
        f"{counted(sum(unknown.values()), 'pixel')} of {values}, no class of {classes.name} (0 to "
        f"{classes.num_classes - 1}) and ignored; write {IGNORE} where that is meant, or the class's number"
    )
