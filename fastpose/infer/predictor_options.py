"""The options of a `Predictor`: checked before any file is read, and made into what works by them."""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
import torch

from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import ConfigError
from fastpose.infer.cutting import PersonCutter, Warp, cuts_on_device
from fastpose.infer.follow import check_following
from fastpose.infer.forward import ForwardOptions
from fastpose.infer.graphs import CropForward
from fastpose.infer.network_in import check_test, device_for, settle
from fastpose.infer.parts import PartWarp
from fastpose.infer.pipeline import reading_threads
from fastpose.keypoints import KeypointSet
from fastpose.models import PoseModel
from fastpose.models.reading import BLUR_KERNEL
from fastpose.nn.compiling import MODES
from fastpose.reference.dark import check_blur_kernel
from fastpose.reference.decode import REFINEMENTS

CPU = torch.device("cpu")


def check_switches(**values: Any) -> None:
    """ConfigError, naming the first of the values that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ConfigError(f"{name}: expected True or False, got {value!r}")


def check_using(
    flip_test: Any, refine: Any, blur_kernel: Any, upright: Any, track: Any, smooth: Any, rate: Any
) -> None:
    """ConfigError for a refinement or kernel that `fastpose.ops.decode_heatmaps` does not have, for what is
    no switch, and for what says nothing about people from picture to picture."""
    check_switches(flip_test=flip_test, upright=upright)
    check_following(track, smooth, rate)
    if not isinstance(refine, str) or refine not in ("auto", *REFINEMENTS):
        raise ConfigError(f"refine: expected one of auto, {', '.join(REFINEMENTS)}, got {refine!r}")
    try:
        check_blur_kernel(BLUR_KERNEL if blur_kernel == "auto" else blur_kernel)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def whole_number(batch_size: Any) -> int:
    """The `batch_size` as an int, of NumPy's too; ConfigError for anything but a whole number above 0."""
    try:
        number = 0 if isinstance(batch_size, (bool, np.bool_)) else operator.index(batch_size)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"batch_size: expected a whole number above 0, got {batch_size!r}")
    return number


def named_device(device: Any) -> Any:
    """'cuda:N' for a number N, anything else as it is."""
    number = isinstance(device, (int, np.integer)) and not isinstance(device, bool)
    return f"cuda:{device}" if number else device


def check_running(
    device: Any, amp: Any, batch_size: Any, workers: Any, warp: Any, compile: Any, graph: Any, fold: Any
) -> None:
    """ConfigError for a device that is not there, and for what it, a batch or a pool of threads cannot be."""
    device = named_device(device)
    if not isinstance(device, (str, torch.device)):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    if not isinstance(amp, str):
        raise ConfigError(f"amp: expected auto, none, bf16 or fp16, got {amp!r}")
    autocast_dtype(amp, pick_device(device))  # type: ignore[arg-type]
    whole_number(batch_size)
    reading_threads(workers, CPU)
    cuts_on_device(warp, CPU)
    if not isinstance(compile, bool) and not (isinstance(compile, str) and compile in MODES):
        raise ConfigError(f"compile: expected False, True, 'default' or 'max-autotune', got {compile!r}")
    check_switches(graph=graph)
    if fold is not None and not isinstance(fold, bool):
        raise ConfigError(f"fold: expected None, True or False, got {fold!r}")


def forward_options(
    network: PoseModel,
    device: str | int,
    keypoints: KeypointSet,
    amp: str,
    flip_test: bool,
    refine: str,
    blur_kernel: int | Literal["auto"],
) -> ForwardOptions:
    """How the network is run; ConfigError where the graph of an exported one does it in another way.

    A `refine` or `blur_kernel` of 'auto' is what the weights want (`fastpose.infer.network_in.settle`), as
    all else in how their output is read. ConfigError too for a kernel that nothing would use.
    """
    place = device_for(network, named_device(device))
    reading = settle(network, refine, blur_kernel)
    options = ForwardOptions(
        place,
        keypoints.flip_index,
        flip_test=bool(flip_test),
        **reading._asdict(),
        dtype=autocast_dtype(amp, place),
        mean=network.meta.mean,
        std=network.meta.std,
    )
    check_test(network, options)
    dark = network.output == "heatmaps" and reading.refine.startswith("dark")
    if blur_kernel not in ("auto", BLUR_KERNEL) and not dark:
        raise ConfigError(
            f"blur_kernel={blur_kernel}: belongs to dark and dark_udp, and {network.meta.model} is read with "
            f"refine {reading.refine!r}; ask for one of these, or leave the kernel out"
        )
    return options


def crop_stages(
    network: PoseModel,
    placed: torch.nn.Module,
    options: ForwardOptions,
    warp: Warp,
    batch_size: int,
    compile: bool | str,
    graph: bool,
) -> tuple[PersonCutter, CropForward]:
    """What makes crops of boxes, on the CPU or in parts for the device, and what makes keypoints of them.

    placed: the network on its device, or a copy of it.
    """
    meta = network.meta
    parts = cuts_on_device(warp, options.device)
    on_device = PartWarp(meta.input_size, meta.channel_order, options.device) if parts else None
    forward = CropForward(placed, options, largest=batch_size, compile=compile, graph=graph, warp=on_device)
    return PersonCutter(meta, parts=parts), forward
