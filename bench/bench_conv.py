"""cuDNN's convolutions in bfloat16, channels_last, for every shape in HRNet: fprop, dgrad and wgrad alone.

No rivals: how far the library is from the limit says what a kernel of one's own could win.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.agreement import strict_float32
from bench.checks import check_close
from bench.rows import Case, Limit, Rows
from bench.shapes import Shape, distinct_convolutions

BATCH = 64
SIZE = (192, 256)
PASSES = {"fprop": None, "dgrad": [True, False, False], "wgrad": [False, True, False]}
rows = Rows("conv")


def draw(shape: Shape, batch: int, dtype: torch.dtype, draw: torch.Generator) -> tuple[Tensor, ...]:
    """Input, weight and gradient of the output, channels_last."""
    size = (batch, shape.inputs, shape.height, shape.width)
    weight = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    after = (batch, shape.outputs, shape.height // shape.stride, shape.width // shape.stride)
    fan = shape.inputs * shape.kernel**2
    scales = (size, 1.0), (weight, fan**-0.5), (after, 1.0)
    made = (torch.randn(*of, generator=draw, device=draw.device) * scale for of, scale in scales)
    return tuple(tensor.to(dtype, memory_format=torch.channels_last) for tensor in made)


def convolve(shape: Shape, which: str, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """The output, or the gradient of the input or the weight."""
    if which == "fprop":
        return F.conv2d(x, weight, None, shape.stride, shape.padding)
    stride, padding = [shape.stride] * 2, [shape.padding] * 2
    options = (None, stride, padding, [1, 1], False, [0, 0], 1, PASSES[which])
    found = torch.ops.aten.convolution_backward(grad, x, weight, *options)
    return found[0 if which == "dgrad" else 1]


def limit(shape: Shape, which: str, batch: int, dtype: torch.dtype) -> Limit:
    """Two of the three tensors read, the third written."""
    elements = batch * (shape.inputs * shape.width * shape.height + shape.outputs * shape.pixels)
    elements += shape.inputs * shape.outputs * shape.kernel**2
    name = str(dtype).removeprefix("torch.")
    return Limit(elements * dtype.itemsize, 2.0 * batch * shape.macs, dtype=name)


def case(
    shape: Shape, which: str, batch: int = BATCH, dtype: torch.dtype = torch.bfloat16, device: str = "cuda"
) -> Case:
    torch.backends.cudnn.benchmark = True
    candidate = partial(convolve, shape, which)

    def check(*tensors: Tensor) -> None:
        with strict_float32():
            expected = convolve(shape, which, *(tensor.float() for tensor in tensors))
        check_close(which, candidate(*tensors), expected)

    return Case(
        candidate=candidate,
        rivals={},
        check=check,
        inputs=partial(draw, shape, batch, dtype),
        limit=limit(shape, which, batch, dtype),
        name="cuDNN" if device == "cuda" else "PyTorch",
        items=2e-12 * batch * shape.macs,
        unit="TFLOP",
        poison=False,  # deterministic algorithms are others than those that are timed
    )


def declare() -> None:
    """All shapes of W48, and those of W32's blocks; the blocks first."""
    wide = distinct_convolutions(48, SIZE)
    narrow = [shape for shape in distinct_convolutions(32, SIZE) if shape.in_blocks and shape not in wide]
    for rank, shape in enumerate(sorted([*wide, *narrow], key=lambda shape: not shape.in_blocks)):
        for which in PASSES:
            if which != "dgrad" or shape.inputs > 3:  # nobody wants the gradient of the images
                rows(
                    f"{shape}-{which}",
                    group="convolution",
                    device="cuda",
                    what=f"{which} of {shape}, {BATCH} images, bfloat16",
                    rank=rank,
                )(partial(case, shape, which))


declare()


@pytest.mark.parametrize("row", rows, ids=str)
def bench_conv(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
