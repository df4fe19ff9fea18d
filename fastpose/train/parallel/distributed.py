"""The processes of a run under torchrun: who does what, what they tell each other, how they end together."""

from __future__ import annotations

import io
import logging
import math
import os
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastpose.device import pick_device
from fastpose.errors import ConfigError, TrainingError
from fastpose.train.parallel.meeting import connect_store, job_of_store, meet
from fastpose.train.parallel.peers import PeerWatch, lost_contact
from fastpose.train.parallel.place import own_device, torchrun_job, torchrun_place
from fastpose.train.parallel.replicas import as_bytes, average_buffers, checksum, difference, replicate

T = TypeVar("T")

PATIENCE_S = 30.0
"""Without a sign of life from a process, and at a barrier; every process has then ended within a minute."""

MEETING_TIMEOUT = timedelta(minutes=2)
"""From the first process that is up to the last."""

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""Of one exchange of gradients: longer than a loader waits for a worker, whose error says more."""

CONTROL_TIMEOUT = timedelta(hours=1)
"""Of what passes between the hosts: the others wait while rank 0 evaluates and saves."""


class World:
    """This process, `rank` of `size`, and its device; rank 0 is the main one, which writes and speaks.

    A context manager: leaving it waits for the others; leaving it by an error tells them to stop. Gradients
    pass over NCCL between CUDA devices, all else over gloo between the hosts. A process alone never
    communicates. `local_size` counts the processes of this machine. `job` names what torchrun has started,
    the same in each of its starts and empty without it; `restarts` are those after a failure.
    """

    def __init__(
        self,
        device: torch.device,
        rank: int = 0,
        size: int = 1,
        local_size: int = 1,
        patience: float = PATIENCE_S,
    ) -> None:
        self.device, self.rank, self.size, self.local_size = device, rank, size, local_size
        self.patience = patience
        self.job, self.restarts = torchrun_job()
        self.control: Any = None
        self.gate: Any = None
        self.watch: PeerWatch | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def seed(self, seed: int) -> None:
        """Gives each rank but 0 random numbers of its own; rank 0 keeps those of a process alone."""
        if self.rank:
            torch.manual_seed(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64).item())

    def wrap(self, model: nn.Module, *, weight: float | None = None, **options: Any) -> nn.Module:
        """The module to call in training, which averages gradients: `replicate`; `model` itself when alone.

        `weight` is BatchPlan's, the part of a step's samples that are this process's.
        """
        if self.size == 1:
            return model
        odd = weight is not None and not math.isclose(weight, 1 / self.size)
        return replicate(model, self.device, weight=weight if any(self.sum([odd])) else None, **options)

    def average_buffers(self, model: nn.Module, weight: float) -> None:
        """Running statistics become the mean of all processes'; call it before anyone evaluates or saves."""
        if self.size > 1:
            average_buffers(model, weight)

    def sum(self, values: list[float]) -> list[float]:
        """Element-wise over the processes, the same in each."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return total.tolist()

    def collect(self, sums: Tensor) -> list[float]:
        """The sum of `sums` over the processes, who meet first; rank 0's then hold it, the others' zeros.

        So a run that goes on from a saved sum adds in the same order as one that was never stopped.
        """
        self.barrier("the sums over the steps")
        total = self.sum(sums.tolist())
        sums.copy_(torch.tensor(total, dtype=sums.dtype)) if self.is_main else sums.zero_()
        return total

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, in every process: plain values, lists, dicts and tensors (CPU)."""
        if self.size == 1:
            return make()
        file = io.BytesIO()
        if self.is_main:
            torch.save(make(), file)
        length = torch.tensor([file.tell()])
        dist.broadcast(length, 0, group=self.control)
        data = as_bytes(file.getvalue()) if self.is_main else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.control)
        return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)

    def copy_from_main(self, things: Mapping[str, Any]) -> None:
        """Gives `things` (with state_dict and load_state_dict, or None) the states that rank 0's have.

        Only rank 0 needs the run folder, then: no file system has to be shared.
        """
        for thing in things.values():
            if self.size > 1 and thing is not None:
                state = self.from_main(thing.state_dict)
                if not self.is_main:
                    thing.load_state_dict(state)

    def gather_rows(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """On rank 0 the `rows` (counts[rank], ...) of all, in the order of ranks; elsewhere `rows`."""
        if self.size == 1:
            return rows
        width = rows.dtype.itemsize * math.prod(rows.shape[1:])
        mine = torch.zeros(max(counts), width, dtype=torch.uint8)
        mine[: len(rows)] = as_bytes(rows.tobytes()).view(len(rows), width) if len(rows) else mine[:0]
        parts = [torch.empty_like(mine) for _ in counts] if self.is_main else None
        dist.gather(mine, parts, group=self.control)
        if parts is None:
            return rows
        data = b"".join(part[:count].numpy().tobytes() for part, count in zip(parts, counts, strict=True))
        return np.frombuffer(bytearray(data), rows.dtype).reshape(sum(counts), *rows.shape[1:])

    def barrier(self, where: str) -> None:
        """Waits for every process; TrainingError, on rank 0 with those missing, after `patience` seconds."""
        if self.size == 1:
            return
        try:
            dist.monitored_barrier(self.gate, wait_all_ranks=True)
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.rank}: not all processes have come to {where} within {self.patience:g} s: they "
                f"took different numbers of steps, or one hangs ({error}); go on with --resume"
            ) from error

    def check_in_step(self, model: nn.Module, epoch: int, step: int) -> None:
        """TrainingError where the processes stand at different steps or their copies of the model differ."""
        if self.size == 1:
            return
        self.barrier(f"the end of step {step} of epoch {epoch + 1}")
        mine = torch.tensor([epoch + 1, step, checksum(model)])
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self.control)
        trouble = difference([row.tolist() for row in rows], ("epoch", "step", "weights with checksum"))
        if trouble:
            raise TrainingError(f"the processes are out of step: {trouble}; go on with --resume")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 1:
            return
        if error is None:
            try:
                self.close()
                return
            except RuntimeError as lost:
                error = lost
        message = self._lost_contact(error)
        if self.watch:
            self.watch.stop(f"{type(error).__name__}: {error}")
        signal.alarm(math.ceil(self.patience))  # whatever hangs on the way out, the process ends
        if message is not None:
            raise TrainingError(message) from error

    def close(self) -> None:
        """Waits until every process is here, then ends the communication."""
        dist.barrier(group=self.control)
        if self.watch:
            self.watch.stop()
        dist.destroy_process_group()

    def _lost_contact(self, error: BaseException) -> str | None:
        """A message for an exchange that failed because of another process."""
        if not lost_contact(error):
            return None
        said = self.watch.failure() if self.watch else None
        what = said or str(error).splitlines()[0]
        return f"rank {self.rank} has lost another process: {what}; go on with --resume"

    def _connect(self) -> None:
        on_cuda = self.device.type == "cuda"
        store = connect_store(self.rank, MEETING_TIMEOUT)
        self.job = self.job or job_of_store(store)
        name = meet(store, self.rank, self.size, MEETING_TIMEOUT)
        dist.init_process_group(
            "nccl" if on_cuda else "gloo",
            store=dist.PrefixStore(name, store),
            rank=self.rank,
            world_size=self.size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=self.device if on_cuda else None,
        )
        self.control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        # At a monitored barrier only rank 0 heeds the call's timeout, the others that of the group.
        self.gate = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.patience))
        own = connect_store(-1, timedelta(seconds=self.patience))
        self.watch = PeerWatch(dist.PrefixStore(f"{name}/peers", own), self.rank, self.size, self.patience)
        self.watch.start()


def start_world(device: str = "auto", *, patience: float = PATIENCE_S) -> World:
    """The world that torchrun's variables describe, connected; of one process without them.

    Processes other than rank 0 log warnings only. Raises ConfigError for incomplete variables and for more
    processes than devices, TrainingError when the others cannot be reached.
    """
    place = torchrun_place()
    if place is None:
        return World(pick_device(device), patience=patience)
    if not dist.is_available():
        raise ConfigError(f"WORLD_SIZE={place.size}: this torch is built without torch.distributed")
    world = World(own_device(device, place), place.rank, place.size, place.local_size, patience)
    if not world.is_main:
        logging.getLogger("fastpose").setLevel(logging.WARNING)
    try:
        world._connect()
    except RuntimeError as error:
        raise TrainingError(
            f"rank {place.rank} of {place.size} cannot reach the others through "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}"
        ) from error
    return world
