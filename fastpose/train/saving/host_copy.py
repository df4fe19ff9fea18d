"""States copied to host memory while the device goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Key = tuple[torch.device, torch.dtype]


class HostCopier:
    """Copies trees (dicts, lists and tuples) of tensors to the host, with their strides.

    CPU tensors are cloned. Those of a CUDA device are put in one piece there, behind the work of the current
    stream, and copied to pinned memory on a stream of its own: the host does not wait, the next step may
    write, and for the time of the copy the device holds the tree twice. The pinned memory serves every copy,
    so one must be done with before the next is made.
    """

    def __init__(self) -> None:
        self._pinned: dict[Key, Tensor] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def __call__(self, tree: Any) -> tuple[Any, Callable[[], None]]:
        """The copy, and what waits until its values are there."""
        found: dict[Key, list[Tensor]] = {}

        def collect(tensor: Tensor) -> Tensor:
            if tensor.is_cuda:
                found.setdefault((tensor.device, tensor.dtype), []).append(tensor)
            return tensor

        map_tensors(tree, collect)
        copies: dict[Key, list[Tensor]] = {}
        events: list[torch.cuda.Event] = []
        for key, tensors in found.items():
            try:
                copies[key] = self._start(key, tensors, events)
            except torch.OutOfMemoryError:
                logger.warning("too little device memory to save beside the training: a save makes it wait")
                copies[key] = [tensor.detach().cpu() for tensor in tensors]
        order = {key: iter(values) for key, values in copies.items()}

        def copied(tensor: Tensor) -> Tensor:
            return next(order[tensor.device, tensor.dtype]) if tensor.is_cuda else tensor.detach().clone()

        def wait() -> None:
            for event in events:
                event.synchronize()

        return map_tensors(tree, copied), wait

    def _start(self, key: Key, tensors: list[Tensor], events: list[torch.cuda.Event]) -> list[Tensor]:
        device, dtype = key
        flat, forms = pack(tensors)
        if key not in self._pinned or len(self._pinned[key]) < len(flat):
            self._pinned[key] = torch.empty(len(flat), dtype=dtype, pin_memory=True)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        stream = self._streams[device]
        stream.wait_stream(torch.cuda.current_stream(device))
        host = self._pinned[key][: len(flat)]
        with torch.cuda.stream(stream):
            host.copy_(flat, non_blocking=True)
            flat.record_stream(stream)
            event = torch.cuda.Event(blocking=True)
            event.record(stream)
        events.append(event)
        return unpack(host, forms)


Form = tuple[torch.Size, tuple[int, ...]]


def pack(tensors: list[Tensor]) -> tuple[Tensor, list[Form]]:
    """One (N,) tensor with the values of all in the order of their memory, and their sizes and strides."""
    flats, forms = [], []
    for tensor in tensors:
        dense = tensor.detach()
        if dense.is_contiguous():
            flat = dense.view(-1)
        elif dense.ndim == 4 and dense.is_contiguous(memory_format=torch.channels_last):
            flat = dense.permute(0, 2, 3, 1).view(-1)
        else:
            dense = dense.contiguous()
            flat = dense.view(-1)
        flats.append(flat)
        forms.append((dense.shape, dense.stride()))
    return torch.cat(flats), forms


def unpack(flat: Tensor, forms: list[Form]) -> list[Tensor]:
    """Views of what `pack` gave, shaped as its tensors were."""
    views, offset = [], flat.storage_offset()
    for size, stride in forms:
        views.append(flat.as_strided(size, stride, offset))
        offset += size.numel()
    return views


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The tree with `change` of every tensor in place of it; dicts become plain ones."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(value, change) for value in tree)
    return tree
