"""A fused sum run by fastpose and by the layers, eager and compiled, and whether they compute it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch._dynamo.exc
import torch._functorch.config
from torch import Tensor

from bench.checks import check_close, poisoned
from bench.fuse_cases import Layers
from fastpose.backend import use_backend
from fastpose.nn.fuse import fuse_sums

OURS = "fastpose"
COMPILE: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs", "fullgraph": True, "dynamic": False}
KINK = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 0.06}  # well above the error of an output


@dataclass
class Passed:
    """A forward pass of every side over the same images, kept for any number of backward passes."""

    images: list[Tensor]
    parameters: dict[str, list[Tensor]]  # of each side
    outputs: dict[str, list[Tensor]]  # of each side
    gradients: list[Tensor]  # of the outputs
    failed: dict[str, str]  # rivals without outputs, and why


@dataclass
class LayersSide:
    """`run(layers, images)`, called with images."""

    layers: Layers
    run: Callable[[Layers, Sequence[Tensor]], list[Tensor]]

    def __call__(self, images: Sequence[Tensor]) -> list[Tensor]:
        return self.run(self.layers, images)


def run_fused(layers: Layers, images: Sequence[Tensor]) -> list[Tensor]:
    with use_backend("triton") if images[0].is_cuda else contextlib.nullcontext():
        return fuse_sums(layers.sums(images))


def run_layers(layers: Layers, images: Sequence[Tensor]) -> list[Tensor]:
    dtype = images[0].dtype
    with torch.autocast(images[0].device.type, dtype, enabled=layers.training and dtype != torch.float32):
        return layers(images)


def make_sides(layers: Layers) -> dict[str, LayersSide]:
    """Each with its own parameters and running statistics: nobody writes what another one has saved."""
    runs = {OURS: run_fused, "eager": run_layers, "torch.compile": torch.compile(run_layers, **COMPILE)}
    return {name: LayersSide(copy.deepcopy(layers), run) for name, run in runs.items()}


def pass_forward(sides: Mapping[str, LayersSide], images: Sequence[Tensor], draw: torch.Generator) -> Passed:
    """The forward passes, on a stream of their own.

    Autograd runs a backward pass on the stream of the forward pass, and the default stream cannot take part
    in the capture of a graph.
    """
    leaves = [x.requires_grad_() for x in images]
    outputs, failed = {}, {}
    # A compiled backward pass gives away what was saved for it, but these run again.
    with _side_stream(images[0].device), torch._functorch.config.patch(donated_buffer=False):
        for name, side in sides.items():
            try:
                outputs[name] = list(side(leaves))
            except Exception as error:
                if name == OURS:
                    raise
                failed[name] = f"{type(error).__name__}: {error}"
    gradients = [torch.randn(y.shape, generator=draw, device=y.device).to(y) for y in outputs[OURS]]
    parameters: dict[str, list[Tensor]] = {n: list(side.layers.parameters()) for n, side in sides.items()}
    return Passed(leaves, parameters, outputs, gradients, failed)


def backward(side: str, passed: Passed) -> tuple[Tensor, ...]:
    """Gradients of the images and of the parameters.

    Raises:
        RuntimeError: the side's forward pass failed.
    """
    if side in passed.failed:
        raise RuntimeError(passed.failed[side])
    leaves = [*passed.images, *passed.parameters[side]]
    return torch.autograd.grad(passed.outputs[side], leaves, passed.gradients, retain_graph=True)


def check_forward(sides: Mapping[str, LayersSide], images: Sequence[Tensor]) -> None:
    """AssertionError unless the sides give the outputs, and fastpose the statistics, of float64 layers."""
    layers = sides[OURS].layers
    expected = _wide_outputs(layers, images)
    _check_sides(sides, images, images[0].dtype, {f"output {i}": y for i, y in enumerate(expected)})
    if layers.training:
        _check_statistics(layers, images)


def check_backward(sides: Mapping[str, LayersSide], passed: Passed) -> None:
    """AssertionError unless the sides give the gradients of the layers in float64.

    An output within rounding of zero may end up on either side of the ReLU, and one of ten million that does
    is an error of 3e-4; so outputs near zero get no gradient.
    """
    wide = copy.deepcopy(sides[OURS].layers).double()
    images = [x.detach().double().requires_grad_() for x in passed.images]
    outputs = wide(images)
    gradients = list(passed.gradients)
    kink = KINK[gradients[0].dtype]
    for of_side in (outputs, *passed.outputs.values()):
        gradients = [torch.where((y > 0) & (y < kink), 0, g) for y, g in zip(of_side, gradients, strict=True)]
    names = [*(f"image {i}" for i in range(len(images))), *(name for name, _ in wide.named_parameters())]
    leaves = [*images, *wide.parameters()]
    expected = torch.autograd.grad(outputs, leaves, [g.double() for g in gradients])
    runs = {name: partial(backward, name) for name in sides}
    wanted = {f"gradient of {name}": g for name, g in zip(names, expected, strict=True)}
    _check_sides(runs, replace(passed, gradients=gradients), gradients[0].dtype, wanted)


def _check_sides(
    sides: Mapping[str, Any], inputs: Any, dtype: torch.dtype, expected: Mapping[str, Tensor]
) -> None:
    """Fastpose to its precision and to 1.5 times the error of the layers.

    The layers themselves to a percent or two in any dtype: in float32 cuDNN takes TF32.
    """
    with poisoned():
        ours = sides[OURS](inputs)
    others = {"eager": sides["eager"](inputs)}
    with contextlib.suppress(
        torch._dynamo.exc.TorchDynamoException, RuntimeError
    ):  # recorded when it warms up
        others["torch.compile"] = sides["torch.compile"](inputs)
    for i, (name, wanted) in enumerate(expected.items()):
        eager = None if dtype == torch.float32 else others["eager"][i]
        check_close(name, ours[i], wanted, dtype=dtype, eager=eager)
        for other, got in others.items():
            check_close(f"{name} of {other}", got[i], wanted, dtype=torch.bfloat16)


def _check_statistics(layers: Layers, images: Sequence[Tensor]) -> None:
    """The running averages after one call, which with a momentum of 1 are the statistics of the batch."""
    ours, wide = copy.deepcopy(layers), copy.deepcopy(layers).double()
    for norm in (*ours.norms, *wide.norms):
        norm.momentum = 1.0
    with poisoned():
        run_fused(ours, images)
    _wide_outputs(wide, images)
    for (name, mine), wanted in zip(ours.named_buffers(), wide.buffers(), strict=True):
        check_close(name, mine, wanted, dtype=images[0].dtype)


@torch.no_grad()
def _wide_outputs(layers: Layers, images: Sequence[Tensor]) -> list[Tensor]:
    wide = layers if layers.norms[0].weight.dtype == torch.float64 else copy.deepcopy(layers).double()
    return wide([x.double() for x in images])


@contextlib.contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)
