"""Prediction over picture files: one PNG each, COCO rows for all, and a reason for what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpose.data.images import read_image
from fastpose.errors import ImageError
from fastpose.infer.draw import draw_poses
from fastpose.infer.predictor import Predictor
from fastpose.infer.results import FileBoxes, pose_rows, write_png


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    boxes: Mapping[Path, FileBoxes] | None,
    out: Path,
    *,
    threshold: float = 0.2,
    on_file: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts `files`, draws each into the folder `out`, and returns (result rows, skipped with reasons).

    `boxes` of a file are its persons; None takes each picture as one person's box. Joints with a score of at
    most `threshold` are not drawn. An unreadable picture is skipped, one that cannot be written raises
    OutputError.
    """
    names = output_names(files, out)
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for file in files:
        on_file(1)
        try:
            image = read_image(file)
        except ImageError as error:
            skipped.append(str(error))
            continue
        given = boxes[file] if boxes is not None else None
        poses = predictor(image, given.boxes, given.scores) if given else predictor(image)
        skipped += [f"{file}: {reason}" for reason in poses.skipped]
        rows += pose_rows(file, poses, image_id=given.image_id if given else None)
        drawn = draw_poses(
            image,
            poses.keypoints,
            poses.score,
            predictor.keypoints,
            boxes=poses.boxes if given else None,
            person_score=poses.box_score if given else None,
            threshold=threshold,
        )
        write_png(names[file], drawn)
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
