"""What a network computes: its operators in order, the tensors between them, and the modules they are in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fastpose.backend import use_backend

BATCH = 2  # BatchNorm in training wants more than one value a channel, even where a branch is one pixel

_KINDS = {
    "convolution": "conv",
    "relu": "relu",
    "add": "add",
    "upsample_nearest2d": "upsample",
    "native_batch_norm": "norm",
    "cudnn_batch_norm": "norm",
    "miopen_batch_norm": "norm",
    "_native_batch_norm_legit": "norm",
    "_native_batch_norm_legit_no_training": "norm",
    "_batch_norm_with_update": "norm",
}
_VIEWS = (
    "view",
    "_unsafe_view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "alias",
    "detach",
)


@dataclass(frozen=True)
class Value:
    """An image between two operators, of one sample."""

    elements: int
    channels: int


@dataclass(frozen=True)
class Op:
    """An operator of the forward pass, of one sample.

    kind: conv (any product with a weight), norm (BatchNorm), relu, add, upsample (nearest) or other.
    scope: name of the module that ran it. inputs, outputs: numbers of values. macs: multiply-adds.
    weights: elements of its weight. pointwise: a 1x1 convolution without stride, groups and bias.
    """

    kind: str
    scope: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    macs: int = 0
    weights: int = 0
    pointwise: bool = False


@dataclass
class Graph:
    """Operators and values of one sample; `parameters` counts the elements of the whole network's."""

    parameters: int
    values: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: set[int] = field(default_factory=set)

    @property
    def macs(self) -> int:
        """Multiply-adds of a forward pass of one sample."""
        return sum(op.macs for op in self.ops)

    def producers(self) -> dict[int, Op]:
        return {value: op for op in self.ops for value in op.outputs}

    def consumers(self) -> dict[int, list[Op]]:
        """Operators that read a value, once for every time they do."""
        found = defaultdict(list)
        for op in self.ops:
            for value in op.inputs:
                found[value].append(op)
        return found


def trace(model: nn.Module, size: tuple[int, int]) -> Graph:
    """Runs `model` on images (2, 3, height, width) without data, and writes down what it does.

    Args:
        model: takes (B, 3, H, W). On any device, also meta, in the mode it is in; it is not changed.
        size: (width, height) in pixels.

    Returns:
        The operators of one sample, in order. The plain layers are traced, whatever the backend, because the
        schemes say for themselves what is fused.

    Raises:
        ValueError: the network refuses the size.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected (width, height) in pixels, got {size!r}")
    names = {module: name for name, module in model.named_modules()}
    graph = Graph(sum(p.numel() for p in model.parameters()))
    with FakeTensorMode(), torch.no_grad(), use_backend("reference"):
        fakes = stand_ins(model)
        images = torch.empty(BATCH, 3, size[1], size[0], device="cpu")
        with _Recorder(graph, names, fakes, images):
            torch.func.functional_call(model, fakes, (images,))
    return graph


def stand_ins(model: nn.Module, device: str = "cpu") -> dict[str, Tensor]:
    """Parameters and buffers of the same shape without data, for `functional_call` under a FakeTensorMode."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fakes = {name: torch.empty(t.shape, dtype=t.dtype, device=device) for name, t in state.items()}
    for name, parameter in model.named_parameters():
        fakes[name].requires_grad_(parameter.requires_grad)
    return fakes


class _Recorder(TorchDispatchMode):
    """Notes every operator, the module it runs in, and which value is which Python object."""

    def __init__(
        self, graph: Graph, names: dict[nn.Module, str], state: dict[str, Tensor], images: Tensor
    ) -> None:
        super().__init__()
        self.graph = graph
        self.names = names
        self.scopes: list[str] = [""]
        self.state = {id(tensor) for tensor in state.values()}
        self.known: dict[int, int] = {}
        self.alive: list[Tensor] = []  # an address must not be given to another tensor
        self.hooks: list[Any] = []
        graph.inputs.add(self._note(images))

    def __enter__(self) -> _Recorder:
        for module, name in self.names.items():
            self.hooks.append(
                module.register_forward_pre_hook(lambda *_, name=name: self.scopes.append(name))
            )
            self.hooks.append(module.register_forward_hook(self._leave))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def _leave(self, *_: Any) -> None:
        self.scopes.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in (result if isinstance(result, tuple | list) else [result]) if _is_image(t)]
        name = func.overloadpacket.__name__
        if name in _VIEWS and id(args[0]) in self.state:
            self.state.add(id(result))
            self.alive.append(result)
        inputs = [t for t in _flat(args) if id(t) in self.known]
        if not tensors or not inputs:
            return result
        if name in _VIEWS:
            self.known[id(tensors[0])] = self.known[id(inputs[0])]
            self.alive.append(tensors[0])
            return result
        self._record(func, name, args, result, tensors, inputs)
        return result

    def _record(self, func: Any, name: str, args: Any, result: Any, tensors: Any, inputs: Any) -> None:
        kind = _KINDS.get(name.rstrip("_"), "other")
        macs = 0
        if func.overloadpacket in flop_registry:
            kind = "conv"
            macs = flop_registry[func.overloadpacket](*args, out_val=result) // (2 * BATCH)
        if kind == "add" and len(inputs) < 2:
            kind = "other"
        if kind == "norm":
            tensors = tensors[:1]
        weights = [t for t in _flat(args) if id(t) in self.state and t.ndim > 1]
        before = tuple(self.known[id(t)] for t in inputs)
        self.graph.ops.append(
            Op(
                kind,
                self.scopes[-1],
                before,
                tuple(self._note(t) for t in tensors),
                macs,
                sum(t.numel() for t in weights),
                name == "convolution" and _is_pointwise(args),
            )
        )

    def _note(self, tensor: Tensor) -> int:
        channels = tensor.shape[1] if tensor.ndim > 1 else 1
        self.graph.values.append(Value(tensor.numel() // BATCH, channels))
        self.known[id(tensor)] = len(self.graph.values) - 1
        self.alive.append(tensor)
        return self.known[id(tensor)]


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.dtype.is_floating_point


def _flat(args: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        found += _flat(arg) if isinstance(arg, tuple | list) else [arg] if isinstance(arg, Tensor) else []
    return found


def _is_pointwise(args: Any) -> bool:
    _, weight, bias, stride, padding, _, transposed, _, groups = args
    ones = all(n == 1 for n in (*weight.shape[2:], *stride)) and not any(padding)
    return ones and bias is None and groups == 1 and not transposed
