"""Models by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from fastpose.errors import ConfigError
from fastpose.models.meta import PoseModel, StrPath

Factory = TypeVar("Factory", bound=Callable[..., PoseModel])

_factories: dict[str, Callable[..., PoseModel]] = {}


def register_model(factory: Factory) -> Factory:
    """Decorator: makes a factory available to `create_model` under its own name."""
    _factories[factory.__name__] = factory
    return factory


def list_models() -> list[str]:
    """Names that `create_model` knows, sorted."""
    return sorted(_factories)


def create_model(
    name: str, num_joints: int = 17, *, weights: StrPath | None = None, **options: Any
) -> PoseModel:
    """Builds the model `name`, for instance 'hrnet_w32'; the arguments are those of its factory.

    An unknown name raises ConfigError with the nearest known one.
    """
    if name not in _factories:
        near = difflib.get_close_matches(str(name), _factories, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown model {name!r}; {hint}known: {', '.join(list_models())}")
    return _factories[name](num_joints, weights=weights, **options)
