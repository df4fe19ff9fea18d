"""Crops through a network to keypoints in the image: what validation and prediction share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fastpose.codecs import CODECS
from fastpose.data.affine import PIXELS_PER_SCALE
from fastpose.device import autocast
from fastpose.infer.engines import Engine
from fastpose.infer.queries import decode_queries
from fastpose.nn.normalize import MEAN, STD, Triple, normalize_crops
from fastpose.ops import decode_heatmaps
from fastpose.reference.simcc import decode_simcc


@dataclass
class Predictions:
    """One row a sample, in the order in which the samples came.

    index (N,) int64 row of the person table; keypoints (N, K, 2) float32 image pixels; score (N, K) float32
    peak heights; valid (N, K) bool, false where a map had no finite value; usable (N,) bool, false where the
    picture could not be read.
    """

    index: np.ndarray
    keypoints: np.ndarray
    score: np.ndarray
    valid: np.ndarray
    usable: np.ndarray


@dataclass
class ForwardOptions:
    """How a network is run: `flip_test` averages the mirrored picture's heatmaps in, shifted by one pixel
    unless `shift` is false (hrnet lib/core/function.py); `refine` and `blur_kernel` are those of
    `decode_heatmaps`; `cell_offset` is added to a heatmap's peak in x and y, in cells; `background` is that
    of `decode_queries`; `dtype` is that of autocast, None for float32; `mean` and `std` are the network's.
    `fastpose.models.reading.reading_of` says what the weights want."""

    device: torch.device
    flip_index: Sequence[int]
    flip_test: bool = True
    shift: bool = True
    refine: str = "quarter"
    blur_kernel: int = 11
    cell_offset: float = 0.0
    background: bool = False
    dtype: torch.dtype | None = None
    mean: Triple = MEAN
    std: Triple = STD


@torch.inference_mode()
def forward_crops(
    model: nn.Module,
    crops: torch.Tensor,
    center: torch.Tensor,
    scale: torch.Tensor,
    options: ForwardOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """crops (B, H, W, 3) uint8, center and scale (B, 2) -> keypoints (B, K, 2), score and valid (B, K).

    The mirrored crops go through the network in the same batch, and the decoder averages, finds the peaks
    and maps them back into the image, so that nothing but coordinates leaves the device. A network of queries
    is read by `decode_queries`, without shift and refinement, one of bins by `decode_simcc`.
    What an exported graph does itself (`fastpose.infer.engines`) is left to it; ConfigError where it does
    that in another way than is asked for.
    """
    device = options.device
    if isinstance(model, Engine):
        model.check(options)
        if model.spec.decode is not None:
            return model.find(crops, center, scale)
        options = replace(options, flip_test=options.flip_test and not model.spec.flip_test)
    inputs, output = _run(model, crops, options)
    kind = getattr(model, "output", "heatmaps")
    center, scale = center.to(device), scale.to(device)
    if kind == "heatmaps":
        return _decode_heatmaps(model, output, center, scale, options)
    decode = _decode_queries if kind == "queries" else _decode_bins
    return decode(output, center, scale, inputs, options)


def _run(model: nn.Module, crops: torch.Tensor, options: ForwardOptions) -> tuple[torch.Tensor, Any]:
    """The network's input (B, 3, H, W), the mirrored pictures after the others, and its output."""
    device = options.device
    if isinstance(model, Engine):
        given = torch.cat([crops, crops.flip(2)]) if options.flip_test else crops
        return given.permute(0, 3, 1, 2), model(given)
    inputs = normalize_crops(crops.to(device, non_blocking=True), options.mean, options.std)
    if options.flip_test:
        inputs = torch.cat([inputs, inputs.flip(3)]).contiguous(memory_format=torch.channels_last)
    with autocast(options.dtype, device):
        return inputs, model(inputs)


def unit_of(model: nn.Module) -> str:
    """`unit` of `decode_heatmaps` for a network; one that does not say its codec has the official one's."""
    meta = getattr(model, "meta", None)
    return CODECS[getattr(meta, "codec", "msra")].unit


def _decode_heatmaps(
    model: nn.Module, output: Any, center: torch.Tensor, scale: torch.Tensor, options: ForwardOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heatmaps, flipped = _heatmaps(model)(output)[-1], None
    if options.flip_test:
        heatmaps, flipped = heatmaps.chunk(2)
    unit = unit_of(model)
    found = decode_heatmaps(
        heatmaps,
        center,
        scale,
        flipped=flipped,
        flip_index=options.flip_index if options.flip_test else None,
        shift=options.shift,
        refine=options.refine,
        blur_kernel=options.blur_kernel,
        unit=unit,
    )
    if not options.cell_offset:
        return found
    cells = heatmaps.shape[3] - (unit != "size")  # in the crop's width
    cell = PIXELS_PER_SCALE * scale[:, :1, None].float() / max(cells, 1)
    return found._replace(keypoints=found.keypoints + options.cell_offset * cell)


def _decode_queries(
    output: Mapping[str, Any],
    center: torch.Tensor,
    scale: torch.Tensor,
    inputs: torch.Tensor,
    options: ForwardOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    height, width = inputs.shape[2:]
    last = {name: output[name] for name in ("pred_logits", "pred_coords")}
    size, background = (width, height), options.background
    if not options.flip_test:
        return decode_queries(last, center, scale, size, background=background)
    straight, mirrored = ({name: x.chunk(2)[half] for name, x in last.items()} for half in (0, 1))
    order = options.flip_index
    return decode_queries(
        straight, center, scale, size, flipped=mirrored, flip_index=order, background=background
    )


def _decode_bins(
    output: tuple[torch.Tensor, torch.Tensor],
    center: torch.Tensor,
    scale: torch.Tensor,
    inputs: torch.Tensor,
    options: ForwardOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    size = (inputs.shape[3], inputs.shape[2])
    x, y = output
    if not options.flip_test:
        return decode_simcc((x, y), center, scale, input_size=size)
    (x, other_x), (y, other_y) = x.chunk(2), y.chunk(2)
    return decode_simcc(
        (x, y),
        center,
        scale,
        input_size=size,
        flipped=(other_x, other_y),
        flip_index=options.flip_index,
        shift=options.shift,
    )


def _heatmaps(model: nn.Module) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """How to read what a network gives; one that does not say gives its heatmaps."""
    return getattr(model, "heatmaps", None) or (lambda output: [output])


def predict_batches(
    model: nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    options: ForwardOptions,
    on_batch: Callable[[int], None] = lambda size: None,
) -> Predictions:
    """Runs a loader's batches; `on_batch(size)` is told of each. The network is left in eval mode."""
    model.eval()
    rows: list[tuple[np.ndarray, ...]] = []
    for batch in batches:
        found = forward_crops(model, batch["crop"], batch["center"], batch["scale"], options)
        rows.append(
            (batch["index"].numpy(), *(tensor.cpu().numpy() for tensor in found), batch["usable"].numpy())
        )
        on_batch(len(batch["index"]))
    return Predictions(*(np.concatenate(columns) for columns in zip(*rows, strict=True)))
