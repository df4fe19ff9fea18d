"""Whether cuDNN has convolutions that take BatchNorm in: scale, bias and ReLU before, statistics after.

`python -m bench.probe_cudnn OUT.json` builds the pattern scale, bias, ReLU, 3x3 convolution, sums (genstats)
through nvidia-cudnn-frontend in bfloat16 and float16 at HRNet's widths, checks what it computes, and times it
beside the plain convolution of the same shape. OUT.json says for each what came of it, and why where nothing
did. It is no results file of bench/results: there is no row to compare.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.checks import relative_l2
from bench.engines import load
from bench.fingerprint import code, machine
from bench.measure import COLD_CACHES, last_cache, nbytes
from bench.rows import Side, Unavailable
from bench.stats import ratio
from bench.timing import interleave, make_timer

BATCH = 64
# Channels, height and width of branches of W32 and W48 at 256x192.
SHAPES = ((32, 64, 48), (48, 64, 48), (64, 32, 24), (96, 32, 24))
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCES = {torch.bfloat16: 2e-2, torch.float16: 2.5e-3}


class Inputs(NamedTuple):
    """x (B, C, H, W) and weight (C, C, 3, 3) channels_last, scale and bias (1, C, 1, 1), all of one dtype."""

    x: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor


class Outputs(NamedTuple):
    """y (B, C, H, W) in the dtype of the inputs; its sums and sums of squares (1, C, 1, 1) in float32."""

    y: Tensor
    total: Tensor
    squares: Tensor


def draw(channels: int, height: int, width: int, dtype: torch.dtype, device: str) -> Inputs:
    made = (
        torch.randn(BATCH, channels, height, width, device=device),
        torch.randn(channels, channels, 3, 3, device=device) * (9 * channels) ** -0.5,
        torch.rand(1, channels, 1, 1, device=device) + 0.5,
        torch.randn(1, channels, 1, 1, device=device),
    )
    return Inputs(*(tensor.to(dtype, memory_format=torch.channels_last) for tensor in made))


def expected_outputs(inputs: Inputs) -> Outputs:
    """The same in float32."""
    x, weight, scale, bias = (tensor.float() for tensor in inputs)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        y = F.conv2d(torch.relu(x * scale + bias), weight, padding=1)
    return Outputs(y, y.sum((0, 2, 3), keepdim=True), y.square().sum((0, 2, 3), keepdim=True))


class Pattern:
    """The pattern as one cuDNN graph for inputs like these. Raises what cuDNN raises where it has none."""

    def __init__(self, cudnn: Any, handle: Any, inputs: Inputs) -> None:
        self.cudnn, self.handle = cudnn, handle
        kind = {torch.bfloat16: "BFLOAT16", torch.float16: "HALF"}[inputs.x.dtype]
        io, exact = getattr(cudnn.data_type, kind), cudnn.data_type.FLOAT
        self.graph = cudnn.pygraph(
            io_data_type=io, intermediate_data_type=io, compute_data_type=exact, handle=handle
        )
        self.given, self.found = describe_pattern(self.graph, inputs, io, exact)

    def build(self) -> None:
        self.graph.validate()
        self.graph.build_operation_graph()
        self.graph.create_execution_plans([self.cudnn.heur_mode.A, self.cudnn.heur_mode.FALLBACK])
        self.graph.check_support()
        self.graph.build_plans()
        size = max(1, self.graph.get_workspace_size())
        self.workspace = torch.empty(size, dtype=torch.uint8, device="cuda")

    def __call__(self, *tensors: Tensor) -> Outputs:
        inputs = Inputs(*tensors)
        sums = (torch.empty(1, inputs.x.shape[1], 1, 1, device="cuda") for _ in "12")
        outputs = Outputs(torch.empty_like(inputs.x), *sums)
        self.cudnn.set_stream(handle=self.handle, stream=torch.cuda.current_stream().cuda_stream)
        bound = dict(zip([*self.given, *self.found], [*inputs, *outputs], strict=True))
        self.graph.execute(bound, self.workspace, handle=self.handle)
        return outputs


def describe_pattern(graph: Any, inputs: Inputs, io: Any, exact: Any) -> tuple[list[Any], list[Any]]:
    """Adds the nodes to a graph of cudnn-frontend; its input and output tensors in the order of ours."""
    given = [
        graph.tensor(name=name, dim=list(tensor.shape), stride=list(tensor.stride()), data_type=io)
        for name, tensor in zip(Inputs._fields, inputs, strict=True)
    ]
    x, weight, scale, bias = given
    scaled = graph.scale(name="scale", input=x, scale=scale)
    shifted = graph.bias(name="bias", input=scaled, bias=bias)
    image = graph.relu(name="relu", input=shifted)
    y = graph.conv_fprop(image=image, weight=weight, padding=[1, 1], stride=[1, 1], dilation=[1, 1])
    y.set_output(True)
    sums = graph.genstats(name="genstats", input=y)
    for one in sums:
        one.set_output(True).set_data_type(exact)
    return given, [y, *sums]


def probe(
    cudnn: Any, handle: Any, shape: tuple[int, int, int], dtype: torch.dtype, seconds: float
) -> dict[str, Any]:
    """What came of one shape: supported or not, relative errors, seconds, and the plain convolution's."""
    first = draw(*shape, dtype, "cuda")
    pattern = Pattern(cudnn, handle, first)
    try:
        pattern.build()
        outputs = pattern(*first)
        torch.cuda.synchronize()
    except Exception as error:  # cuDNN refuses with several types
        reason = (str(error).splitlines() or [""])[0][:300]
        return {"supported": False, "reason": f"{type(error).__name__}: {reason}"}
    pairs = zip(Outputs._fields, outputs, expected_outputs(first), strict=True)
    errors = {name: relative_l2(got, wanted) for name, got, wanted in pairs}
    correct = all(error <= TOLERANCES[dtype] for error in errors.values())
    found = {"supported": True, "correct": correct, "errors": errors}
    return found | (compare(pattern, first, shape, dtype, seconds) if correct else {})


