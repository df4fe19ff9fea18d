"""No shipped configuration of the fused sums' kernels spills: W32 and W48, both layouts, every generation."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from launches import recorded
from resources import Resources, compile_many
from step_cases import BF16, F16, F32, SHARED

pytest.importorskip("triton")

from bench.fuse_calls import step_calls
from bench.fuse_cases import network_shapes
from fastpose.ops.fuse_steps import _KERNELS

BATCH = 64
MODULES = [
    importlib.import_module(f"fastpose.kernels.{name}") for name in {*_KERNELS.values(), "pixel_products"}
]
NAMES = {F32: "f32", BF16: "bf16", F16: "f16"}
LAYOUTS = {True: "nhwc", False: "nchw"}


@contextmanager
def launches_on(capability: int) -> Iterator[list[dict[str, Any]]]:
    """Inside, launches choose the tiles of `capability`, and are listed instead of run."""
    with pytest.MonkeyPatch.context() as patch, recorded(*MODULES) as jobs:
        for module in MODULES:
            if hasattr(module, "capability"):
                patch.setattr(module, "capability", lambda device: capability)
        yield jobs


def launches(
    net: str, dtype: torch.dtype, channels_last: bool, capability: int, step: str | None = None
) -> list[dict[str, Any]]:
    """All launches of a training step of `hrnet_<net>`'s fused sums at 256x192, or those of one `step`; those
    that compile to the same code once."""
    with launches_on(capability) as jobs:
        for shape, _ in network_shapes(net):
            for call in step_calls(shape, BATCH, dtype, channels_last):
                if step in (None, call.step):
                    module = importlib.import_module(f"fastpose.kernels.{_KERNELS[call.step]}")
                    getattr(module, f"launch_{call.step}")(*call.arguments.values())
    variant = f"{net} {NAMES[dtype]} {LAYOUTS[channels_last]}"
    return list({repr(job): job | {"capability": capability, "variant": variant} for job in jobs}.values())


def spilling(jobs: list[dict[str, Any]]) -> list[tuple[str, Resources, dict[str, Any]]]:
    assert jobs
    found = zip(jobs, compile_many(jobs), strict=True)
    return [
        (job["kernel"].__name__, used._replace(ptx=""), job["constants"])
        for job, used in found
        if used.spills or used.shared > SHARED[job["capability"]]
    ]


@pytest.mark.parametrize("net", ["w32", "w48"])
def test_every_step_of_the_fused_sums_is_among_the_launches(net):
    kernels = {job["kernel"].__name__ for job in launches(net, BF16, True, 90)}
    defined = {
        name
        for module in MODULES
        for name, value in vars(module).items()
        if name.endswith("_kernel") and value.__class__.__name__ == "JITFunction"
    }
    assert kernels == defined


# What has a configuration of its own in kernels/configs.py because the usual one spills there.
SAMPLE = [
    ("w32", BF16, 80, "forward_row"),
    ("w48", BF16, 100, "backward_row"),
    ("w32", F32, 90, "cross_moments"),
]


@pytest.mark.parametrize(
    ("net", "dtype", "capability", "step"), SAMPLE, ids=[f"{n}-{NAMES[d]}-{c}-{s}" for n, d, c, s in SAMPLE]
)
def test_nchw_compiles_without_spills(net, dtype, capability, step):
    assert spilling(launches(net, dtype, False, capability, step)) == []


SWEEP = [  # other tests compile the channels_last launches of sm_80 and sm_100
    *itertools.product(("w32", "w48"), (BF16, F32), (True, False), (90,)),
    *itertools.product(("w32", "w48"), (BF16,), (False,), (80, 100)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "dtype", "channels_last", "capability"),
    SWEEP,
    ids=[f"{n}-{NAMES[d]}-{LAYOUTS[last]}-{c}" for n, d, last, c in SWEEP],
)
def test_every_launch_compiles_without_spills(net, dtype, channels_last, capability):
    assert spilling(launches(net, dtype, channels_last, capability)) == []


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 100])
def test_half_precision_rows_compile_without_spills(capability):
    assert spilling(launches("w32", F16, False, capability, "forward_row")) == []
