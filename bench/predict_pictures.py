"""Pictures as JPEG bytes, and fastpose's way from them to keypoints: what the rows of predictions share."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.predict_sides import Encoded, Network
from bench.ways import AMP, OFFICIAL, Way, make_network, place_network
from fastpose.data import coco_layout
from fastpose.data.figures import write_figures
from fastpose.device import autocast_dtype
from fastpose.infer.network_in import for_running
from fastpose.infer.predictor import Predictor
from fastpose.infer.shard_files import Record

# An untrained network has peaks as high as others, and rounding, or another warp, chooses between them.
PIXELS, SAME, SAME_WARPED = 0.5, 0.95, 0.5


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


def network_of(model: str, size: tuple[int, int], device: str) -> nn.Module:
    """In eval mode, for crops of `size` (width, height)."""
    network = make_network(model, device).eval()
    network.meta = dataclasses.replace(network.meta, input_size=size)  # type: ignore[type-var]
    return network


class Pipeline:
    """A `Predictor` over the pictures; keypoints (N, K, 2) of all people."""

    def __init__(
        self, network: nn.Module, pictures: tuple[Encoded, ...], *, device: str, amp: str, **options: Any
    ) -> None:
        # What a file of weights becomes.
        placed = for_running(network, torch.device(device), autocast_dtype(amp, torch.device(device)))
        self.predictor = Predictor(placed, detector="whole", upright=False, device=device, amp=amp, **options)
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


def check_rivals(
    got: np.ndarray, rivals: dict[str, Callable[[], np.ndarray]], wanted: Callable[[str], float]
) -> None:
    """AssertionError where fewer than `wanted(name)` of the keypoints are those of a rival."""
    for name, rival in rivals.items():
        near = share_near(got, rival())
        assert near >= wanted(name), f"{name}: {near:.1%} of the keypoints are the same"


def make_plain(network: nn.Module, device: str) -> Network:
    """The network as PyTorch runs it: in bfloat16 on a GPU, in float32 on a CPU."""
    way: Way = AMP if device == "cuda" else OFFICIAL
    placed = place_network(network, way).eval()

    def run(images: torch.Tensor) -> torch.Tensor:
        with way.running(), way.autocast(device):
            return placed(way.place(images))

    return run
