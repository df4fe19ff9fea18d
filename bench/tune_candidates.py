"""What tune_fuse.py tries: entries of kernels/configs.py for HRNet's fused sums, and their rivals."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.fuse_calls import StepCall, step_calls
from bench.fuse_cases import network_shapes
from bench.measure import nbytes

# A step without a `config` argument is not among them: the two statistics.
MODULES = {
    "input_moments": "moments",
    "cross_moments": "moments",
    "forward_row": "fuse_forward",
    "backward_row": "fuse_backward",
    "image_gradients": "fuse_gradients",
    "input_gradient": "fuse_gradients",
    "weight_gradients": "fuse_weights",
}
CHOICES: dict[str, tuple[int, ...]] = {
    "pixels": (16, 32, 64, 128, 256, 512),
    "rows": (16, 32, 64, 128, 256),
    "block": (16, 32, 64, 128),
    "block_c": (16, 32, 64, 128),
    "block_n": (16, 32, 64, 128),
    "block_m": (16, 32, 64),
    "block_k": (16, 32, 64, 128),
    "programs": (132, 264, 528, 1056),
    "num_warps": (2, 4, 8),
    "num_stages": (1, 2, 3, 4, 5),
    "reuse": (False, True),
}
LEAST_OF_DOT = 16
MOST_CALLS = 3  # of an entry: every further shape is another compilation of each candidate
REGISTERS = 128  # of a thread for sums and tiles; the other half is for addresses and operands
DEFAULT_STAGES = 3  # Triton's own, of launches that name none
# Most valuable first: dtype and channels_last.
KINDS = (
    (torch.bfloat16, True), (torch.float16, True), (torch.float32, True), (torch.bfloat16, False),
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A look-up in kernels/configs.py."""

    function: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"

    def config(self) -> Any:
        """What the table says."""
        configs = importlib.import_module("fastpose.kernels.configs")
        return getattr(configs, self.function)(*self.arguments)


@dataclass
class Job:
    """Calls that look up one entry, the MOST_CALLS largest, each with how often a training step makes it."""

    entry: Entry
    calls: dict[str, tuple[StepCall, int]]
    kind: int  # index in KINDS

    @property
    def bytes(self) -> int:
        """Of the arguments, over a training step of all networks."""
        return sum(times * moved(call) for call, times in self.calls.values())


@dataclass(frozen=True)
class Bounds:
    """What a configuration is held against.

    shared: bytes of shared memory of a block. itemsize: of an image's element. finest, coarsest: levels of
    the paths with a weight; finest is -1 where there are none.
    """

    shared: int
    itemsize: int = 2
    finest: int = 0
    coarsest: int = 0


def find_jobs(networks: Sequence[str], batch: int, capability: int) -> list[Job]:
    """Most valuable first. An entry that several kinds of images share is tuned for the first of them."""
    jobs: dict[Entry, Job] = {}
    for kind, (dtype, channels_last) in enumerate(KINDS):
        for shape, times in (pair for network in networks for pair in network_shapes(network)):
            for call in step_calls(shape, batch, dtype, channels_last):
                if times and call.step in MODULES:
                    entry = entry_of(call, capability, channels_last)
                    job = jobs.setdefault(entry, Job(entry, {}, kind))
                    if job.kind == kind:
                        _, before = job.calls.get(signature(call), (call, 0))
                        job.calls[signature(call)] = call, before + times
    for job in jobs.values():
        largest = sorted(job.calls.items(), key=lambda item: -item[1][1] * moved(item[1][0]))
        job.calls = dict(largest[:MOST_CALLS])
    return sorted(jobs.values(), key=lambda job: (job.kind, -job.bytes))


def moved(call: StepCall) -> int:
    """Bytes of the arguments."""
    return nbytes(list(call.arguments.values()))


def entry_of(call: StepCall, capability: int, channels_last: bool) -> Entry:
    """The look-up that a launcher makes for a call."""
    given = call.arguments
    if call.step == "forward_row":
        images = [x for x in (given["identity"], *given["xs"], *given["images"]) if x is not None]
        return Entry("forward_config", (capability, _levels(call), images[0].dtype, channels_last))
    if call.step in ("input_moments", "cross_moments"):
        x = given["x"]
        return Entry("moments_config", (capability, x.shape[1], x.dtype, channels_last))
    if call.step == "backward_row":
        coarsest, count = max(given["levels"], default=0), len(given["images"])
        return Entry("row_backward_config", (given["grad"].shape[1], coarsest, count, channels_last))
    if call.step == "image_gradients":
        return Entry("image_backward_config", (given["masked"].shape[1],))
    if call.step == "input_gradient":
        x = given["x"]
        return Entry("input_backward_config", (capability, x.shape[1], x.dtype, channels_last))
    return Entry("weight_backward_config", ())


