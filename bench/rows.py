"""What a benchmark row is, and the list of all rows, measured or not."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

# The heading on the page, in the order of value: where time is short, the first are measured.
GROUPS = {
    "macro": "Networks: forward passes and training steps",
    "convolution": "Convolutions",
    "micro": "Operations",
    "stage": "Stages of a training step",
    "end_to_end": "End to end, from JPEG",
    "feed": "Data feed",
    "metrics": "Evaluation",
}
DEVICES = ("cpu", "cuda")
METHODS = ("wall", "events", "graph")
Side = Callable[..., object]


class Unavailable(Exception):
    """Raised while a row is built: it cannot run on this machine, and the text says why."""


@dataclass(frozen=True)
class Limit:
    """What the work cannot do without: bytes read and written in memory, and floating-point operations.

    traffic: `copy` for work that reads and writes, `read` or `write` for work that nearly only does the one.
    dtype: of the matrix product that measures the ceiling; empty: bfloat16 on CUDA, float32 on a CPU.
    """

    bytes: float = 0
    flops: float = 0
    traffic: str = "copy"
    dtype: str = ""


@dataclass
class Case:
    """What a row times; made when the row runs, everything on its device already.

    `candidate` and every rival are called as `side(*inputs)`. A side that is not this project's fastest way
    names itself; what is missing here is named in `absent` with the reason.
    """

    candidate: Side
    rivals: Mapping[str, Side]
    # Called with inputs of a fresh seed before anything is timed; AssertionError fails the row.
    check: Callable[..., object]
    # One set of inputs; `draw` lives on the row's device. Called as often as cold memory needs sets.
    inputs: Callable[[torch.Generator], tuple[Any, ...]] = lambda draw: ()
    limit: Limit | None = None
    name: str = "fastpose"
    method: str = ""  # one of METHODS; empty: graph on CUDA, wall on a CPU
    methods: Mapping[str, str] = field(default_factory=dict)  # side -> its own method
    cold: bool = True  # False: the same inputs again and again, labelled hot
    items: float = 1  # what one call gets done, such as 64 images
    unit: str = "calls"
    absent: Mapping[str, str] = field(default_factory=dict)
    figures: Callable[[], Mapping[str, float]] | None = None  # after timing: kernels a step, peak bytes
    poison: bool = (
        True  # the check sees NaN in memory nobody wrote; False spares compiled sides a recompilation
    )


@dataclass(frozen=True)
class Row:
    """A declared row; `build` makes its case and may raise Unavailable."""

    id: str
    group: str
    device: str
    what: str
    build: Callable[[], Case]
    rank: int = 0  # within its group, lower first
    threads: int = 1  # on a CPU; 0 leaves them alone
    axes: Mapping[str, str | int] = field(default_factory=dict)  # for plots: model, size, batch, pass
    headline: bool = False  # shown in the README

    def __str__(self) -> str:
        return self.id


_all: dict[str, Row] = {}


class Rows:
    """The rows of one file, to be parametrized over; their ids begin with `noun`."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._rows: list[Row] = []

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: object) -> bool:
        return row in self._rows

    def __call__(
        self, name: str, *, group: str, device: str, what: str, **options: Any
    ) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
        """Declares the decorated function as the row `noun/device/name`.

        Raises:
            ValueError: the group, the device or an option is unknown, or the id is taken.
        """
        identity = f"{self.noun}/{device}/{name}"
        if group not in GROUPS:
            raise ValueError(f"{identity}: group: expected one of {', '.join(GROUPS)}, got {group!r}")
        if device not in DEVICES:
            raise ValueError(f"{identity}: device: expected one of {', '.join(DEVICES)}, got {device!r}")
        if identity in _all:
            raise ValueError(f"{identity}: declared twice; give the second another name")

        def declare(build: Callable[[], Case]) -> Callable[[], Case]:
            row = Row(identity, group, device, what, build, **options)
            self._rows.append(row)
            _all[identity] = row
            return build

        return declare


def in_order(rows: list[Row]) -> list[Row]:
    """Most valuable first; the order of declaration decides between equals."""
    groups = list(GROUPS)
    return sorted(rows, key=lambda row: (groups.index(row.group), row.rank))


def all_rows() -> dict[str, Row]:
    """Every row that the files bench_*.py declare, id -> row, whatever was imported before; imports them."""
    package = importlib.import_module("bench")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        if module.startswith("bench_"):
            importlib.import_module(f"bench.{module}")
    return dict(sorted(_all.items(), key=lambda item: item[0].partition("/")[0]))
