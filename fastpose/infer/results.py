"""COCO's results format: poses out, a detector's boxes in."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.errors import DataError
from fastpose.files import make_folder, write_atomic, write_text

if TYPE_CHECKING:
    from fastpose.infer.result import Result

logger = logging.getLogger(__name__)

EXPECTED = 'a list such as [{"image_id": 785, "bbox": [x, y, width, height], "score": 0.9}]'


@dataclass(frozen=True)
class FileBoxes:
    """The boxes of one picture: (N, 4) float64 (x, y, width, height) in image pixels, scores (N,) float64."""

    image_id: int | str
    boxes: np.ndarray
    scores: np.ndarray


def image_id_of(file: str | PurePath) -> int | str:
    """The number that the stem of a picture's name spells (000000000785.jpg: 785), else the stem itself."""
    stem = PurePath(file).stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) <= 18 else stem


def picture_ids(files: Iterable[Path]) -> dict[Path, int | str]:
    """`image_id_of` each picture, and the path instead for all that would share theirs (x.jpg and x.png,
    1.jpg and 001.jpg, pictures of one name in two folders)."""
    ids = {file: image_id_of(file) for file in files}
    while shared := {value for value, count in Counter(ids.values()).items() if count > 1}:
        paths = {file: file.as_posix() for file, value in ids.items() if value in shared}
        if paths.items() <= ids.items():
            break
        ids |= paths
    return ids


def person_scores(conf: np.ndarray, box_conf: np.ndarray, in_vis_threshold: float = 0.2) -> np.ndarray:
    """(N,) float64: the box's score times the mean of the joint scores above `in_vis_threshold`, 0 where
    there is none (hrnet lib/dataset/coco.py). conf: (N, K) joint scores, box_conf: (N,)."""
    conf = np.asarray(conf, np.float64)
    sure = conf > in_vis_threshold
    return box_conf * np.where(sure, conf, 0.0).sum(axis=1) / np.maximum(sure.sum(axis=1), 1)


def pose_rows(
    result: Result, *, category_id: int = 1, in_vis_threshold: float = 0.2, image_id: int | str | None = None
) -> list[dict[str, Any]]:
    """The persons of one picture as COCO keypoint results, with `bbox` and `file_name` besides.

    `keypoints` is x, y (image pixels) and score for each joint in turn; an absent joint is written 0, 0, 0,
    as COCO does. `score` is that of `person_scores`. `image_id` is the result's own, else the one
    given here, else `image_id_of` its file, which pictures of one name share (`picture_ids`), else its place
    in the source; a video's rows carry `frame` besides, and its number as image_id.
    """
    points = result.keypoints
    triples = np.concatenate([points.xy, points.conf[..., None]], axis=2, dtype=np.float64)
    triples[~points.valid] = 0.0
    scores = person_scores(points.conf, result.boxes.conf, in_vis_threshold)
    picture: dict[str, Any] = {"image_id": _picture_id(result, image_id), "category_id": category_id}
    place: dict[str, Any] = {} if result.path is None else {"file_name": result.path.as_posix()}
    if result.frame is not None:
        place["frame"] = result.frame
    return [
        {
            **picture,
            "keypoints": triples[person].round(4).ravel().tolist(),
            "score": float(scores[person]),
            "bbox": result.boxes.xywh[person].round(4).tolist(),
            **place,
        }
        for person in range(len(triples))
    ]


def _picture_id(result: Result, given: int | str | None) -> int | str:
    if result.image_id is not None:
        return result.image_id
    if given is not None:
        return given
    if result.frame is not None:
        return result.frame
    return result.index if result.path is None else image_id_of(result.path)


