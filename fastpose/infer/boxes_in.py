"""Boxes that the caller brings: which are whose, and which of them can be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.errors import DataError
from fastpose.infer.items import Item, Source
from fastpose.infer.results import FileBoxes, read_boxes
from fastpose.wording import counted

logger = logging.getLogger(__name__)

LARGEST = 1e5
"""Pixels; a crop of a larger box would show the picture as a dot."""


@dataclass
class Found:
    """Boxes of one picture: (N, 4) float64 xywh, scores (N,), a line for each that cannot be used, and who
    found them."""

    boxes: np.ndarray
    conf: np.ndarray
    skipped: list[str] = field(default_factory=list)
    by: str = "given"
    image_id: int | str | None = None


BoxesOf = Callable[[Item], "FileBoxes | tuple[Any, Any] | None"]
"""Boxes and scores that belong to a picture, None where the detector is to look."""


def number_rows(name: str, values: Any, columns: int) -> np.ndarray:
    """(N, columns) float64, none for an empty list; DataError for another shape and what are no numbers."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: must hold numbers: {error}") from error
    if array.size == 0:
        return np.zeros((0, columns))
    if array.ndim > 2 or array.size % columns or (columns > 1 and array.shape[-1] != columns):
        raise DataError(f"{name}: expected (N, {columns}), got {array.shape}")
    return array.reshape(-1, columns)


def usable_boxes(boxes: Any, conf: Any, width: int, height: int, *, by: str = "given") -> Found:
    """The boxes (N, 4) xywh that can be cut out of a picture of this size, with their scores (N,), 1 if None.

    The others are named in `skipped`, with the reason. Raises DataError for arguments of another form.
    """
    rows = number_rows("boxes", boxes, 4)
    scores = np.ones(len(rows)) if conf is None else number_rows("box_score", conf, 1)[:, 0]
    if len(scores) != len(rows):
        raise DataError(
            f"box_score: {counted(len(scores), 'score')} for {counted(len(rows), 'box', 'boxes')}"
        )
    if not np.isfinite(scores).all():
        raise DataError(f"box_score: must be finite, got {scores[~np.isfinite(scores)][0]}")
    reasons = [unusable_box(box, width, height) for box in rows]
    keep = np.array([reason is None for reason in reasons], dtype=bool)
    skipped = [f"box {i} {rows[i].tolist()}: {reason}" for i, reason in enumerate(reasons) if reason]
    return Found(rows[keep], scores[keep], skipped, by)


def unusable_box(box: np.ndarray, width: int, height: int) -> str | None:
    """Why a box (x, y, w, h) cannot be cut out of a picture of this size, or None."""
    if not np.isfinite(box).all():
        return "not finite"
    x, y, w, h = box
    if w < 1 or h < 1:
        return "less than one pixel wide or high"
    if w > LARGEST or h > LARGEST:
        return "more than 100,000 pixels wide or high"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the picture"
    return None


def with_boxes(source: Source, boxes: Any, box_score: Any) -> Iterator[Item]:
    """The source's items, each with the boxes that are its own in `item.boxes`, None where the detector is to
    look.

    boxes: None; the path of a COCO json; a mapping from paths to boxes or `FileBoxes`; for a source that is
    one picture its boxes (N, 4); for others one entry a picture, None where the detector is to look.
    box_score: (N,) for one picture, one entry a picture for others. Raises DataError for anything else; what
    only the end of the source shows, entries that are left over, the iterator raises.
    """
    own = _boxes_of(boxes, box_score, source)  # at once: it raises what is wrong with the arguments

    def items() -> Iterator[Item]:
        seen = set()
        for item in source.items:
            item.boxes = own(item)
            if item.path is not None:
                seen.add(item.path.absolute())
            yield item
        if isinstance(own, _OneByOne):
            own.end()
        unused = _unused(boxes, seen) if isinstance(boxes, Mapping) else []
        if unused:
            logger.warning("boxes of %d pictures were not used, such as %s", len(unused), unused[0])

    return items()


