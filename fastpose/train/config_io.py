"""Reading, checking, overriding and saving configurations."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fastpose.errors import ConfigError
from fastpose.files import write_text
from fastpose.train.config import Config
from fastpose.train.config_check import check_config

SHIPPED = Path(__file__).resolve().parents[1] / "configs"


def list_configs() -> list[str]:
    """Names of the configurations that come with the package, such as `coco/hrnet_w32_256x192`."""
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))


def find_config(name: str | os.PathLike[str]) -> Path:
    """A path to a yaml file, or the name of a shipped configuration."""
    text = os.fspath(name)
    for path in (Path(text), SHIPPED / text, SHIPPED / f"{text}.yaml"):
        if path.is_file():
            return path
    near = difflib.get_close_matches(text, list_configs(), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"no configuration {text!r}: neither a file nor a shipped one{hint} "
        "(fastpose train --list prints these)"
    )


def load_config(name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """The configuration `name` with `key=value` overrides applied.

    A file may name another in `base:` (relative to itself, or a shipped one) and states only what differs.
    Unknown keys and values of the wrong type are errors that name the key and the nearest known one.
    """
    path = find_config(name)
    values = _read(path, seen=())
    values.setdefault("name", path.stem)
    config = _build(Config, values, where=str(path))
    for override in overrides:
        config = _override(config, override)
    check_config(config)
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes every field, defaults included."""
    write_text(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: cannot be read: no text; name a configuration or a run folder, and weights by "
            "--weights or model.weights"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid yaml: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, not a mapping of settings")
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / str(base)
    try:
        parent = (beside if beside.is_file() else find_config(str(base))).resolve()
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from None
    if parent in seen:
        raise ConfigError(f"{path}: base {base!r} is circular")
    return _merge(_read(parent, (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _fields(cls: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    return ((item.name, hints[item.name]) for item in dataclasses.fields(cls))


def _build(cls: type, values: Any, where: str, prefix: str = "") -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.')} must be a mapping of settings, got {values!r}")
    known = dict(_fields(cls))
    for key in values:
        if key not in known:
            names = [f"{prefix}{name}" for name in known]
            raise ConfigError(f"{where}: unknown key '{prefix}{key}'{_nearest(f'{prefix}{key}', names)}")
    built = {
        key: _build(known[key], value, where, f"{prefix}{key}.")
        if dataclasses.is_dataclass(known[key])
        else _typed(value, known[key], f"{where}: {prefix}{key}")
        for key, value in values.items()
    }
    return cls(**built)


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _typed(value, option, where)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        if value in args and not isinstance(value, bool):
            return value
        raise ConfigError(f"{where}: got {value!r}, must be one of {', '.join(map(str, args))}")
    elif origin is list and isinstance(value, list):
        return [_typed(item, args[0], where) for item in value]
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is float and isinstance(value, str):  # yaml 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    elif hint is type(None) and value is None:
        return None
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: got {value!r}, expected {_spelled(hint)}")


def _spelled(hint: Any) -> str:
    """A type as a person would write it, such as 'float or auto'."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_spelled, args))
    if origin is typing.Literal:
        return ", ".join(map(str, args))
    if origin is list:
        return f"a list of {_spelled(args[0])}"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _override(config: Config, override: str) -> Config:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r}: expected key=value, for example train.epochs=20")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid yaml: {error}") from error
    return _with(config, key.split("."), value, key)


def _with(group: Any, path: list[str], value: Any, key: str, above: str = "") -> Any:
    """A copy of a group of settings with one of them, `path` below it, changed."""
    name, *below = path
    hint = _known(group, name, key, above)
    if dataclasses.is_dataclass(hint):
        if below:
            return dataclasses.replace(
                group, **{name: _with(getattr(group, name), below, value, key, f"{above}{name}.")}
            )
        names = ", ".join(f"{key}.{name}" for name, _ in _fields(typing.cast(type, hint)))
        raise ConfigError(f"override: '{key}' is a group; set one of {names}")
    if below:
        raise ConfigError(f"override {key!r}: '{name}' has no settings below it")
    return dataclasses.replace(group, **{name: _typed(value, hint, f"override {key}")})


def _known(target: Any, name: str, key: str, group: str) -> Any:
    known = dict(_fields(type(target)))
    if name not in known:
        names = [f"{group}{field}" for field in known]
        raise ConfigError(f"override: unknown key '{key}'{_nearest(f'{group}{name}', names)}")
    return known[name]
