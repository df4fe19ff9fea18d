"""What more GPUs are worth in training: gradient bytes against the bandwidth of the links.

`python -m bench.scaling` prints the tables of docs/distributed.md, `--write` puts them there. Nothing here is
measured: the step is the forecast of `bench.roofline`, the links are what their makers state.
"""

from __future__ import annotations

import argparse
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.ceilings import Ceilings
from bench.roofline import practical_time, trace, work
from fastpose.models import create_model

PAGE = Path(__file__).resolve().parents[1] / "docs" / "distributed.md"
BEGIN, END = "<!-- scaling: written by `python -m bench.scaling --write` -->\n", "<!-- scaling: end -->\n"

H200 = Ceilings(4.3e12, 790e12, read_bytes_per_s=4.3e12, write_bytes_per_s=4.3e12)
MODELS, BATCH, INPUT_SIZE = ("hrnet_w32", "hrnet_w48"), 64, (192, 256)
GPUS = (1, 8, 16, 32, 64, 128, 256, 512, 1024)
BUCKET_BYTES = 25 * 2**20
BACKWARD = 2 / 3
"""Share of a step in which gradients come to be: twice the products of the forward pass."""

JITTER = 0.01
"""Standard deviation of a GPU's step, as a part of it; all wait for the slowest."""


@dataclass(frozen=True)
class Links:
    """Bytes per second that a GPU sends while it receives as many, and seconds until the first arrives.

    `inside` a machine of `gpus`, `between` machines; `reach` is the share of the stated bandwidth that
    large collectives get.
    """

    name: str
    between: float
    inside: float = 450e9
    gpus: int = 8
    reach: float = 0.8
    inside_delay: float = 20e-6
    hop_delay: float = 10e-6


FAST = Links("400 Gb/s for each GPU", between=50e9)
SLOW = Links("100 Gb/s for each machine", between=12.5e9 / 8)


def allreduce_time(count: float, gpus: int, links: Links) -> float:
    """Seconds until all have the sum of `count` bytes: scattered inside machines, summed between, gathered.

    A machine's GPUs each carry an eighth of the bytes between machines, as NCCL does.
    """
    if gpus == 1:
        return 0.0
    local, machines = min(gpus, links.gpus), math.ceil(gpus / links.gpus)
    inside = 2 * (local - 1) / local * count / (links.inside * links.reach) + links.inside_delay
    if machines == 1:
        return inside
    between = 2 * (machines - 1) / machines * (count / local) / (links.between * links.reach)
    return inside + between + 2 * math.ceil(math.log2(machines)) * links.hop_delay


def exposed_time(backward: float, buckets: int, each: float) -> float:
    """Seconds of communication after the backward pass has ended.

    The buckets fill one after the other, evenly over the backward pass, and each takes `each` seconds on the
    links, one at a time. So they are done after the first fill and all transfers, or after the backward pass
    and the last transfer, whichever is later.
    """
    return max(backward / buckets + buckets * each, backward + each) - backward


def waiting_time(step: float, gpus: int) -> float:
    """Seconds that a step takes longer because the slowest of `gpus` with normal jitter sets the pace."""
    return JITTER * step * math.sqrt(2 * math.log(gpus))


@dataclass(frozen=True)
class Forecast:
    """Seconds: of the all-reduce of all gradients, of what of it shows, of the whole step."""

    allreduce: float
    exposed: float
    step: float
    efficiency: float


def forecast(gradient_bytes: float, alone: float, gpus: int, links: Links) -> Forecast:
    """A step of `alone` seconds on one GPU, on `gpus` of them with the same batch each."""
    if gpus == 1:
        return Forecast(0.0, 0.0, alone, 1.0)
    buckets = math.ceil(gradient_bytes / BUCKET_BYTES)
    each = allreduce_time(gradient_bytes / buckets, gpus, links)
    exposed = exposed_time(BACKWARD * alone, buckets, each)
    step = alone + exposed + waiting_time(alone, gpus)
    return Forecast(buckets * each, exposed, step, alone / step)


@functools.cache
def gradient_bytes(model: str) -> int:
    """Of float32 gradients of all parameters."""
    with torch.device("meta"):
        return 4 * sum(parameter.numel() for parameter in create_model(model).parameters())


@functools.cache
def step_alone(model: str) -> float:
    """Seconds of a step on one H200, by the forecast for the fused kernels."""
    with torch.device("meta"):
        graph = trace(create_model(model).train(), INPUT_SIZE)
    return practical_time(work(graph, "f", training=True, batch=BATCH), H200)


def tables() -> str:
    """Markdown: one table for each network."""
    parts = []
    for model in MODELS:
        total, alone = gradient_bytes(model), step_alone(model)
        buckets = math.ceil(total / BUCKET_BYTES)
        parts.append(
            f"{model}: {total / 4e6:.1f} million parameters, {total / 1e6:.0f} MB of gradients in {buckets} "
            f"buckets, {1e3 * alone:.1f} ms a step of {BATCH} on one GPU.\n\n"
            f"| GPUs | samples a step | {FAST.name}: all-reduce | of it shows | step | images/s | efficiency "
            f"| {SLOW.name}: all-reduce | efficiency |\n|---|---|---|---|---|---|---|---|---|\n"
        )
        for gpus in GPUS:
            fast, slow = (forecast(total, alone, gpus, links) for links in (FAST, SLOW))
            parts[-1] += (
                f"| {gpus} | {gpus * BATCH:,} | {1e3 * fast.allreduce:.1f} ms | {1e3 * fast.exposed:.1f} ms "
                f"| {1e3 * fast.step:.1f} ms | {gpus * BATCH / fast.step:,.0f} | {fast.efficiency:.0%} "
                f"| {1e3 * slow.allreduce:.1f} ms | {slow.efficiency:.0%} |\n"
            )
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """`page` with the tables between their marks; ValueError where it has not each mark once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"page: expected one line {BEGIN.strip()!r} and one {END.strip()!r}")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text()))
    else:
        print(tables())


if __name__ == "__main__":
    main()
