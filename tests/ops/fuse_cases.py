"""Rows for the tests of the fused sum: HRNet's exchange and the end of a bottleneck, small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastpose.reference.fuse import Path, Row


def image(*shape: int, dtype: torch.dtype = torch.float32, last: bool = True) -> Tensor:
    x = torch.randn(shape).relu_().add_(0.1 * torch.randn(shape)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def make_path(x: Tensor, channels: int, *, weighted: bool = True, frozen: bool = False) -> Path:
    """Random parameters in float32, whatever the dtype of `x`; weights that bfloat16 can hold."""
    inputs = x.shape[1]
    weight = (torch.randn(channels, inputs, 1, 1) / inputs**0.5).bfloat16().float() if weighted else None
    statistics = (0.3 * torch.randn(channels), 0.5 + torch.rand(channels)) if frozen else (None, None)
    return Path(x, weight, 0.5 + torch.rand(channels), torch.randn(channels), *statistics)


def exchange_rows(
    widths: Sequence[int],
    size: tuple[int, int],
    *,
    batch: int = 2,
    num_outputs: int | None = None,
    dtype: torch.dtype = torch.float32,
    last: bool = True,
    frozen: bool = False,
) -> list[Row]:
    """The exchange of branches `widths` wide, branch 0 of `size` (H, W); `frozen`: every second path."""
    height, width = size
    shapes = [(batch, c, height >> j, width >> j) for j, c in enumerate(widths)]
    branches = [image(*shape, dtype=dtype, last=last) for shape in shapes]
    rows = []
    for i in range(num_outputs or len(widths)):
        paths = []
        for j, branch in enumerate(branches):
            if j == i:
                continue
            x = branch if j > i else image(*shapes[i], dtype=dtype, last=last)
            paths.append(make_path(x, widths[i], weighted=j > i, frozen=frozen and len(paths) % 2 == 0))
        rows.append(Row(branches[i], tuple(paths)))
    return rows


def bottleneck_rows(
    *, downsample: bool, dtype: torch.dtype = torch.float32, last: bool = True, size: tuple[int, int] = (6, 5)
) -> list[Row]:
    """The end of a bottleneck block 16 -> 40 channels, with an identity or a 1x1 shortcut from 24."""
    paths = [make_path(image(3, 16, *size, dtype=dtype, last=last), 40)]
    if downsample:
        paths.append(make_path(image(3, 24, *size, dtype=dtype, last=last), 40))
        return [Row(None, tuple(paths))]
    return [Row(image(3, 40, *size, dtype=dtype, last=last), tuple(paths))]


def cast(rows: Sequence[Row], images: torch.dtype, vectors: torch.dtype) -> tuple[list[Row], list[Tensor]]:
    """The same rows in other dtypes, as leaves of autograd; the leaves are given in a fixed order."""
    done: list[tuple[Tensor, Tensor]] = []

    def leaf(x: Tensor | None, dtype: torch.dtype, grad: bool = True) -> Tensor | None:
        if x is None:
            return None
        for old, new in done:
            if old is x:
                return new
        done.append((x, x.detach().to(dtype).requires_grad_(grad)))
        return done[-1][1]

    out = []
    for row in rows:
        identity = leaf(row.identity, images)
        paths = [
            Path(
                leaf(p.x, images),
                *(leaf(v, vectors) for v in p[1:4]),
                *(leaf(v, vectors, False) for v in p[4:]),
            )
            for p in row.paths
        ]
        out.append(Row(identity, tuple(paths)))
    return out, [new for _, new in done if new.requires_grad]


def relative_error(got: Tensor, truth: Tensor) -> float:
    got, truth = got.detach().double(), truth.detach()
    return float((got - truth).norm() / truth.norm().clamp_min(1e-30))


def detached(value: Any) -> Any:
    """As autograd's function hands it on, only without the mark of a leaf."""
    if isinstance(value, tuple | list):
        return type(value)(detached(item) for item in value)
    return value.detach() if isinstance(value, Tensor) else value


def record_calls(run: Callable[[], object]) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """(name, operator, arguments) of every step that `run` calls."""
    calls: list[tuple[str, Any, tuple[Any, ...]]] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "fastpose":
                calls.append((func._schema.name.split("::")[1], func, args))
            return func(*args, **(kwargs or {}))

    with Recorder():
        run()
    return calls


CASES = {
    "two branches": lambda **options: exchange_rows((6, 12), (8, 4), **options),
    "three branches": lambda **options: exchange_rows((4, 8, 16), (8, 12), batch=3, **options),
    "four branches": lambda **options: exchange_rows((4, 6, 9, 16), (16, 8), **options),
    "first output of four": lambda **options: exchange_rows((4, 6, 9, 16), (8, 16), num_outputs=1, **options),
}
