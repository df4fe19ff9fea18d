"""Predictions of batches of columns, as Ray Data's `map_batches` hands them to a stateful callable."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpose.errors import DataError
from fastpose.infer.items import Item
from fastpose.infer.predictor import Predictor
from fastpose.infer.shard_files import PICTURES, row_record
from fastpose.infer.shard_output import result_row

Batch = Mapping[str, Any]


class BatchPredictor:
    """`BatchPredictor(model, **options)(batch)`: a `Predictor` from columns to columns.

    A batch is a mapping from names to arrays or lists of one length. One of `bytes`, `image`, `jpg`, `jpeg`,
    `png` and `path` holds the pictures: encoded bytes, a struct with `bytes` or `path`, the path of a file,
    or pixels (H, W, 3) uint8 in RGB order, as Ray's `read_images` has them. `boxes` (N, 4) (x, y, width,
    height) and `box_score` (N,) are optional. What comes back has all other columns of the batch, and those
    of `fastpose.infer.shard_output.result_row`: one row a picture, in order, also where it could not be read.
    Columns with something for each person are object arrays of arrays.

    The network is made where the callable is: in Ray's actor, from `fn_constructor_args`. Arguments and
    errors are those of `Predictor`, and DataError for a batch without pictures.
    """

    def __init__(self, model: torch.nn.Module | str | os.PathLike[str], **options: Any) -> None:
        self.predictor = Predictor(model, **options)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        column = next((name for name in PICTURES if name in batch), None)
        if column is None:
            raise DataError(
                f"batch: expected a column {', '.join(PICTURES)}, got {', '.join(batch) or 'none'}"
            )
        rows = [result_row(result) for result in self.predictor.run_items(self._items(batch, column))]
        kept = {name: np.asarray(batch[name]) for name in batch if name not in (column, "boxes", "box_score")}
        if column == "path":
            kept["path"] = np.asarray(batch["path"])
        return kept | _columns(rows)

    def _items(self, batch: Batch, column: str) -> Iterator[Item]:
        names = [name for name in (column, "boxes", "box_score") if name in batch]
        for index in range(len(batch[column])):
            row = {name: _plain(batch[name][index]) for name in names}
            record = row_record(row, column, f"row {index}", Path())
            yield replace(record.item(index, "batch", upright=self.predictor.upright), path=None)


def _plain(value: Any) -> Any:
    """A value of a column without NumPy's scalars and arrays of objects; None for a missing one."""
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value] if value.dtype == object else value
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays of objects where a row holds an array or may be None."""
    names = {"width": np.int32, "height": np.int32, "error": object}
    columns: dict[str, np.ndarray] = {
        name: np.array([row[name] for row in rows], dtype) for name, dtype in names.items()
    }
    for name in ("boxes", "box_score", "keypoints", "score"):
        columns[name] = np.empty(len(rows), object)
        for index, row in enumerate(rows):
            columns[name][index] = row[name]
    return columns
