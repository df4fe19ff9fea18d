"""What the adapters for other libraries share."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from fastpose.errors import ConfigError


def import_library(name: str) -> ModuleType:
    """A package that the user may have installed; ConfigError says how to get it, or why it fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(
                f"detector: {name} cannot be imported: {error}; install what it needs"
            ) from error
        raise ConfigError(
            f"detector: {name} is not installed: pip install {name}, or give boxes=, or detector='people'"
        ) from error
    except Exception as error:  # a library built for another torch fails with errors of its own kinds
        raise ConfigError(f"detector: {name} cannot be imported: {error}; repair its installation") from error


def corners_to_boxes(corners: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, right, bottom -> (N, 4) float64 x, y, width, height."""
    corners = np.asarray(corners, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def person_label(names: dict[int, str] | list[str], what: str) -> int:
    """The number of the class called person; ConfigError where a detector knows none."""
    pairs = list(names.items() if isinstance(names, dict) else enumerate(names))
    known = ", ".join(str(name) for _, name in pairs)
    for label, name in pairs:
        if name.lower() == "person":
            return int(label)
    raise ConfigError(f"detector: {what} has no class called person, but {known[:200]}; give label=")
