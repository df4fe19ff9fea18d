"""CUDA graphs played on the CPU: enough of torch.cuda to capture and replay a step without a device.

A capture records every operation that reaches a kernel, with the very tensors it read and wrote, and takes
back what it changed. A replay runs them again on the same memory. So whatever the step computes in Python
(a rate, a branch on a value, a tensor that is replaced) is frozen, as it is on a GPU; reading a value back
or making a tensor of Python numbers fails, as it does there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpose.nn import capture

aten = torch.ops.aten
READ = {aten._local_scalar_dense.default, aten.item.default}
COPIED = {aten.lift_fresh.default}  # numbers of Python that travel to the device
RUNNING_STATISTICS = {aten.native_batch_norm.default, aten._native_batch_norm_legit.default}


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.own: list[torch.UntypedStorage] = []  # held, so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READ | COPIED:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in written(func, args, kwargs):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        output = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, output))
        return output

    def take_back(self) -> None:
        for storage, values in self.before.values():
            storage.copy_(values)


def written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Tensors that an operation changes."""
    if func in RUNNING_STATISTICS:
        return [tensor for tensor in args[3:5] if tensor is not None]
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    changed = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    leaves = tree_leaves([given.get(name) for name in changed])
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()]


class Graph:
    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, output in self.operations:
                again = func(*args, **kwargs)
                for held, fresh in zip(tree_leaves(output), tree_leaves(again), strict=True):
                    if isinstance(held, Tensor) and held.data_ptr() != fresh.data_ptr():
                        held.copy_(fresh)


@contextlib.contextmanager
def graph(target: Graph, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
    assert capture_error_mode == "thread_local"
    recorder = Recorder()
    try:
        with recorder:
            yield
        target.operations = recorder.operations
    finally:
        recorder.take_back()


class Stream:
    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...


class Event:
    def __init__(self, blocking: bool = False) -> None: ...

    def record(self, stream: Any) -> None: ...

    def synchronize(self) -> None: ...


def play_cuda_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the training step takes the CPU for a device that it can capture on."""
    main = Stream()
    fakes = {
        "CUDAGraph": Graph, "graph": graph, "Stream": Stream, "Event": Event,
        "graph_pool_handle": object, "synchronize": lambda device: None, "set_stream": lambda stream: None,
        "current_stream": lambda device: main, "stream": lambda stream: contextlib.nullcontext(),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(capture, "can_capture", lambda device: True)
    monkeypatch.setattr(capture, "capture_stream", lambda device: main)
    play_rmsprop(monkeypatch)


def play_rmsprop(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's RMSprop looks where its tensors are, and adds 1 to steps on the CPU in a way of its own."""
    rmsprop = sys.modules[torch.optim.RMSprop.__module__]
    monkeypatch.setattr(rmsprop, "_get_capturable_supported_devices", lambda: ["cpu"])
    one, make = torch.tensor(1.0), torch.tensor

    def tensor(data: Any, **options: Any) -> Tensor:
        return one if options == {"device": "cpu"} and data == 1.0 else make(data, **options)

    monkeypatch.setattr(torch, "tensor", tensor)
