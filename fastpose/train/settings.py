"""Every setting of a configuration with its default and its meaning, read from the dataclasses themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import yaml

from fastpose.train.config import Config

LINE = re.compile(r"^    (?P<name>\w+):[^#]*(?:#\s*(?P<meaning>.*))?$")


def describe_settings() -> str:
    """One line a setting: `group.name=default`, then what it means, as `fastpose train --settings` prints."""
    rows = list(_rows(Config(), ""))
    width = min(44, max(len(setting) for setting, _ in rows))
    return "\n".join(f"{setting:<{width}}  {meaning}".rstrip() for setting, meaning in rows)


def _rows(group: Any, prefix: str) -> Iterator[tuple[str, str]]:
    meanings = _meanings(type(group))
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from _rows(value, f"{prefix}{field.name}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
            yield f"{prefix}{field.name}={text}", meanings.get(field.name, "")


def _meanings(cls: type) -> dict[str, str]:
    """The comments beside the fields."""
    found = (LINE.match(line) for line in inspect.getsource(cls).splitlines())
    return {match["name"]: match["meaning"] or "" for match in found if match}
