"""Prediction as users run it: from JPEG bytes and boxes to keypoints, and the latency of a few crops."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from bench.engines import onnx_side
from bench.official_decode import final_preds
from bench.official_feed import to_network
from bench.predict_sides import CropLoop, Encoded, HostProcessing
from bench.profiled import device_figures
from bench.rows import Case, Rows, Unavailable
from bench.ways import AMP, OFFICIAL, Forward, Way, make_network, place_network
from fastpose.data import coco_layout
from fastpose.data.figures import write_figures
from fastpose.infer.folded import folded
from fastpose.infer.forward import ForwardOptions
from fastpose.infer.graphs import CropForward
from fastpose.infer.predictor import Predictor
from fastpose.infer.shard_files import Record
from fastpose.infer.stages import Crops
from fastpose.keypoints import COCO_17

# An untrained network has peaks as high as others, and rounding, or another warp, chooses between them.
PIXELS, SAME, SAME_WARPED = 0.5, 0.95, 0.5
COMPILED = Way(precision="cast", compile="max-autotune")  # with CUDA graphs of its own
rows = Rows("predict")


@dataclass(frozen=True)
class Setting:
    """size (width, height) of the crops; `threads` as of `Row`."""

    model: str
    size: tuple[int, int]
    pictures: int
    device: str
    threads: int = 1


@functools.cache
def encoded(count: int) -> tuple[Encoded, ...]:
    """Rendered figures as JPEG files of COCO's size, with the boxes of their people."""
    with tempfile.TemporaryDirectory(prefix="bench_predict_") as folder:
        write_figures(Path(folder), count, image_size=(640, 480))
        annotations, images = coco_layout(folder, "train2017")
        told = json.loads(annotations.read_text())
        files = {image["id"]: images / image["file_name"] for image in told["images"]}
        boxes: dict[int, list[list[float]]] = {}
        for person in told["annotations"]:
            boxes.setdefault(person["image_id"], []).append(person["bbox"])
        return tuple(
            Encoded(files[image].read_bytes(), np.array(rows, float)) for image, rows in boxes.items()
        )


class Pipeline:
    """A `Predictor` over the pictures; keypoints (N, K, 2) of all people."""

    def __init__(self, network: nn.Module, pictures: tuple[Encoded, ...], **options: Any) -> None:
        # What a file of weights becomes: on a CPU without BatchNorm.
        placed = folded(network) if options["device"] == "cpu" else network
        self.predictor = Predictor(placed, detector="whole", upright=False, **options)
        self.records = [
            Record(str(number), picture.data, boxes=picture.boxes) for number, picture in enumerate(pictures)
        ]

    def __call__(self) -> np.ndarray:
        items = (record.item(number, "bench", upright=False) for number, record in enumerate(self.records))
        return np.concatenate([result.keypoints.xy for result in self.predictor.run_items(items)])


def share_near(got: np.ndarray, expected: np.ndarray) -> float:
    """Of the keypoints, how many are the same; those that neither has count."""
    assert got.shape == expected.shape, f"keypoints: shape {got.shape}, expected {expected.shape}"
    same = (np.abs(got - expected) <= PIXELS).all(axis=-1)
    return float((same | np.isnan(got).all(axis=-1)).mean())


def throughput_case(setting: Setting) -> Case:
    """In float32 on a CPU, in bfloat16 on a GPU; every side makes the flip test."""
    cv2.setNumThreads(1)
    pictures = encoded(setting.pictures)
    people = sum(len(picture.boxes) for picture in pictures)
    network, on_gpu = make_network(setting.model, setting.device).eval(), setting.device == "cuda"
    network.meta = dataclasses.replace(network.meta, input_size=setting.size)  # type: ignore[type-var]
    amp = "bf16" if on_gpu else "none"
    pipeline = functools.partial(
        Pipeline, network, pictures, device=setting.device, batch_size=64 if on_gpu else 8
    )
    plain = make_plain(network, AMP if on_gpu else OFFICIAL, setting.device)
    rivals: dict[str, Callable[[], np.ndarray]] = {
        "one crop at a time": functools.partial(
            CropLoop(plain, setting.size, setting.device), list(pictures)
        ),
        "Hugging Face style": functools.partial(
            HostProcessing(plain, setting.size, setting.device), list(pictures)
        ),
    }
    absent: dict[str, str] = {}
    if not on_gpu:
        try:
            session = onnx_side(network, torch.zeros(1, 3, *setting.size[::-1]), "CPUExecutionProvider")
            loop = CropLoop(lambda images: session(images.contiguous()), setting.size, "cpu")  # type: ignore[arg-type, return-value]
            rivals["ONNX Runtime, one crop at a time"] = functools.partial(loop, list(pictures))
        except Unavailable as error:
            absent["ONNX Runtime, one crop at a time"] = str(error)

    def check() -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            got = pipeline(amp="none")()
            for name, rival in rivals.items():
                wanted = SAME_WARPED if "Hugging" in name or on_gpu else SAME
                assert (near := share_near(got, rival())) >= wanted, f"{name}: {near:.1%} the same"

    candidate = pipeline(amp=amp)
    if on_gpu:
        candidate.predictor.warm_up(*(1 << n for n in range(7)))
    return Case(
        candidate=candidate,
        rivals=rivals,
        check=check,
        method="wall",
        items=people,
        unit="people",
        absent=absent,
        poison=False,  # as in bench_end_to_end.py
    )


