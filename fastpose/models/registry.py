"""Models by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from fastpose.errors import ConfigError
from fastpose.models.meta import ModelMeta, SegmentationMeta
from fastpose.models.network import Network

Factory = TypeVar("Factory", bound=Callable[..., Network])

_factories: dict[str, Callable[..., Network]] = {}
_tasks: dict[str, str] = {}


def register_model(factory: Factory) -> Factory:
    """Decorator: makes a factory of a pose network available to `create_model` under its own name."""
    return _register(factory, ModelMeta.task)


def register_segmentation(factory: Factory) -> Factory:
    """`register_model` for a segmentation network."""
    return _register(factory, SegmentationMeta.task)


def list_models(task: str | None = None) -> list[str]:
    """Names that `create_model` knows, sorted; with `task` 'pose' or 'segmentation' only its own."""
    return sorted(name for name in _factories if task in (None, _tasks[name]))


def task_of(name: str) -> str:
    """'pose' or 'segmentation'; ConfigError for an unknown name."""
    _check_name(name)
    return _tasks[name]


def near_models(name: str, most: int = 4) -> list[str]:
    """At most so many of the other names that `create_model` knows, the one most like `name` first."""
    return difflib.get_close_matches(name, [known for known in list_models() if known != name], n=most)


def create_model(name: str, *args: Any, **options: Any) -> Any:
    """Builds the model `name`, for instance 'hrnet_w32'; the arguments are those of its factory.

    The first is the number of joints or classes, then `weights` and the factory's options follow by name. An
    unknown name raises ConfigError with the nearest known one.
    """
    _check_name(name)
    return _factories[name](*args, **options)


def _register(factory: Factory, task: str) -> Factory:
    _factories[factory.__name__], _tasks[factory.__name__] = factory, task
    return factory


def _check_name(name: str) -> None:
    if name not in _factories:
        near = difflib.get_close_matches(str(name), _factories, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown model {name!r}; {hint}`fastpose models` lists all {len(_factories)}")