def compare(
    pattern: Pattern, first: Inputs, shape: tuple[int, int, int], dtype: torch.dtype, seconds: float
) -> dict[str, Any]:
    """Median seconds of pattern and plain convolution, in turns on inputs that come from memory."""

    def plain(x: Tensor, weight: Tensor, *_: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=1)

    def apart(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        y = F.conv2d(torch.relu(torch.addcmul(bias, x, scale)), weight, padding=1)
        return y, *torch.var_mean(y, (0, 2, 3), correction=0)

    count = -(-COLD_CACHES * last_cache("cuda") // (2 * nbytes(first)))
    sets: list[tuple[Any, ...]] = [first, *(draw(*shape, dtype, "cuda") for _ in range(count - 1))]
    sides: dict[str, Side] = {"pattern": pattern, "plain convolution": plain, "one after the other": apart}
    timers = {name: make_timer("graph", side, sets, "cuda") for name, side in sides.items()}
    reading = sum(timer.warm_up() for timer in timers.values())
    rounds = interleave(timers, seconds=seconds, reading=reading).seconds
    medians = {name: sorted(column)[len(column) // 2] for name, column in rounds.items()}
    pairs = {
        name: dataclasses.asdict(ratio(column, rounds["pattern"]))
        for name, column in rounds.items()
        if name != "pattern"
    }
    return {"seconds": medians, "times as fast as": pairs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.probe_cudnn", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--seconds", type=float, default=1.0, help="timing of one shape (default: 1)")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"machine": machine(), "code": code()}
    try:
        report |= probe_all(options.seconds)
    except Unavailable as error:
        report["skipped"] = str(error)
        print(f"skipped: {error}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def probe_all(seconds: float) -> dict[str, Any]:
    """Every shape and dtype; Unavailable where there is no GPU or no cudnn-frontend."""
    if not torch.cuda.is_available():
        raise Unavailable("needs a CUDA device, and torch finds none")
    cudnn = load("cudnn", "nvidia-cudnn-frontend")
    try:
        handle, version = cudnn.create_handle(), cudnn.backend_version()
    except RuntimeError as error:
        raise Unavailable(f"nvidia-cudnn-frontend finds no cuDNN: {error}") from error
    torch.backends.cudnn.benchmark = True
    cases = []
    for shape in SHAPES:
        for name, dtype in DTYPES.items():
            found = probe(cudnn, handle, shape, dtype, seconds)
            cases.append(
                {"channels": shape[0], "height": shape[1], "width": shape[2], "dtype": name, **found}
            )
            print(json.dumps(cases[-1]))
    return {"cudnn": version, "frontend": cudnn.__version__, "batch": BATCH, "cases": cases}


if __name__ == "__main__":
    sys.exit(main())
