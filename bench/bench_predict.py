"""Prediction as users run it, many pictures: from JPEG bytes and boxes to keypoints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from bench.agreement import strict_float32
from bench.engines import onnx_side
from bench.predict_pictures import (
    SAME,
    SAME_WARPED,
    Pipeline,
    check_rivals,
    encoded,
    make_plain,
    network_of,
)
from bench.predict_sides import CropLoop, Encoded, HostProcessing, PictureLoop
from bench.rows import Case, Rows, Unavailable

THREADS_CUT = "fastpose, crops cut by the threads"
ONNX = "ONNX Runtime, one crop at a time"
LARGEST = {"cpu": 8, "cuda": 64}  # batches
rows = Rows("predict")


@dataclass(frozen=True)
class Setting:
    """size (width, height) of the crops; `threads` as of `Row`."""

    model: str
    size: tuple[int, int]
    pictures: int
    device: str
    threads: int = 1


def throughput_case(setting: Setting) -> Case:
    """In float32 on a CPU, in bfloat16 on a GPU; every side makes the flip test."""
    cv2.setNumThreads(1)
    device, on_gpu = setting.device, setting.device == "cuda"
    pictures = encoded(setting.pictures)
    network = network_of(setting.model, setting.size, device)
    pipeline = functools.partial(Pipeline, network, pictures, device=device, batch_size=LARGEST[device])
    rivals, absent = loops(setting, network, pictures)
    amp = "bf16" if on_gpu else "none"
    candidate = pipeline(amp=amp)
    own: dict[str, Pipeline] = {THREADS_CUT: pipeline(amp=amp, warp="cpu")} if on_gpu else {}
    for one in [candidate, *own.values()] if on_gpu else []:
        one.predictor.warm_up(*(1 << n for n in range(7)))

    def check() -> None:
        with strict_float32():
            got = pipeline(amp="none")()
            check_rivals(
                got, rivals, lambda name: SAME_WARPED if on_gpu or name == "Hugging Face style" else SAME
            )

    return Case(
        candidate=candidate,
        rivals={**rivals, **own},
        check=check,
        method="wall",
        items=len(pictures),
        unit="pictures",
        absent=absent,
        figures=lambda: {"people": float(sum(len(picture.boxes) for picture in pictures))},
        poison=False,  # as in bench_end_to_end.py
    )


def loops(
    setting: Setting, network: nn.Module, pictures: tuple[Encoded, ...]
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, str]]:
    """The ways of others, and those that are not to be had, with the reason."""
    size, device, given = setting.size, setting.device, list(pictures)
    plain = make_plain(network, device)
    rivals: dict[str, Callable[[], np.ndarray]] = {
        "one crop at a time": functools.partial(CropLoop(plain, size, device), given),
        "one picture at a time": functools.partial(PictureLoop(plain, size, device), given),
        "Hugging Face style": functools.partial(HostProcessing(plain, size, device), given),
    }
    if device == "cuda":
        return rivals, {}
    try:
        session: Any = onnx_side(network, torch.zeros(1, 3, *size[::-1]), "CPUExecutionProvider")
    except Unavailable as error:
        return rivals, {ONNX: str(error)}
    loop = CropLoop(lambda images: session(images.contiguous()), size, device)
    return {**rivals, ONNX: functools.partial(loop, given)}, {}


for _setting, _rank in (
    (Setting("hrnet_w18_small", (96, 128), 4, "cpu"), 0),
    (Setting("hrnet_w18_small", (96, 128), 4, "cpu", threads=0), 1),
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


@pytest.mark.parametrize("row", rows, ids=str)
def bench_predict(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
