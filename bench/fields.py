"""Checks of parsed JSON, field by field: each is called with a value and the place where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]


class SchemaError(ValueError):
    """A results file is not one; the text names the place, what was got and what was expected."""


def fail(where: str, expected: str, got: object) -> None:
    raise SchemaError(f"{where}: expected {expected}, got {got!r}"[:400])


def text(value: Any, where: str) -> None:
    if not isinstance(value, str) or not value:
        fail(where, "a text", value)


def integer(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        fail(where, "a whole number, 0 or more", value)


def truth(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        fail(where, "true or false", value)


def number(value: Any, where: str) -> None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or value < 0:
        fail(where, "a finite number, 0 or more", value)


def positive(value: Any, where: str) -> None:
    number(value, where)
    if value == 0:
        fail(where, "a number above 0", value)


def axis(value: Any, where: str) -> None:
    (text if isinstance(value, str) else integer)(value, where)


def one_of(*choices: str) -> Check:
    def check(value: Any, where: str) -> None:
        if value not in choices:
            fail(where, f"one of {', '.join(choices)}", value)

    return check


def nullable(inner: Check) -> Check:
    """null, or what `inner` takes."""
    return lambda value, where: None if value is None else inner(value, where)


def list_of(inner: Check) -> Check:
    """A list, each item of which `inner` takes."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            fail(where, "a list", value)
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")

    return check


def map_of(inner: Check) -> Check:
    """An object of any names with values that `inner` takes."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            fail(where, "an object", value)
        for key, item in value.items():
            inner(item, f"{where}.{key}")

    return check


def record(fields: Mapping[str, Check]) -> Check:
    """An object of exactly these fields."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            fail(where, "an object", value)
        missing, unknown = fields.keys() - value.keys(), value.keys() - fields.keys()
        if missing or unknown:
            names = [f"{name} is missing" for name in sorted(missing)]
            names += [f"{name} is not a field" for name in sorted(unknown)]
            raise SchemaError(f"{where}: {'; '.join(names)}")
        for name, inner in fields.items():
            inner(value[name], f"{where}.{name}")

    return check
