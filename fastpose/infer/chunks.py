"""Forward passes of one size and make-up, so that keypoints do not depend on how the work is split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from fastpose.data.sharding import share_of
from fastpose.infer.forward import Predictions

CHUNK = {"cpu": 4, "cuda": 32}
"""Persons in one forward pass of an evaluation. Libraries choose kernels by the batch size, and another
kernel rounds differently: hrnet_w18_small gives other bits for 16 pictures at once than for 8 (oneDNN)."""

PADDING = -1
"""`index` of the samples that only fill a chunk."""


def chunk_size(batch_size: int, device: torch.device) -> int:
    """Persons in one forward pass where the loader brings `batch_size` at a time."""
    return min(batch_size, CHUNK[device.type])


def chunk_rows(count: int, chunk: int, rank: int, world: int) -> range:
    """Rows of a table of `count` that process `rank` of `world` predicts: whole chunks, in the table's order.

    A chunk holds the same rows whatever the number of processes; a process may get none.
    """
    chunks = share_of(-(-count // chunk), rank, world)
    return range(min(chunks.start * chunk, count), min(chunks.stop * chunk, count))


def fixed_chunks(
    batches: Iterable[dict[str, torch.Tensor]], chunk: int, on_chunk: Callable[[int], None]
) -> Iterator[dict[str, torch.Tensor]]:
    """Splits batches into chunks of exactly `chunk` samples; `on_chunk(samples)` is told when one is done.

    The last chunk of a batch is filled with its own samples over again, under the index PADDING.
    """
    for batch in batches:
        for start in range(0, len(batch["index"]), chunk):
            part = {name: tensor[start : start + chunk] for name, tensor in batch.items()}
            size = len(part["index"])
            if size < chunk:
                source = torch.arange(chunk) % size
                part = {name: tensor[source] for name, tensor in part.items()}
                part["index"][size:] = PADDING
            yield part
            on_chunk(size)


def without_padding(predictions: Predictions) -> Predictions:
    """The rows that are persons of the table."""
    real = predictions.index != PADDING
    return Predictions(*(getattr(predictions, name)[real] for name in predictions.__dataclass_fields__))


def no_predictions(joints: int) -> Predictions:
    """What a process without a row contributes."""
    return Predictions(
        index=np.zeros(0, np.int64),
        keypoints=np.zeros((0, joints, 2), np.float32),
        score=np.zeros((0, joints), np.float32),
        valid=np.zeros((0, joints), bool),
        usable=np.zeros(0, bool),
    )
