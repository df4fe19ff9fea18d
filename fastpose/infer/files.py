"""Prediction over picture files: one PNG each, COCO rows for all, and a reason for what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpose.infer.predictor import Predictor
from fastpose.infer.results import FileBoxes, pose_rows, write_png


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
    one that cannot be written raises OutputError.
    """
    names = output_names(files, out)
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for file, result in zip(files, predictor(list(files), boxes, stream=True), strict=True):
        on_file(1)
        if result.error is not None:
            skipped.append(str(result.error))
            continue
        skipped += [f"{file}: {reason}" for reason in result.skipped]
        rows += pose_rows(result)
        if draw:
            write_png(names[file], result.plot(threshold=threshold))
    return rows, skipped


def output_names(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """One PNG a picture, with a number added where two pictures share a stem; never one of the pictures."""
    taken = {file.resolve() for file in files}
    names = {}
    for file in files:
        name, number = out / f"{file.stem}.png", 2
        while name.resolve() in taken:
            name, number = out / f"{file.stem}-{number}.png", number + 1
        taken.add(name.resolve())
        names[file] = name
    return names
