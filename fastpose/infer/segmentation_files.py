"""Segmentation of picture files: labels and an overlay as PNG for each, and why others were left out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastpose.data.segmentation_png import encode_labels
from fastpose.data.voc import CLASSES_FILE
from fastpose.errors import OutputError
from fastpose.files import make_folder, write_atomic, write_text
from fastpose.infer.outputs import output_stems
from fastpose.infer.results import write_png
from fastpose.infer.segmentation_result import SegmentationResult

if TYPE_CHECKING:
    from fastpose.infer.segmentation_predictor import Segmenter

LABELS = "labels"
"""Folder of the PNGs of labels, below that of the overlays."""
PICTURES_FILE = "pictures.json"
"""Which picture each of them is of, beside them."""


@dataclass
class Segmented:
    """`counts` (C,) int64 has the pixels of each class in all `pictures`; `skipped` a reason for each of the
    others."""

    counts: np.ndarray
    pictures: int = 0
    skipped: list[str] = field(default_factory=list)


def segment_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    out: Path,
    *,
    draw: bool = True,
    on_file: Callable[[int], None] = lambda count: None,
) -> Segmented:
    """Writes `out`/labels/STEM.png, and with `draw` the overlay `out`/STEM.png, for each of `files`.

    The names and colours of the classes are written beside the labels, into a classes.json as
    `fastpose.data.voc` has it, and into a pictures.json, once all are written, the path of the picture that
    each STEM.png is of. An unreadable picture is skipped, one that cannot be written raises OutputError.
    """
    stems = output_stems(files, out, LABELS)
    make_folder(out / LABELS)
    write_text(
        out / LABELS / CLASSES_FILE, json.dumps(dataclasses.asdict(segmenter.classes), indent=1) + "\n"
    )
    found = Segmented(np.zeros(segmenter.classes.num_classes, np.int64))
    sources: dict[str, str] = {}
    for file, result in zip(files, segmenter(list(files), stream=True), strict=True):
        on_file(1)
        if result.error is not None:
            found.skipped.append(str(result.error))
            continue
        name = f"{stems[file]}.png"
        write_labels(result, out / LABELS / name)
        if draw:
            write_png(out / name, result.plot())
        sources[name] = str(file)
        found.pictures += 1
        found.counts += result.counts
    write_text(out / LABELS / PICTURES_FILE, json.dumps(sources, indent=1) + "\n")
    return found


def write_labels(result: SegmentationResult, path: Path) -> Path:
    """See `SegmentationResult.save_labels`."""
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: labels are written as .png, which loses nothing; name the file so")
    if result.path is not None and path.resolve() == result.path.resolve():
        raise OutputError(f"{path}: is the picture that was read; choose another name")
    data = encode_labels(result.labels, result.classes)
    make_folder(path.parent)
    write_atomic(path, lambda temporary: temporary.write_bytes(data))
    return path
