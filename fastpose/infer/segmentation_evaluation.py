"""A segmentation network over the pictures of a table, counted into a confusion matrix."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastpose.data.annotations import OnBad
from fastpose.data.loader import make_loader
from fastpose.data.segmentation import SegmentationTable
from fastpose.data.segmentation_dataset import SegmentationDataset
from fastpose.data.sharding import RowsSampler
from fastpose.errors import ConfigError
from fastpose.infer.segmentation_forward import class_probabilities
from fastpose.metrics.segmentation import confusion_matrix
from fastpose.models import SegmentationModel

logger = logging.getLogger(__name__)


@dataclass
class SegmentationOptions:
    """How pictures are read and go through the network.

    `dtype` to `average` as in `class_probabilities`; `batch_size` pictures of one size that follow each other
    go together; `workers` processes read them; `on_bad` as in `SegmentationDataset`.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    window: tuple[int, int] | None = None
    stride_rate: float = 2 / 3
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    average: str = "softmax"
    batch_size: int = 1
    workers: int = 0
    on_bad: OnBad = "skip"


def evaluate_segmentation(
    model: SegmentationModel,
    table: SegmentationTable,
    options: SegmentationOptions,
    rows: slice | None = None,
    on_batch: Callable[[int], None] = lambda size: None,
) -> np.ndarray:
    """(C, C) int64 confusion matrix of `fastpose.metrics.segmentation` over the pictures at full size.

    `rows` are those of this process, such as `share_of` gives (default: all); the matrices of several
    processes add up to that of one. Pictures that cannot be read are left out, and logged; `on_batch(count)`
    is told of all. The network is left in eval mode.
    Raises ConfigError where network and table do not have the same classes or `batch_size` is below 1.
    """
    _check(model, table, options)
    classes = table.classes.num_classes
    confusion = np.zeros((classes, classes), np.int64)
    start, stop, _ = (rows or slice(None)).indices(len(table))
    unreadable = 0
    for pictures in _together(_samples(model, table, options, start, stop), options.batch_size):
        on_batch(len(pictures))
        usable = [sample for sample in pictures if bool(sample["usable"].all())]
        unreadable += len(pictures) - len(usable)
        if usable:
            found = _predict(model, torch.cat([sample["crop"] for sample in usable]), options)
            confusion += confusion_matrix(found, torch.cat([sample["label"] for sample in usable]), classes)
    if unreadable:
        logger.warning("%d of %d pictures could not be read and do not count", unreadable, stop - start)
    return confusion


def predict_labels(
    model: SegmentationModel, images: Iterable[np.ndarray], options: SegmentationOptions
) -> Iterator[np.ndarray]:
    """(H, W) uint8 classes of each picture (H, W, 3) uint8 BGR, the likeliest at every pixel."""
    for image in images:
        pixels = image[..., ::-1] if model.meta.channel_order == "rgb" else image
        batch = torch.from_numpy(np.ascontiguousarray(pixels))[None]
        yield _predict(model, batch, options)[0].to(torch.uint8).cpu().numpy()


def _predict(model: SegmentationModel, images: Tensor, options: SegmentationOptions) -> Tensor:
    """(B, H, W, 3) uint8 in the network's order -> (B, H, W) int64, the lowest class where some are equal."""
    return class_probabilities(
        model,
        images,
        device=options.device,
        dtype=options.dtype,
        window=options.window,
        stride_rate=options.stride_rate,
        scales=options.scales,
        flip=options.flip,
        average=options.average,
    ).argmax(1)


def _samples(
    model: SegmentationModel, table: SegmentationTable, options: SegmentationOptions, start: int, stop: int
) -> Iterator[dict[str, Tensor]]:
    if start >= stop:
        return
    dataset = SegmentationDataset(
        table,
        channel_order="bgr" if model.meta.channel_order == "bgr" else "rgb",
        crop_size=(32, 32),
        on_bad=options.on_bad,
    )
    loader = make_loader(
        dataset,
        RowsSampler(start, stop, 1),
        workers=options.workers,
        pin_memory=options.device.type == "cuda",
    )
    yield from loader


def _together(samples: Iterator[dict[str, Tensor]], count: int) -> Iterator[list[dict[str, Tensor]]]:
    """Up to `count` pictures of one size that follow each other."""
    held: list[dict[str, Tensor]] = []
    for sample in samples:
        if held and (len(held) == count or sample["crop"].shape != held[0]["crop"].shape):
            yield held
            held = []
        held.append(sample)
    if held:
        yield held


def _check(model: SegmentationModel, table: SegmentationTable, options: SegmentationOptions) -> None:
    meta, classes = model.meta, table.classes
    if meta.num_classes != classes.num_classes or (meta.classes and meta.classes.names != classes.names):
        known = meta.classes.name if meta.classes else "unnamed"
        raise ConfigError(
            f"{meta.model} knows {meta.num_classes} classes ({known}), the data {classes.num_classes} "
            f"({classes.name}); evaluate on the data that it was trained for"
        )
    if options.batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {options.batch_size}")
