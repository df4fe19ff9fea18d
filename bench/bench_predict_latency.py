"""How long the keypoints of a few people take: from JPEG bytes, from crops, and the forward alone."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from bench.agreement import strict_float32
from bench.bench_forward import OWN, RIVALS
from bench.bench_forward import case as forward_case
from bench.engines import onnx_side
from bench.official_decode import final_preds
from bench.official_feed import to_network
from bench.predict_pictures import (
    SAME,
    SAME_WARPED,
    Pipeline,
    check_rivals,
    encoded,
    make_plain,
    network_of,
)
from bench.predict_sides import Encoded, Network, PictureLoop
from bench.profiled import device_figures
from bench.rows import Case, Rows, Unavailable
from bench.ways import Forward, Way
from fastpose.infer.forward import ForwardOptions
from fastpose.infer.graphs import CropForward
from fastpose.infer.network_in import for_running
from fastpose.infer.stages import Crops
from fastpose.keypoints import COCO_17

COMPILED = Way(precision="cast", compile="max-autotune")  # with CUDA graphs of its own
ONNX = "ONNX Runtime"
GPU_SIZE = (192, 256)
rows = Rows("predict")


class Latency:
    """Crops in memory to keypoints in memory; `check` has a form that does without low precision."""

    def __init__(self, network: nn.Module, device: str, batch: int, *, low: bool, graph: bool = True) -> None:
        place, dtype = torch.device(device), torch.bfloat16 if low else None
        options = ForwardOptions(place, COCO_17.flip_index, flip_test=False, dtype=dtype)
        placed: Any = for_running(network, place, dtype)
        placed = placed.to(memory_format=torch.channels_last)
        self.forward = CropForward(placed, options, largest=batch, graph=graph)

    def __call__(self, crops: Crops) -> np.ndarray:
        return self.forward(crops)().xy


class PlainLatency:
    """The same in the usual steps: crops normalised on the host, the network, decoding on the host."""

    def __init__(self, network: Network, device: str) -> None:
        self.network, self.device = network, device

    @torch.no_grad()
    def __call__(self, crops: Crops) -> np.ndarray:
        images = torch.stack([to_network(crop) for crop in crops.pixels]).to(self.device)
        heatmaps = self.network(images).float().cpu().numpy()
        return final_preds(heatmaps, crops.center, crops.scale)[0]


def draw_crops(batch: int, size: tuple[int, int], draw: torch.Generator) -> tuple[Crops]:
    rng = np.random.default_rng(draw.initial_seed())
    pixels = rng.integers(0, 255, (batch, size[1], size[0], 3), np.uint8)
    return (Crops(pixels, np.full((batch, 2), 100, np.float32), np.ones((batch, 2), np.float32)),)


def plain_networks(
    network: nn.Module, size: tuple[int, int], batch: int, device: str, *, compiled: bool
) -> tuple[dict[str, Network], dict[str, str]]:
    """The network as others run it, and what is not to be had, with the reason."""
    plain: dict[str, Network] = {"PyTorch": make_plain(network, device)}
    if device == "cuda":
        if compiled:
            plain["torch.compile with CUDA graphs"] = Forward(network, COMPILED)
        return plain, {}
    try:
        session: Any = onnx_side(network, torch.zeros(batch, 3, *size[::-1]), "CPUExecutionProvider")
    except Unavailable as error:
        return plain, {ONNX: str(error)}
    return {**plain, ONNX: lambda images: session(images.contiguous())}, {}


def crops_case(model: str, size: tuple[int, int], batch: int, device: str) -> Case:
    """Without the flip test, as in an application that waits for the answer."""
    network, on_gpu = network_of(model, size, device), device == "cuda"
    plain, absent = plain_networks(network, size, batch, device, compiled=True)
    rivals = {name: PlainLatency(run, device) for name, run in plain.items()}
    candidate = Latency(network, device, batch, low=on_gpu)

    def check(crops: Crops) -> None:
        with strict_float32():
            got = Latency(network, device, batch, low=False, graph=False)(crops)
            given: dict[str, Callable[[], np.ndarray]] = {
                name: functools.partial(rival, crops) for name, rival in rivals.items()
            }
            check_rivals(got, given, lambda name: SAME_WARPED if on_gpu else SAME)

    return Case(
        candidate=candidate,
        rivals=rivals,
        check=check,
        inputs=functools.partial(draw_crops, batch, size),
        method="wall",
        cold=False,
        items=batch,
        unit="crops",
        absent=absent,
        poison=False,
        figures=functools.partial(device_figures, candidate, draw_crops(batch, size, torch.Generator()))
        if on_gpu
        else None,
    )


def jpeg_case(model: str, size: tuple[int, int], people: int, device: str) -> Case:
    """One picture with so many people; no flip test, no threads, in bfloat16 on a GPU."""
    cv2.setNumThreads(1)
    network, on_gpu = network_of(model, size, device), device == "cuda"
    picture = crowd(people)
    plain, absent = plain_networks(network, size, people, device, compiled=False)
    rivals: dict[str, Callable[[], np.ndarray]] = {
        name: functools.partial(PictureLoop(run, size, device, flip=False), [picture])
        for name, run in plain.items()
    }
    pipeline = functools.partial(
        Pipeline, network, (picture,), device=device, flip_test=False, batch_size=people, workers=0
    )
    candidate = pipeline(amp="bf16" if on_gpu else "none")
    if on_gpu:
        candidate.predictor.warm_up(people)

    def check() -> None:
        with strict_float32():
            check_rivals(pipeline(amp="none")(), rivals, lambda name: SAME_WARPED if on_gpu else SAME)

    return Case(
        candidate=candidate,
        rivals=rivals,
        check=check,
        method="wall",
        cold=False,
        items=people,
        unit="people",
        absent=absent,
        poison=False,
    )


def crowd(people: int) -> Encoded:
    """A rendered picture with the boxes of so many people: its own, moved by a few pixels."""
    picture = encoded(1)[0]
    boxes = np.resize(picture.boxes, (people, 4))
    boxes[:, :2] += np.arange(people)[:, None]
    return Encoded(picture.data, boxes)


def few_images_case(model: str, batch: int) -> Case:
    """Batches of 4 and 8 beside those of `bench_forward`: the network alone, as one graph with its branches
    side by side, against torch.compile with CUDA graphs."""
    return forward_case(
        "cuda", model, GPU_SIZE, batch, {**OWN, "max-autotune": RIVALS["max-autotune"]}, engines={}
    )


def declare(
    kind: str, what: str, case: Callable[[], Case], row: tuple[str, tuple[int, int], int, str]
) -> None:
    model, size, batch, device = row
    name = f"{model.removeprefix('hrnet_').replace('_', '-')}-{size[1]}x{size[0]}-b{batch}"
    rows(
        f"{kind}-{name}",
        group="end_to_end",
        device=device,
        what=f"{what}, {model} at {size[1]}x{size[0]}, batch {batch}, no flip test",
        rank=2,
        headline=kind == "latency" and device == "cuda" and batch == 1,
    )(case)


_small = [("hrnet_w18_small", (96, 128), batch, "cpu") for batch in (1, 4, 8)]
_large = [
    (model, GPU_SIZE, batch, "cuda")
    for model, batch in itertools.product(("hrnet_w32", "hrnet_w48"), (1, 4, 8))
]
for _row in _small[:1] + _large:
    declare("latency", "crops to keypoints", functools.partial(crops_case, *_row), _row)
for _row in _small + _large[:3]:
    declare(
        "latency-jpeg",
        "JPEG bytes and boxes of a picture to keypoints",
        functools.partial(jpeg_case, *_row),
        _row,
    )
for _row in _large:
    if _row[2] > 1:
        declare(
            "latency-forward", "forward alone", functools.partial(few_images_case, _row[0], _row[2]), _row
        )


@pytest.mark.parametrize("row", rows, ids=str)
def bench_predict_latency(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
