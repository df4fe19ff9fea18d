"""Prediction over picture files: one PNG each, COCO rows for all, and a reason for what was left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpose.infer.draw import check_threshold
from fastpose.infer.outputs import output_stems
from fastpose.infer.predictor import Predictor
from fastpose.infer.results import FileBoxes, image_id_of, picture_ids, pose_rows, write_png

logger = logging.getLogger(__name__)


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    boxes: Mapping[Path, FileBoxes] | None,
    out: Path,
    *,
    threshold: float = 0.2,
    draw: bool = True,
    on_file: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts `files`, draws each into the folder `out`, and returns (result rows, skipped with reasons).

    `boxes` of a file are its persons; None leaves them to the predictor's detector. Joints with a score of
    at most `threshold` are not drawn, and nothing at all without `draw`. An unreadable picture is skipped,
    one that cannot be written raises OutputError. Rows are those of `pose_rows`, with an `image_id` of
    `picture_ids` where the boxes bring none, and in `drawn` the name of the PNG.
    """
    check_threshold(threshold)
    stems, ids = output_stems(files, out), _told_ids(files, boxes or {})
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for file, result in zip(files, predictor(list(files), boxes, stream=True), strict=True):
        on_file(1)
        if result.error is not None:
            skipped.append(str(result.error))
            continue
        skipped += [f"{file}: {reason}" for reason in result.skipped]
        name = f"{stems[file]}.png"
        drawn = {"drawn": name} if draw else {}
        rows += [row | drawn for row in pose_rows(result, image_id=ids[file])]
        if draw:
            write_png(out / name, result.plot(threshold=threshold))
    return rows, skipped


def _told_ids(files: Sequence[Path], boxes: Mapping[Path, FileBoxes]) -> dict[Path, int | str]:
    """The id of each picture, with a line of log where names alone do not tell the pictures apart."""
    ids = picture_ids(files) | {file: own.image_id for file, own in boxes.items()}
    alike = [file for file in files if image_id_of(file) != ids[file] == file.as_posix()]
    if alike:
        logger.warning("%d pictures share names with others: the image_id of these is the path", len(alike))
    return ids
