"""`python -m bench.roofline hrnet_w48`: the limits of a network, as tables."""

from __future__ import annotations

import argparse
import sys

import torch

from bench.ceilings import Ceilings
from bench.roofline.kernels import Work
from bench.roofline.schemes import INFERENCE, TRAINING, work
from bench.roofline.times import practical_time, step_time
from bench.roofline.trace import Graph, trace
from fastpose.errors import FastposeError
from fastpose.models import create_model, list_models

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.copy is None) != (options.tflops is None):
        parser.error("--copy and --tflops: give both, or neither")
    schemes = INFERENCE if options.inference else TRAINING
    if options.split not in schemes:
        parser.error(f"--split: expected one of {', '.join(schemes)}, got {options.split!r}")
    try:
        with torch.device("meta"):
            model = create_model(options.model)
        graph = trace(model.train(not options.inference), options.size)
        works = {name: _work(graph, name, options) for name in schemes}
        ceilings = _ceilings(options)
        print("\n".join(_report(graph, works, ceilings, options)))
    except (FastposeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.roofline",
        description="Bytes, FLOPs and kernels of a network under named schemes, counted and not measured. "
        "With the ceilings of a machine, as the benchmarks measure them, also times.",
    )
    parser.add_argument("model", help="one of " + ", ".join(list_models()))
    parser.add_argument("--size", type=_size, default=(192, 256), help="width x height in pixels [192x256]")
    parser.add_argument("--batch", type=int, default=64, help="[64]")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of activations [bfloat16]")
    parser.add_argument("--inference", action="store_true", help="a forward pass, not a training step")
    parser.add_argument("--split", default="b", metavar="SCHEME", help="the scheme to split by part [b]")
    parser.add_argument("--copy", type=float, metavar="TB/S", help="copy bandwidth, read and written")
    parser.add_argument("--tflops", type=float, metavar="TFLOP/S", help="rate of a large matrix product")
    return parser


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected width x height such as 192x256, got {text!r}")
    return int(parts[0]), int(parts[1])


def _ceilings(options: argparse.Namespace) -> Ceilings | None:
    if options.copy is None:
        return None
    copy = options.copy * 1e12
    return Ceilings(copy, options.tflops * 1e12, read_bytes_per_s=copy, write_bytes_per_s=copy)


def _work(graph: Graph, scheme: str, options: argparse.Namespace) -> Work:
    return work(
        graph, scheme, training=not options.inference, batch=options.batch, dtype=DTYPES[options.dtype]
    )


def _report(
    graph: Graph, works: dict[str, Work], ceilings: Ceilings | None, options: argparse.Namespace
) -> list[str]:
    schemes = INFERENCE if options.inference else TRAINING
    what = "forward pass" if options.inference else "training step"
    lines = [
        f"{options.model} {options.size[0]}x{options.size[1]}, {what} of {options.batch} in {options.dtype}",
        f"{graph.macs / 1e9:.3f} GMAC an image forward, {graph.parameters / 1e6:.2f} M parameters",
        "",
        "scheme  kernels  MB/image  forward  backward  GFLOP/image"
        + ("   roofline  practical" if ceilings else ""),
    ]
    for name, one in works.items():
        bytes_ = [one.image_bytes(direction) / 1e6 for direction in (None, False, True)]
        line = f"{name:<6} {len(one.kernels):>8}  {bytes_[0]:>8.1f} {bytes_[1]:>8.1f} {bytes_[2]:>9.1f}"
        line += f" {one.flops() / 1e9:>12.2f}"
        if ceilings is not None:
            line += f" {_ms(step_time(one, ceilings))} {_ms(practical_time(one, ceilings))}"
        lines.append(f"{line}  {schemes[name][0]}")
    return [*lines, "", *_split(works[options.split], ceilings)]


def _split(whole: Work, ceilings: Ceilings | None) -> list[str]:
    lines = [f"{whole.scheme} by part    bytes    FLOPs  kernels" + ("  practical" if ceilings else "")]
    for part in whole.parts():
        one = whole.only(part)
        line = (
            f"{part:<12} {one.image_bytes() / whole.image_bytes():>7.1%}  {one.flops() / whole.flops():>7.1%}"
        )
        line += f" {len(one.kernels):>8}"
        lines.append(line + (f" {_ms(practical_time(one, ceilings))}" if ceilings is not None else ""))
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:>7.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
