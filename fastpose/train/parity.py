"""What a checkpoint is: do its names fit, how is it fed, does it compute here what plain PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpose.backend import use_backend
from fastpose.data.affine import get_affine_transform, warp_crop
from fastpose.data.figures import read_figures
from fastpose.device import autocast, autocast_dtype
from fastpose.models import Network, SegmentationModel
from fastpose.models.checkpoint_formats import read_checkpoint
from fastpose.nn.normalize import normalize_crops
from fastpose.train.tasks.conventions import OTHER_ORDER

CROPS = 4
SEED = 20
IMAGE = (256, 256)


@dataclass
class Names:
    """How a file's tensors meet a network's: `matched` fit in name and shape, and none is missing."""

    file_tensors: int
    matched: int
    unused: list[str]
    parameters: int


@dataclass
class Difference:
    """Of one way to compute from float64 in plain PyTorch: `relative` is in L2, `largest` absolute, and
    `moved` the share of heatmap peaks, or of pixels' classes, that are elsewhere (None for queries)."""

    way: str
    relative: float
    largest: float
    moved: float | None


def compare_names(model: Network, weights: Path) -> Names:
    """Of a file that `model` has loaded."""
    found, unused = model.adapt_names(read_checkpoint(weights).tensors)
    own = model.state_dict()
    matched = [name for name in found if name in own and found[name].shape == own[name].shape]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Names(len(found) + len(unused), len(matched), unused, parameters)


def figure_crops(input_size: tuple[int, int], count: int = CROPS) -> np.ndarray:
    """(count, H, W, 3) uint8 BGR crops of rendered figures, always the same."""
    width, height = input_size
    table = read_figures(count, seed=SEED, aspect_ratio=width / height, image_size=IMAGE)
    crops = []
    for row in range(count):
        image = table.images.read(str(table.file_names[table.image_index[row]]))
        matrix = get_affine_transform(table.center[row], table.scale[row], 0.0, input_size)
        crops.append(warp_crop(image, matrix, input_size))
    return np.stack(crops)


def compare_forward(model: Network, device: torch.device) -> list[Difference]:
    """Every way of running a network here against float64 in plain PyTorch, on crops of rendered figures.

    The network's own channel order and normalisation are used; the last row feeds the other order, which
    shows how much hangs on it. `model` is left as it was, in eval mode on `device`.
    """
    meta = model.eval().to(device).meta
    bgr = figure_crops(meta.input_size)
    order = meta.channel_order
    crops = {"bgr": bgr, "rgb": np.ascontiguousarray(bgr[..., ::-1])}
    inputs = {
        name: normalize_crops(torch.from_numpy(crop), meta.mean, meta.std).to(device)
        for name, crop in crops.items()
    }
    with use_backend("reference"):
        truth = _run(model.double(), inputs[order].double())
        model.float()
        plain = _run(model, inputs[order].contiguous())
        swapped = _run(model, inputs[OTHER_ORDER[order]].contiguous())
    ways = {"float32, plain PyTorch": plain}
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ways["float32, channels_last and kernels"] = _run(model, inputs[order])
    dtype = autocast_dtype("auto", device)
    if dtype is not None:
        name = str(dtype).removeprefix("torch.")
        ways[f"{name}, channels_last and kernels"] = _run(model, inputs[order], dtype)
    ways[f"float32, pixels fed as {OTHER_ORDER[order].upper()}"] = swapped
    classes = isinstance(model, SegmentationModel)
    return [_difference(way, got, truth, classes) for way, got in ways.items()]


@torch.inference_mode()
def _run(model: nn.Module, inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The final maps (B, K, h, w), the coordinates (B, Q, 2) of queries or the bins of x and then y
    (B, K, bins), in float64 on the CPU."""
    network: Any = model
    with autocast(dtype, inputs.device):
        output = network(inputs)
    if isinstance(output, tuple):
        return torch.cat(output, dim=-1).double().cpu()
    read: Callable[[Any], list[Tensor]] = getattr(network, "heatmaps", lambda maps: [maps])
    final = output["pred_coords"] if isinstance(output, dict) else read(output)[-1]
    return final.double().cpu()


def _difference(way: str, got: Tensor, truth: Tensor, classes: bool) -> Difference:
    error = got - truth
    moved = None
    if truth.ndim == 4:
        # The class of a place is the highest of all maps there, a peak is the highest place of one map.
        flat, across = [maps.flatten(2) for maps in (got, truth)], 1 if classes else 2
        moved = float((flat[0].argmax(across) != flat[1].argmax(across)).double().mean())
    norm = float(torch.linalg.vector_norm(truth)) or 1.0
    return Difference(way, float(torch.linalg.vector_norm(error)) / norm, float(error.abs().max()), moved)
