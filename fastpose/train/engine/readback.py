"""Numbers from the device without waiting for it."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


class Readback(Generic[Tag]):
    """A queue of small tensors on their way to the host.

    `push` starts a copy into pinned memory behind the work of the current stream, `ready` hands out those
    that have arrived, in order, and `wait` all of them. Only `wait` blocks. Pinned memory is used again; when
    all of it is on the way more is taken, which `Staging` bounds.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[_Slot | None, list[float], Tag]] = deque()
        self._unused: list[_Slot] = []

    def push(self, values: Tensor, tag: Tag) -> None:
        """values: (N,), float64, N the same every time; `tag` comes back with them."""
        if not values.is_cuda:
            self._queue.append((None, values.tolist(), tag))
            return
        slot = self._unused.pop() if self._unused else _new_slot(values)
        slot.host.copy_(values, non_blocking=True)
        slot.event.record(torch.cuda.current_stream(values.device))
        self._queue.append((slot, [], tag))

    def ready(self) -> list[tuple[Tag, list[float]]]:
        """What has arrived since the last call, oldest first."""
        found = []
        while self._queue and _arrived(self._queue[0][0]):
            found.append(self._take())
        return found

    def wait(self) -> list[tuple[Tag, list[float]]]:
        """Everything pushed and not handed out yet, oldest first; waits for it."""
        found = []
        while self._queue:
            slot = self._queue[0][0]
            if slot is not None:
                slot.event.synchronize()
            found.append(self._take())
        return found

    def _take(self) -> tuple[Tag, list[float]]:
        slot, values, tag = self._queue.popleft()
        if slot is not None:
            values = slot.host.tolist()
            self._unused.append(slot)
        return tag, values


class _Slot(NamedTuple):
    host: Tensor
    event: torch.cuda.Event


def _new_slot(values: Tensor) -> _Slot:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return _Slot(host, torch.cuda.Event(blocking=True))


def _arrived(slot: _Slot | None) -> bool:
    return slot is None or slot.event.query()
