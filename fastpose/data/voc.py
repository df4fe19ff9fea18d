"""Pictures with label maps in the layout of PASCAL VOC: the reader and the writer."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from fastpose.classes import VOC_21, ClassSet
from fastpose.data.annotations import OnBad, load_json
from fastpose.data.images import FolderImages, MissingImageError, ZipImages, open_images, unsafe_name
from fastpose.data.segmentation import LeftOutPictures, SegmentationTable
from fastpose.data.segmentation_png import decode_labels, encode_labels, unknown_labels
from fastpose.errors import ConfigError, DataError, ImageError
from fastpose.files import make_folder, write_atomic, write_text

PICTURES, LABELS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASSES_FILE = "classes.json"
"""Names and colours of the classes, beside these folders, where they are not VOC's."""
_YEARS = ("VOC2012", "VOC2007")
_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


class PngLabels:
    """A LabelSource of PNG files in a folder or zip; see `fastpose.data.segmentation_png.decode_labels`."""

    def __init__(self, images: FolderImages | ZipImages, classes: ClassSet) -> None:
        self.images, self.classes = images, classes

    def read(self, name: str) -> np.ndarray:
        """(H, W) uint8; ImageError naming the file and the reason."""
        return decode_labels(self.images.data(name), f"labels {name}", self.classes)

    def unknown(self, name: str) -> dict[int, int]:
        """See `fastpose.data.segmentation_png.unknown_labels`."""
        return unknown_labels(self.images.data(name), f"labels {name}", self.classes)


def read_voc(
    root: str | os.PathLike[str],
    split: str,
    *,
    classes: ClassSet | None = None,
    on_bad: OnBad = "skip",
) -> SegmentationTable:
    """The pictures of ImageSets/Segmentation/{split}.txt, in its order.

    `root` is the folder that holds JPEGImages and SegmentationClass (either may be a zip), or one above it:
    VOCdevkit, or what VOCdevkit lies in; of several years the latest counts. Without `classes` the set is
    that of classes.json in the folder, which `write_voc` leaves there, or else VOC_21. Labels that are no
    class become IGNORE.
    Left out and counted in `skipped`, or raised with `on_bad="stop"`: names that leave the folder or appear
    twice, pictures and labels that are missing, have a broken header or differ in size.
    Raises DataError naming what was looked for, or with all counts when no picture is left.
    """
    folder = voc_folder(Path(root))
    list_file = _list_file(folder, split)
    names = split_names(list_file)
    classes = classes or folder_classes(folder)
    images, labels = open_images(folder / PICTURES), open_images(folder / LABELS)
    left_out = LeftOutPictures(os.fspath(list_file), on_bad)
    kept: dict[str, None] = {}
    for line, name in names:
        reason = "listed twice" if name in kept else picture_problem(name, images, labels)
        if reason is None:
            kept[name] = None
        else:
            left_out.malformed(f"line {line}: {name!r}"[:200], reason)
    left_out.refuse_empty(len(kept))
    return SegmentationTable(
        classes=classes,
        images=images,
        labels=PngLabels(labels, classes),
        file_names=np.array([f"{name}.jpg" for name in kept]),
        label_names=np.array([f"{name}.png" for name in kept]),
        skipped=left_out.counts,
    )


