"""Inputs for the steps of the fused sum, and how a launcher's results are held against the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tolerances import TOLERANCES
from torch import Tensor

from fastpose.reference import fuse_steps as reference

EPS = 1e-5
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
WIDTHS = {"w18": (18, 36, 72, 144), "w32": (32, 64, 128, 256), "w48": (48, 96, 192, 384)}
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # the cards of sm_86 and sm_89 have 99 KB
Case = tuple[str, tuple[Any, ...]]


def image(shape: Sequence[int], dtype: torch.dtype, channels_last: bool = True, mean: float = 0.5) -> Tensor:
    """Values of standard deviation 1; a mean other than 0 shows where it is forgotten."""
    x = (torch.randn(tuple(shape)) + mean).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def weight(outputs: int, inputs: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)


def vectors(widths: Sequence[int]) -> list[Tensor]:
    return [torch.randn(width) for width in widths]


def statistics(widths: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Means and variances as the statistics' launchers leave them: two rows of one tensor, the second of
    which begins at no multiple of 16 bytes where there are 18 channels.
    """
    pairs = [torch.stack([torch.randn(width), 0.1 + torch.rand(width)]) for width in widths]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`change` of every tensor in nested lists and tuples."""
    if isinstance(value, list | tuple):
        return type(value)(mapped(entry, change) for entry in value)
    return change(value) if isinstance(value, Tensor) else value


def flat(value: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value] if isinstance(value, Tensor) else []


def check_against_reference(got: Any, case: Case, row: str = "fuse_forward") -> None:
    """`got` has the shapes and dtypes of the reference, and its float64 values but for rounding.

    `row` names the tolerances.
    """
    step, arguments = case
    shaped = flat(getattr(reference, step)(*arguments))
    exact = flat(getattr(reference, step)(*mapped(arguments, Tensor.double)))
    assert [(x.shape, x.dtype) for x in flat(got)] == [(x.shape, x.dtype) for x in shaped]
    for ours, theirs in zip(flat(got), exact, strict=True):
        _, limit = TOLERANCES[row, str(ours.dtype).removeprefix("torch.")]
        error = torch.linalg.vector_norm(ours.double().cpu() - theirs)
        assert error <= limit * torch.linalg.vector_norm(theirs)  # false for NaN as well


def replays(launch: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether a CUDA graph captured on a side stream gives a launch's bits after its inputs have changed."""
    static = mapped(arguments, Tensor.cuda)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        launch(*static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        got = launch(*static)
    for tensor in flat(static):
        tensor.copy_(tensor.flip(0))
    expected = launch(*static)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        graph.replay()
    torch.cuda.synchronize()
    return all(torch.equal(a, b) for a, b in zip(flat(got), flat(expected), strict=True))
