"""Results of a shard as one file: Parquet with a row a picture, or a json of COCO results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.errors import ConfigError
from fastpose.files import write_atomic
from fastpose.infer.result import Result
from fastpose.infer.results import person_scores, pose_rows, write_results
from fastpose.infer.shard_files import import_arrow

GROUP = 1024
"""Rows of a Parquet file that are held before they are written."""

Counts = dict[str, Any]


def result_row(result: Result) -> dict[str, Any]:
    """The people of one picture as a dict, with NumPy arrays where there is one entry a person.

    width, height: of the picture in pixels, 0 where it could not be read; error: why not, else None; boxes
    (N, 4) float32 (x, y, width, height); box_score (N,) float32; keypoints (N, K, 3) float32 (x, y) in pixels
    of the picture and score, (NaN, NaN, 0) for an absent joint; score (N,) float32, see `person_scores`.
    """
    points = result.keypoints
    return {
        "width": int(result.orig_shape[1]),
        "height": int(result.orig_shape[0]),
        "error": None if result.error is None else str(result.error),
        "boxes": result.boxes.xywh.astype(np.float32),
        "box_score": result.boxes.conf.astype(np.float32),
        "keypoints": np.concatenate([points.xy, points.conf[..., None]], axis=2, dtype=np.float32),
        "score": person_scores(points.conf, result.boxes.conf).astype(np.float32),
    }


def write_parquet(path: Path, results: Iterable[Result]) -> Counts:
    """One row a picture: `key` and the fields of `result_row`, as lists; a part of the rows is in memory."""
    arrow, parquet = import_arrow()
    schema = _schema(arrow)
    counts = _no_counts()

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(temporary, schema) as writer:
            rows: list[dict[str, Any]] = []
            for result in _counted(results, counts):
                row = {"key": result.name, **result_row(result)}
                rows.append({name: _plain(value) for name, value in row.items()})
                if len(rows) == GROUP:
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
                    rows = []
            writer.write_table(arrow.Table.from_pylist(rows, schema))

    write_atomic(path, write)
    return counts


def write_coco(path: Path, results: Iterable[Result]) -> Counts:
    """One COCO keypoint result a person, as `fastpose predict` writes them; `file_name` is the picture's key.

    Pictures that could not be read are in the counts alone.
    """
    counts = _no_counts()
    write_results(path, [row for result in _counted(results, counts) for row in pose_rows(result)])
    return counts


FORMATS: dict[str, tuple[str, Callable[[Path, Iterable[Result]], Counts]]] = {
    "parquet": (".parquet", write_parquet),
    "coco": (".coco.json", write_coco),
}
"""Name -> end of the file's name, and what writes it and returns the counts."""


def check_format(name: str) -> None:
    """ConfigError unless `name` can be written here."""
    if name not in FORMATS:
        raise ConfigError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    if name == "parquet":
        import_arrow()


def _no_counts() -> Counts:
    return {"pictures": 0, "people": 0, "errors": []}


def _counted(results: Iterable[Result], counts: Counts) -> Iterable[Result]:
    for result in results:
        counts["pictures"] += 1
        counts["people"] += len(result)
        if result.error is not None:
            counts["errors"].append({"key": result.name, "error": str(result.error)})
        yield result


def _schema(arrow: Any) -> Any:
    number, numbers = arrow.float32(), arrow.list_(arrow.float32())
    return arrow.schema(
        [
            ("key", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("error", arrow.string()),
            ("boxes", arrow.list_(numbers)),
            ("box_score", numbers),
            ("keypoints", arrow.list_(arrow.list_(numbers))),
            ("score", arrow.list_(number)),
        ]
    )


def _plain(value: Any) -> Any:
    """A value that Arrow takes; names of files may hold bytes that are no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value.tolist() if isinstance(value, np.ndarray) else value