def write_results(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes result rows as a JSON list, one row a line; an older file stays whole until the new one is.

    Raises DataError for a value that JSON does not have (nan, inf), OutputError when it cannot be written.
    """
    path = Path(path)
    try:
        lines = [json.dumps(row, allow_nan=False, default=_plain) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a result cannot be written as JSON: {error}") from error
    make_folder(path.parent)
    write_text(path, "[" + ",\n".join(lines) + "]\n")


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a BGR picture as PNG, whole or not at all; OutputError when it cannot be written."""
    import cv2

    data = cv2.imencode(".png", image)[1].tobytes()
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def read_boxes(
    path: str | Path,
    files: Sequence[Path],
    *,
    min_score: float = 0.0,
    category_id: int | None = 1,
) -> dict[Path, FileBoxes]:
    """Reads COCO detections (such as hrnet's COCO_val2017_detections_AP_H_56_person.json) for these pictures.

    A row names its picture by `file_name`, compared from the end so that folders may be left out, or else by
    `image_id`, compared with `image_id_of` the file. `score` may be missing (1). Every file has an entry,
    with the id of its rows, else of `picture_ids`, and its boxes in the order of the list; rows of other
    pictures or categories (None: all are wanted) and below `min_score` are left out, and logged in one line.
    Raises DataError, naming the row, for a broken file, and when no box is left.
    """
    path = Path(path)
    finder = _Finder(files)
    ids = picture_ids(files)
    kept: dict[Path, list[list[float]]] = {file: [] for file in files}
    left_out: Counter[str] = Counter()
    for number, row in enumerate(_load(path)):
        where = f"{path}: row {number}"
        box = _box(row, where)
        if category_id is not None and row.get("category_id", category_id) != category_id:
            left_out[f"of another category than {category_id}"] += 1
        elif box[4] < min_score:
            left_out[f"with a score below {min_score:g}"] += 1
        elif (file := finder.find(row, where)) is None:
            left_out["of other pictures"] += 1
        else:
            kept[file].append(box)
            ids[file] = row["image_id"] if _is_id(row.get("image_id")) else ids[file]
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    if not any(kept.values()):
        raise DataError(f"{path}: no box to use ({reasons or 'the list is empty'})")
    if reasons:
        logger.info("%s: boxes left out: %s", path, reasons)
    arrays = {file: np.array(boxes, dtype=np.float64).reshape(-1, 5) for file, boxes in kept.items()}
    return {file: FileBoxes(ids[file], array[:, :4], array[:, 4]) for file, array in arrays.items()}


def _load(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}; expected {EXPECTED}") from error
    if isinstance(rows, dict) and "annotations" in rows:
        raise DataError(f"{path}: this is an annotation file, not a detector's boxes; expected {EXPECTED}")
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected {EXPECTED}, got {type(rows).__name__}")
    return rows


def _box(row: Any, where: str) -> list[float]:
    """[x, y, width, height, score] of a row; the box itself may be of any size, the predictor judges it."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with bbox, got {type(row).__name__}")
    bbox = row.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DataError(f"{where}: bbox must be [x, y, width, height], got {str(bbox)[:60]}")
    numbers = [_number(value, f"{where}: bbox") for value in bbox]
    score = _number(row.get("score", 1.0), f"{where}: score")
    if not math.isfinite(score):
        raise DataError(f"{where}: score must be finite, got {score}")
    return [*numbers, score]


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where} must hold numbers, got {str(value)[:60]!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise DataError(f"{where} holds a number that is too large") from error


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


class _Finder:
    """Which of the given pictures a row means."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        self.by_id: dict[int | str, list[Path]] = {}
        for file in dict.fromkeys(files):
            self.by_name.setdefault(file.name, []).append(file)
            self.by_id.setdefault(image_id_of(file), []).append(file)

    def find(self, row: dict[str, Any], where: str) -> Path | None:
        name, image_id = row.get("file_name"), row.get("image_id")
        if isinstance(name, str):
            path = PurePath(name)
            found = [file for file in self.by_name.get(path.name, []) if _same_end(file, path)]
        elif _is_id(image_id):
            found = self.by_id.get(image_id_of(str(image_id)), [])
        else:
            raise DataError(f"{where}: needs an image_id or a file_name that says which picture it is in")
        if len(found) > 1:
            raise DataError(f"{where}: means both {found[0]} and {found[1]}; give file_name with its folder")
        return found[0] if found else None


def _same_end(file: Path, name: PurePath) -> bool:
    shared = min(len(file.parts), len(name.parts))
    return file.parts[-shared:] == name.parts[-shared:]


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
