"""Parts that the annotation readers share: json, numbers, images, and the count of what was left out."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NoReturn, TypeGuard

import numpy as np

from fastpose.data.images import unsafe_name
from fastpose.errors import DataError

OnBad = Literal["skip", "stop"]
LARGEST_COORDINATE = 1e6
"""Pixels; beyond it a crop is one grey smear and float32 no longer resolves the pixels."""

# Large, and no reader needs them: dropping them while parsing keeps the peak memory near the file's size.
_UNUSED = ("coco_url", "flickr_url", "date_captured")
_MASKS = "segmentation"
_NOT_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\b(?:NaN|Infinity)\b)')


@dataclass
class LeftOut:
    """Counts persons that a reader leaves out, by reason; `on_bad="stop"` raises on malformed ones."""

    file: str
    on_bad: OnBad
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "stop"):
            raise DataError(f"on_bad must be 'skip' or 'stop', got {self.on_bad!r}")

    def by_rule(self, reason: str, count: int = 1) -> None:
        """Left out by the official rules: never an error."""
        if count:
            self.counts[reason] += count

    def malformed(self, where: str, reason: str) -> None:
        """Left out because the file is wrong there."""
        if self.on_bad == "stop":
            raise DataError(f"{self.file}: {where}: {reason}; correct it, or read with on_bad='skip'")
        self.counts[reason] += 1

    def refuse_empty(self, persons: int) -> None:
        """DataError with all counts when nothing is left."""
        if persons == 0:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.counts.most_common())
            raise DataError(f"{self.file}: no usable person; left out: {reasons or 'none, it lists nobody'}")


@dataclass(frozen=True)
class ImageIndex:
    """The `images` of a COCO file: arrays as in PersonTable, and the row of each usable image id."""

    ids: np.ndarray  # (M,) int64
    names: np.ndarray  # (M,) str
    sizes: np.ndarray  # (M, 2) int32
    row: dict[int, int]


def load_json(path: str | os.PathLike[str], *, allow_nan: bool = False, masks: bool = False) -> Any:
    """The value in a json file, without the large fields that few readers need (URLs; `segmentation` unless
    `masks`).

    Raises DataError naming the file and, for broken json, line and column: missing or unreadable file, not
    UTF-8, cut short, nested too deep, or NaN and Infinity (which json does not know) unless `allow_nan`.
    """
    name = os.fspath(path)
    text = _read_text(name)

    def refuse(literal: str) -> NoReturn:
        line, column = _position_of_nan(text)
        raise DataError(f"{name}: broken json at line {line} column {column}: {literal}; write a number")

    try:
        slim = partial(_slim, unused=_UNUSED if masks else (*_UNUSED, _MASKS))
        return json.loads(text, object_hook=slim, parse_constant=float if allow_nan else refuse)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: broken json at line {error.lineno} column {error.colno} (character {error.pos} of "
            f"{len(text)}): {error.msg}; repair the file or fetch it again"
        ) from None
    except RecursionError:
        raise DataError(f"{name}: broken json: nested too deep for an annotation file") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{name}: broken json: {error}") from None


def load_coco(
    path: str | os.PathLike[str], *, allow_nan: bool = False, masks: bool = False
) -> dict[str, Any]:
    """`load_json` of a COCO file, an object whose images, annotations and categories are lists of objects.

    Raises DataError also where it is something else.
    """
    data = load_json(path, allow_nan=allow_nan, masks=masks)
    name = os.fspath(path)
    if not isinstance(data, dict):
        raise DataError(f"{name}: a COCO file is a json object, this is a {type(data).__name__}")
    for key in ("images", "annotations", "categories"):
        rows = data.get(key)
        if not isinstance(rows, list):
            got = "nothing" if rows is None else type(rows).__name__
            raise DataError(f"{name}: a COCO file has a list {key!r}, got {got}")
        wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            raise DataError(f"{name}: {key}[{wrong}] must be an object, got {type(rows[wrong]).__name__}")
    return data


def index_images(images: list[dict[str, Any]]) -> ImageIndex:
    """Images with an integer id and a file name that stays under the root, the first of every id."""
    row: dict[Any, int] = {}
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    for image in images:
        identity, name = image.get("id"), image.get("file_name")
        if not is_integer(identity) or identity in row:
            continue
        if isinstance(name, str) and not unsafe_name(name):
            row[identity] = len(names)
            names.append(name)
            sizes.append((_side(image.get("width")), _side(image.get("height"))))
    ids = np.fromiter(row, np.int64, len(row))
    return ImageIndex(ids, np.array(names, dtype=np.str_), np.array(sizes, np.int32).reshape(-1, 2), row)


def is_integer(value: object) -> TypeGuard[int]:
    """True for an int that fits 64 bits; json's true and false are not ids."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def number_list(value: object, length: int) -> np.ndarray | str:
    """`value` as (length,) float64, or what is wrong with it."""
    if not isinstance(value, list):
        return "missing" if value is None else f"not a list but {type(value).__name__}"
    if len(value) != length:
        return f"{len(value)} numbers instead of {length}"
    if not set(map(type, value)) <= {int, float}:
        return "not numbers"
    try:
        numbers = np.array(value, np.float64)
    except OverflowError:
        return "not finite"
    if not np.isfinite(numbers).all():
        return "not finite"
    if np.abs(numbers).max(initial=0) > LARGEST_COORDINATE:
        return f"beyond {LARGEST_COORDINATE:.0e} pixels"
    return numbers


def finite_number(value: object) -> float | None:
    """A json number as a float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _side(value: object) -> int:
    number = finite_number(value)
    return int(number) if number is not None and 0 < number < 2**31 else 0


def _slim(values: dict[str, Any], unused: tuple[str, ...]) -> dict[str, Any]:
    for key in unused:
        values.pop(key, None)
    return values


def _read_text(name: str) -> str:
    try:
        with open(name, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text at byte {error.start}; is this a json file?") from None
    except FileNotFoundError:
        raise DataError(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _position_of_nan(text: str) -> tuple[int, int]:
    start = next((found.start() for found in _NOT_JSON.finditer(text) if found[1]), 0)
    return text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
