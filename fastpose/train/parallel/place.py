"""Where torchrun has put this process, and the device that is its own."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from fastpose.device import pick_device
from fastpose.errors import ConfigError


class Place(NamedTuple):
    """Process `rank` of `size`; on its machine, process `local_rank` of `local_size`."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def torchrun_place() -> Place | None:
    """From torchrun's variables; None for a process alone. ConfigError where they are incomplete."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    numbers = [os.environ.get(name, "") for name in names]
    if missing or not all(number.isdecimal() for number in numbers):
        shown = ", ".join(f"{name}={os.environ.get(name)}" for name in names)
        raise ConfigError(
            f"{shown}: not what torchrun sets{', without ' + ', '.join(missing) if missing else ''}; "
            "start with `torchrun -m fastpose ...`, or unset WORLD_SIZE"
        )
    return Place(*map(int, numbers))


class Job(NamedTuple):
    """What torchrun starts again and again: its name, empty where nobody gave one, and `restarts` so far.

    torchrun counts the restarts after a failure only, for each machine by itself. When machines join or
    leave, all processes are started anew and the count stays; the name does as well.
    """

    name: str = ""
    restarts: int = 0


def torchrun_job() -> Job:
    """From torchrun's variables, which a process alone may have too; the default --rdzv-id is "none"."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    return Job("" if name == "none" else name, int(restarts) if restarts.isdecimal() else 0)


def own_device(name: str, place: Place) -> torch.device:
    """The CPU, or the CUDA device of the process's number on its machine, which becomes the current one.

    Raises ConfigError for a device named by its number and where there are more processes than devices.
    """
    if name.startswith("cuda:"):
        raise ConfigError(
            f"run.device={name}: {place.size} processes would share it; use auto, and each takes its own"
        )
    device = pick_device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise ConfigError(
            f"{place.local_size} processes on a machine that shows {count} CUDA devices: give torchrun "
            f"--nproc-per-node={count}, or run.device=cpu"
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)