def _boxes_of(boxes: Any, box_score: Any, source: Source) -> BoxesOf:
    if boxes is None:
        if box_score is not None:
            raise DataError("box_score: given without boxes")
        return lambda item: None
    if isinstance(boxes, (str, Path, Mapping)) and box_score is not None:
        raise DataError("box_score: the scores of these boxes go with them")
    if isinstance(boxes, (str, Path)):
        return _by_path(_of_json(Path(boxes), source))
    if isinstance(boxes, Mapping):
        return _from_mapping(boxes, source)
    if source.single:
        return lambda item: (boxes, box_score)
    return _OneByOne(boxes, box_score, source)


def _of_json(path: Path, source: Source) -> dict[Path, FileBoxes]:
    """The boxes of all pictures of the source, which must be files: the json names them by their names."""
    items = list(source.items) if not source.endless else []
    source.items = iter(items)
    files = [item.path for item in items if item.path is not None and item.frame is None]
    if len(files) < len(items) or not items:
        raise DataError(
            f"{path}: a json of boxes belongs to picture files; give arrays and frames their boxes"
        )
    return read_boxes(path, files)


def _from_mapping(table: Mapping[Any, Any], source: Source) -> BoxesOf:
    if not all(isinstance(key, (str, Path)) for key in table):
        raise DataError("boxes: a mapping leads from paths to boxes (N, 4)")
    if source.single:
        items = list(source.items)
        source.items = iter(items)
        unused = _unused(table, {item.path.absolute() for item in items if item.path is not None})
        if unused:
            raise DataError(f"boxes: {unused[0]} is not the source; give the boxes under its path")
    return _by_path(table)


def _unused(table: Mapping[Any, Any], seen: set[Path]) -> list[str]:
    """Paths of `table` that are none of `seen`."""
    return [str(key) for key in table if Path(key).absolute() not in seen]


def _by_path(table: Mapping[Any, Any]) -> BoxesOf:
    paths = {Path(key).absolute(): value for key, value in table.items()}

    def find(item: Item) -> FileBoxes | tuple[Any, Any] | None:
        if item.path is None or item.path.absolute() not in paths:
            return None
        found = paths[item.path.absolute()]
        return found if isinstance(found, FileBoxes) or found is None else (found, None)

    return find


class _OneByOne:
    """The entries of two iterables, one a picture; DataError where there are fewer or more of them."""

    def __init__(self, boxes: Any, box_score: Any, source: Source) -> None:
        given = {"boxes": boxes} if box_score is None else {"boxes": boxes, "box_score": box_score}
        for name, values in given.items():
            if not isinstance(values, Iterable):
                raise DataError(f"{name}: expected one entry a picture, got {type(values).__name__}")
        if isinstance(boxes, np.ndarray) and boxes.ndim < 3 and boxes.dtype != object:
            raise DataError(
                f"boxes: shape {boxes.shape} is that of one picture; several need one (N, 4) each"
            )
        self.given, self.rows = given, {name: iter(values) for name, values in given.items()}
        self.seen, pictures = 0, source.count()
        for name, values in given.items():
            if pictures is not None and isinstance(values, Sized) and len(values) != pictures:
                raise _other_number(name, len(values), pictures)

    def __call__(self, item: Item) -> tuple[Any, Any] | None:
        self.seen += 1
        found = {name: next(rows, _NONE) for name, rows in self.rows.items()}
        for name, row in found.items():
            if row is _NONE:
                raise DataError(f"{name}: none for {item.name}; several pictures need one entry each")
        return None if found["boxes"] is None else (found["boxes"], found.get("box_score"))

    def end(self) -> None:
        """Raises where entries are left after the last picture."""
        for name, rows in self.rows.items():
            if next(rows, _NONE) is not _NONE:
                values = self.given[name]
                entries = len(values) if isinstance(values, Sized) else None
                raise _other_number(name, entries, self.seen)


_NONE = object()


def _other_number(name: str, entries: int | None, pictures: int) -> DataError:
    told = f"more than {counted(pictures, 'entry', 'entries')}"
    if entries is not None:
        told = counted(entries, "entry", "entries")
    return DataError(f"{name}: {told} for {counted(pictures, 'picture')}; give one entry a picture")
