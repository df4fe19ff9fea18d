"""Exact figures of a network's forward pass and training step, counted without a GPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.roofline import INFERENCE, TRAINING, trace, work
from fastpose.backend import use_backend
from fastpose.models import create_model
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

MODELS = ("hrnet_w18_small", "hrnet_w32", "hrnet_w48")
COMPILED = MODELS[0]
SIZE, JOINTS, BATCH = (192, 256), 17, 2
PATHS = ("layers", "kernels")

Figures = dict[str, int]


def measure(model: str) -> Figures:
    """All figures of one network, `bench.gates` says which; changes no state of the process."""
    figures: Figures = {}
    for path in PATHS:
        found = count_passes(model, path) | count_step(model, path)
        if model == COMPILED:
            found["graph breaks"] = count_graph_breaks(create_model(model).train(), path)
        figures |= {f"{path} {name}": value for name, value in found.items()}
    return figures | count_modelled(model)


class _Counter(TorchDispatchMode):
    """Counts what would launch something, and among it the registered operations of fastpose."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.calls = 0

    def figures(self, what: str, path: str) -> Figures:
        calls = {f"{what} calls": self.calls} if path == "kernels" else {}
        return {f"{what} operators": self.operators} | calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace != "prim" and not func.is_view and not any(word in name for word in _HOST_ONLY):
            self.operators += 1
            self.calls += func.namespace == "fastpose"
        return result


_HOST_ONLY = ("empty", "detach", "promote_types")


@contextlib.contextmanager
def _on(path: str) -> Iterator[None]:
    """The layers, or what runs on a GPU: Triton's answer is patched, and nothing is computed."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with contextlib.ExitStack() as stack:
        torch.use_deterministic_algorithms(False)  # it fills new memory, which is an operator more
        stack.callback(torch.use_deterministic_algorithms, deterministic, warn_only=warns)
        stack.enter_context(use_backend("reference" if path == "layers" else "auto"))
        for place, module in list(sys.modules.items()) if path == "kernels" else ():
            if place.startswith("fastpose.") and hasattr(module, "runs_on_triton"):
                stack.enter_context(mock.patch.object(module, "runs_on_triton", _yes))
        yield


def _yes(*_: object) -> bool:
    return True


def count_passes(model: str, path: str) -> Figures:
    """Of the network alone: forward, backward, and what lies between them."""
    network = _on_meta(model)
    with _on(path), FakeTensorMode():
        _take_data(network)
        known = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
        saved: dict[int, int] = {}

        def save(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in known:
                saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        images = torch.empty(BATCH, 3, SIZE[1], SIZE[0])
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor), _Counter() as forward:
            output = network(images)
        gradient = torch.empty_like(output)
        with _Counter() as backward:
            output.backward(gradient)
    figures = {"saved bytes": sum(saved.values())}
    return figures | forward.figures("forward", path) | backward.figures("backward", path)


def count_step(model: str, path: str) -> Figures:
    """Of a whole step in float32, the optimizer's state there already."""
    device = torch.device("cpu")
    config = TrainConfig(amp="none")
    network = _on_meta(model)
    with _on(path), FakeTensorMode():
        _take_data(network)
        optimizer = build_optimizer(network, config, device)
        step = TrainStep(
            network, optimizer, config, objective=HeatmapObjective(sigma=2.0), dtype=None, device=device
        )
        batch = {
            "crop": torch.empty(BATCH, SIZE[1], SIZE[0], 3, dtype=torch.uint8),
            "joints": torch.empty(BATCH, JOINTS, 2),
            "weight": torch.empty(BATCH, JOINTS),
        }
        step.run_on_device(batch)
        with _Counter() as counter:
            step.run_on_device(batch)
    return counter.figures("step", path)


def count_modelled(model: str) -> Figures:
    """Of the limit model."""
    graph = trace(_on_meta(model), SIZE)
    figures = {"multiply-adds": graph.macs}
    for kind, schemes in (("training", TRAINING), ("inference", INFERENCE)):
        for scheme in schemes:
            one = work(graph, scheme, training=kind == "training")
            figures[f"{kind} {scheme} bytes"] = one.image_bytes()
            figures[f"{kind} {scheme} kernels"] = len(one.kernels)
    return figures


def count_graph_breaks(network: Callable[..., Tensor], path: str) -> int:
    """Of the forward pass, from which torch.compile derives the backward pass without the code."""
    torch._dynamo.reset()
    counters.clear()
    with _on(path):
        torch.compile(network, backend="eager")(torch.zeros(BATCH, 3, 64, 64))
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    torch._dynamo.reset()
    if graphs + breaks == 0:
        raise RuntimeError("torch.compile traced nothing, so its graph breaks mean nothing")
    return breaks


def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, JOINTS).train()


def _take_data(network: nn.Module) -> None:
    """Parameters and buffers of the FakeTensorMode that is on: shapes on a CPU, without data."""
    for module in network.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = nn.Parameter(torch.empty(parameter.shape))
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