def make_plain(network: nn.Module, way: Way, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as PyTorch runs it."""
    placed = place_network(network, way).eval()

    def run(images: torch.Tensor) -> torch.Tensor:
        with way.running(), way.autocast(device):
            return placed(way.place(images))

    return run


class Latency:
    """Crops in memory to keypoints in memory; `check` has a form that does without low precision."""

    def __init__(self, network: nn.Module, device: str, batch: int, *, low: bool, graph: bool = True) -> None:
        dtype = torch.bfloat16 if low else None
        options = ForwardOptions(torch.device(device), COCO_17.flip_index, flip_test=False, dtype=dtype)
        way = Way(precision="cast" if low else "float32")
        placed = place_network(folded(network) if device == "cpu" else network, way).eval()
        self.forward = CropForward(placed, options, largest=batch, graph=graph)

    def __call__(self, crops: Crops) -> np.ndarray:
        return self.forward(crops)().xy


class PlainLatency:
    """The same in the usual steps: crops normalised on the host, the network, decoding on the host."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
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


def latency_case(model: str, size: tuple[int, int], batch: int, device: str) -> Case:
    """Without the flip test, as in an application that waits for the answer."""
    network, on_gpu = make_network(model, device).eval(), device == "cuda"
    plain = {"PyTorch": make_plain(network, AMP if on_gpu else OFFICIAL, device)}
    absent: dict[str, str] = {}
    if on_gpu:
        plain["torch.compile with CUDA graphs"] = Forward(network, COMPILED)
    else:
        try:
            plain["ONNX Runtime"] = onnx_side(  # type: ignore[assignment]
                network, torch.zeros(batch, 3, size[1], size[0]), "CPUExecutionProvider"
            )
        except Unavailable as error:
            absent["ONNX Runtime"] = str(error)
    rivals = {name: PlainLatency(run, device) for name, run in plain.items()}
    candidate = Latency(network, device, batch, low=on_gpu)

    def check(crops: Crops) -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            got = Latency(network, device, batch, low=False, graph=False)(crops)
            for name, rival in rivals.items():
                near, wanted = share_near(got, rival(crops)), SAME_WARPED if on_gpu else SAME
                assert near >= wanted, f"{name}: {near:.1%} of the keypoints are the same"

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


for _setting, _rank in (
    (Setting("hrnet_w18_small", (96, 128), 8, "cpu"), 0),
    (Setting("hrnet_w18_small", (96, 128), 8, "cpu", threads=0), 1),
    (Setting("hrnet_w48", (192, 256), 512, "cuda"), 0),
):
    _name = f"{_setting.model.removeprefix('hrnet_').replace('_', '-')}-{_setting.size[1]}x{_setting.size[0]}"
    _cores = {"cpu": ", one core" if _setting.threads else ", all cores", "cuda": ""}[_setting.device]
    rows(
        f"jpeg-{_name}{'' if _setting.threads else '-cores'}",
        group="end_to_end",
        device=_setting.device,
        what=f"JPEG bytes and boxes to keypoints, {_setting.model} at {_setting.size[1]}x{_setting.size[0]}, "
        f"{_setting.pictures} pictures, flip test{_cores}",
        rank=_rank,
        threads=_setting.threads,
        headline=_rank == 0,
    )(functools.partial(throughput_case, _setting))
for _model, _size, _batch, _device in (
    ("hrnet_w18_small", (96, 128), 1, "cpu"),
    *itertools.product(("hrnet_w32", "hrnet_w48"), ((192, 256),), (1, 8), ("cuda",)),
):
    _name = f"{_model.removeprefix('hrnet_').replace('_', '-')}-{_size[1]}x{_size[0]}-b{_batch}"
    rows(
        f"latency-{_name}",
        group="end_to_end",
        device=_device,
        what=f"crops to keypoints, {_model} at {_size[1]}x{_size[0]}, batch {_batch}, no flip test",
        rank=2,
        headline=_device == "cuda" and _batch == 1,
    )(functools.partial(latency_case, _model, _size, _batch, _device))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_predict(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
