"""Chunks of one size: every row once, in order, and nothing that only filled them."""

import numpy as np
import pytest
import torch

from fastpose.infer.chunks import (
    CHUNK,
    PADDING,
    chunk_rows,
    chunk_size,
    fixed_chunks,
    no_predictions,
    without_padding,
)
from fastpose.infer.forward import Predictions


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 4, 5, 31, 100])
def test_processes_take_every_row_once_in_whole_chunks(count, world):
    rows = [chunk_rows(count, 4, rank, world) for rank in range(world)]
    assert [row for part in rows for row in part] == list(range(count))
    assert all(part.start % 4 == 0 or part.start == count for part in rows)
    sizes = [-(-len(part) // 4) for part in rows]
    assert max(sizes) - min(sizes) <= 1


def test_chunks_have_one_size_and_the_padding_is_marked():
    batches = [{"index": torch.arange(start, stop), "crop": torch.arange(start, stop) * 10} for start, stop in
               ((0, 8), (8, 13))]  # fmt: skip
    told: list[int] = []
    chunks = list(fixed_chunks(batches, 4, told.append))
    assert [chunk["index"].tolist() for chunk in chunks] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, PADDING, PADDING, PADDING]
    ]  # fmt: skip
    assert chunks[-1]["crop"].tolist() == [120] * 4, "filled with what a network can take"
    assert told == [4, 4, 4, 1]
    assert batches[1]["index"].tolist() == [8, 9, 10, 11, 12], "the loader's batch is left alone"


def test_padding_is_dropped():
    index = np.array([3, PADDING, 4, PADDING])
    values = np.arange(4.0)
    kept = without_padding(Predictions(index, values[:, None, None], values[:, None], values > 1, values > 2))
    assert kept.index.tolist() == [3, 4]
    assert kept.keypoints.ravel().tolist() == kept.score.ravel().tolist() == [0.0, 2.0]
    assert kept.valid.tolist() == [False, True]


def test_no_predictions_have_the_types_of_some():
    none = no_predictions(5)
    assert [getattr(none, name).shape for name in ("index", "keypoints", "score", "valid", "usable")] == [
        (0,), (0, 5, 2), (0, 5), (0, 5), (0,)
    ]  # fmt: skip
    assert (none.keypoints.dtype, none.valid.dtype) == (np.float32, bool)


def test_small_batches_are_chunks_of_their_own():
    assert chunk_size(2, torch.device("cpu")) == 2
    assert chunk_size(64, torch.device("cpu")) == CHUNK["cpu"]
    assert chunk_size(64, torch.device("cuda", 1)) == CHUNK["cuda"]
