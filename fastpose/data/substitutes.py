"""Other samples for a batch of which not one can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose.data.handover import join_samples
from fastpose.errors import DataError

TRIES = 1000


class Substitutes:
    """Draws readable samples in place of a batch that has none.

    A process alone may pass over such a batch. One of several may not: the others wait for its gradient. A
    batch of no weight would not do, as its blank pictures would enter the BatchNorm statistics. What is drawn
    is a function of (seed, epoch, step, rank) and of the files alone: a resumed run draws the same.

    Args:
        dataset: gives sample (epoch, row) as a dict with `usable`; read in the calling process.
        seed: of the run.
        rank: of this process.
    """

    def __init__(self, dataset: Dataset[Any], *, seed: int, rank: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, rank

    def __call__(self, count: int, epoch: int, step: int) -> dict[str, torch.Tensor]:
        """A batch of `count` readable samples for step `step`, from 0, of an epoch.

        Where there are fewer, they come again. DataError when none of TRIES rows, or of all, is readable.
        """
        length = len(self.dataset)  # type: ignore[arg-type]
        rows = np.random.default_rng([self.seed, epoch, step, self.rank]).permutation(length)[:TRIES]
        found: list[Any] = []
        for row in rows.tolist():
            sample = self.dataset[epoch, row]
            if sample["usable"]:
                found.append(sample)
            if len(found) == count:
                break
        if not found:
            raise DataError(
                f"not one of {len(rows)} pictures of the training data is readable; run `fastpose check`"
            )
        return join_samples([found[place % len(found)] for place in range(count)])