def write_voc(
    root: str | os.PathLike[str],
    split: str,
    pictures: Iterable[tuple[str, np.ndarray, np.ndarray]],
    classes: ClassSet,
) -> Path:
    """Writes pictures into the layout that `read_voc` reads, and returns the list of the split.

    `pictures` gives (name, picture, labels): (H, W, 3) uint8 BGR, stored as JPEG of quality 95, and (H, W)
    uint8, a class or IGNORE, stored as PNG with the palette of the set. The name's folder and ending are
    dropped. Every file is whole or not there, and the list is written last.
    Raises DataError for a name that cannot be listed or comes twice, and for arrays of another kind;
    OutputError where a file cannot be written.
    """
    folder = Path(root)
    list_file = _list_file(folder, split)
    picture_folder, label_folder = make_folder(folder / PICTURES), make_folder(folder / LABELS)
    make_folder(list_file.parent)
    _write_classes(folder, classes)
    names: dict[str, None] = {}
    for given, picture, labels in pictures:
        name = Path(given).stem
        if not _NAME.fullmatch(name) or name in names:
            raise DataError(f"picture {given!r}: its name {name!r} comes twice or is no plain file name")
        names[name] = None
        _check_picture(given, picture, labels)
        _write(label_folder / f"{name}.png", encode_labels(labels, classes))
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        _write(picture_folder / f"{name}.jpg", jpeg.tobytes())
    if not names:
        raise DataError(f"{list_file}: there is no picture to write")
    write_text(list_file, "".join(f"{name}\n" for name in names))
    return list_file


def voc_folder(root: Path) -> Path:
    """The folder that holds ImageSets/Segmentation; DataError where it is neither `root` nor below it."""
    below = [root, *(root / year for year in _YEARS), *(root / "VOCdevkit" / year for year in _YEARS)]
    for folder in below:
        if (folder / LISTS).is_dir():
            return folder
    raise DataError(
        f"{root}: no VOC data there; looked for the folder {LISTS} in it and in VOC2012 or VOC2007"
    )


def _list_file(folder: Path, split: str) -> Path:
    if not _NAME.fullmatch(split):
        raise DataError(f"split: must be a plain name such as train, got {split!r}")
    return folder / LISTS / f"{split}.txt"


def split_names(list_file: Path) -> list[tuple[int, str]]:
    """(line number, name) of every line with a name."""
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        known = ", ".join(sorted(path.stem for path in list_file.parent.glob("*.txt")))
        raise DataError(f"{list_file}: no such VOC split; known: {known or 'none'}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{list_file}: not UTF-8 text at byte {error.start}; is this a list?") from None
    except OSError as error:
        raise DataError(f"{list_file}: cannot be read ({error.strerror})") from None
    return [(place, line.strip()) for place, line in enumerate(lines, 1) if line.strip()]


def picture_problem(
    name: str, images: FolderImages | ZipImages, labels: FolderImages | ZipImages
) -> str | None:
    """Why a picture and its labels cannot be used, as far as names and headers tell, or None."""
    if unsafe_name(name):
        return "the name leaves the folder"
    sizes = []
    for what, source, ending in (("picture", images, "jpg"), ("labels", labels, "png")):
        try:
            sizes.append(source.size(f"{name}.{ending}"))
        except MissingImageError:
            return f"{what} missing"
        except ImageError:
            return f"{what} unreadable"
    return None if sizes[0] == sizes[1] else "picture and labels differ in size"


def folder_classes(folder: Path) -> ClassSet:
    """Those of classes.json, or VOC's; DataError for a broken file."""
    file = folder / CLASSES_FILE
    if not file.exists():
        return VOC_21
    values = load_json(file)
    try:
        return ClassSet.from_dict(values)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a set of classes ({error}); delete it, or give the classes") from None


def _write_classes(folder: Path, classes: ClassSet) -> None:
    """Says which classes the labels are; DataError where the folder holds labels of others."""
    file = folder / CLASSES_FILE
    if any((folder / LISTS).glob("*.txt")) and folder_classes(folder) != classes:
        raise DataError(f"{folder}: holds labels of {folder_classes(folder).name}; write to another folder")
    write_text(file, json.dumps(dataclasses.asdict(classes), indent=1) + "\n")


def _check_picture(name: str, picture: np.ndarray, labels: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(f"picture {name!r}: expected (H, W, 3) uint8, got {picture.dtype} {picture.shape}")
    if picture.shape[:2] != labels.shape:
        raise DataError(f"picture {name!r}: {picture.shape[:2]} pixels, but labels for {labels.shape}")


def _write(path: Path, data: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(data))