def bounds_of(job: Job, shared: int) -> Bounds:
    """Of all calls of a job on a GPU with `shared` bytes of shared memory a block."""
    calls = [call for call, _ in job.calls.values()]
    levels = [level for call in calls for level in _levels(call)]
    itemsize = KINDS[job.kind][0].itemsize
    return Bounds(shared, itemsize, min(levels, default=-1), max(levels, default=0))


def candidates(config: Any, bounds: Bounds, most: int) -> list[Any]:
    """`config` and the `most` - 1 valid configurations that are fewest steps away from it, nearest first."""
    names = [field.name for field in dataclasses.fields(config)]
    values = [getattr(config, name) for name in names]
    choices = [sorted({*CHOICES[name], value}) for name, value in zip(names, values, strict=True)]
    start = [column.index(value) for column, value in zip(choices, values, strict=True)]
    found = []
    for places in itertools.product(*(range(len(column)) for column in choices)):
        chosen = [column[place] for column, place in zip(choices, places, strict=True)]
        made = dataclasses.replace(config, **dict(zip(names, chosen, strict=True)))
        if fits(made, bounds):
            away = sum(abs(a - b) for a, b in zip(places, start, strict=True))
            found.append((away, places, made))
    return [made for _, _, made in sorted(found, key=lambda entry: entry[:2])][:most]


def fits(config: Any, bounds: Bounds) -> bool:
    """Whether blocks are powers of two that a dot takes, and shared memory and registers hold them."""
    blocks = [
        getattr(config, name)
        for name in ("pixels", "rows", "block", "block_c", "block_n", "block_m", "block_k")
        if hasattr(config, name)
    ]
    if any(block & (block - 1) for block in blocks):
        return False
    if hasattr(config, "block_k") or hasattr(config, "block"):
        if min(blocks) < LEAST_OF_DOT:
            return False
    elif config.pixels < 4**bounds.coarsest:
        return False
    shared, numbers = _USAGE[type(config).__name__](config, bounds)
    return shared <= bounds.shared and numbers <= REGISTERS * 32 * config.num_warps


def shared_bytes(config: Any, bounds: Bounds) -> int:
    """Shared memory of the operands that wait for their dot, in all stages; the compiler may take less."""
    return _USAGE[type(config).__name__](config, bounds)[0]


def signature(call: StepCall) -> str:
    """Shapes and numbers of a call."""

    def text(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return "x".join(map(str, value.shape))
        return f"[{' '.join(map(text, value))}]" if isinstance(value, list) else str(value)

    return f"{call.step}({', '.join(f'{name}={text(value)}' for name, value in call.arguments.items())})"


def _levels(call: StepCall) -> tuple[int, ...]:
    given = call.arguments
    if call.step == "forward_row":
        return tuple((given["size"][0] // x.shape[2]).bit_length() - 1 for x in given["xs"])
    return tuple(given["levels"]) if call.step == "backward_row" else ()


def _forward(config: Any, bounds: Bounds) -> tuple[int, int]:
    top = min(bounds.coarsest, (config.pixels.bit_length() - 5) // 2)
    rows = config.pixels >> (2 * min(bounds.finest, top)) if bounds.finest >= 0 else 0
    operands = rows * config.block_k + config.block_k * config.block_c if rows else 0
    return config.num_stages * operands * bounds.itemsize, (config.pixels + rows) * config.block_c


def _moments(config: Any, bounds: Bounds) -> tuple[int, int]:
    operands = (1 if config.reuse else 2) * config.rows * config.block
    return config.num_stages * operands * bounds.itemsize, config.block * (config.block + config.rows)


def _input(config: Any, bounds: Bounds) -> tuple[int, int]:
    operands = config.block_k * (config.pixels + config.block_n)
    return config.num_stages * operands * bounds.itemsize, config.pixels * config.block_n


def _weight(config: Any, bounds: Bounds) -> tuple[int, int]:
    """Both kernels multiply in float32."""
    operands = config.block_k * max(config.block_c + config.block_n, 2 * config.block_m)
    return DEFAULT_STAGES * operands * 4, max(config.block_c * config.block_n, config.block_m**2)


def _pass(config: Any, bounds: Bounds) -> tuple[int, int]:
    """Gradient, output, image and result of a tile."""
    return 0, 4 * config.pixels * config.block_c


_USAGE: dict[str, Callable[[Any, Bounds], tuple[int, int]]] = {
    "ForwardConfig": _forward,
    "MomentsConfig": _moments,
    "InputConfig": _input,
    "WeightConfig": _weight,
    "PassConfig": _pass,
}
