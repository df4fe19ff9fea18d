"""Batches on their way to the device: copied while the step before runs, into memory that never moves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

COPIES = 2


class Staging:
    """Takes host batches of one shape to fixed device tensors, which a captured graph reads.

    A batch is copied on a stream of its own into one of two slots while the step before still runs, and from
    there into `inputs` on the current stream, in front of its step: a few microseconds. The host waits only
    for a slot to be free, that is until the step two before has begun: it stays at most two steps ahead, so
    pinned batches do not pile up and a report is never old, and the device still has more than a step to do.
    Copies are asynchronous from pinned memory (`pin_memory=True` of a loader); tensors that are on the device
    already skip the slots.
    """

    def __init__(self, example: Mapping[str, Tensor], device: torch.device) -> None:
        self.device = device
        self.inputs = _empty_on(device, example)
        hosted = {name: tensor for name, tensor in example.items() if not tensor.is_cuda}
        self._slots = [_Slot(_empty_on(device, hosted)) for _ in range(COPIES)]
        self._stream = torch.cuda.Stream(device)
        self._turn = 0
        # The slots' memory may have had another owner, whose last work is on the current stream.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def put(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies `batch`, whose names, shapes and dtypes are those of the example; returns `inputs`."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % COPIES
        slot.free.synchronize()
        with torch.cuda.stream(self._stream):
            for name, held in slot.tensors.items():
                held.copy_(batch[name], non_blocking=True)
            slot.filled.record(self._stream)
        main = torch.cuda.current_stream(self.device)
        main.wait_event(slot.filled)
        for name, static in self.inputs.items():
            static.copy_(slot.tensors.get(name, batch[name]), non_blocking=True)
        slot.free.record(main)
        return self.inputs


class _Slot:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.filled = torch.cuda.Event()
        self.free = torch.cuda.Event(blocking=True)  # sleeping, not spinning: the loader needs the cores


def _empty_on(device: torch.device, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty_like(tensor, device=device) for name, tensor in example.items()}
