"""How large a step is, what each process does of it, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fastpose.data.sharding import share_of
from fastpose.errors import ConfigError

BatchPer = Literal["step", "process"]
Scaling = Literal["none", "linear", "sqrt"]


@dataclass(frozen=True)
class BatchPlan:
    """`total` samples a step in all processes together, of which `share` are this one's.

    `rate` multiplies the learning rate. `drop_last` says that an epoch leaves its last incomplete batch out.
    """

    total: int
    share: int
    rate: float
    drop_last: bool

    @property
    def weight(self) -> float:
        """What this process's mean gradient counts in that of the step."""
        return self.share / self.total


def plan_batches(
    length: int,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    per: BatchPer = "step",
    scaling: Scaling = "none",
) -> BatchPlan:
    """The steps over `length` samples of process `rank` of `world`.

    `per` "step": `batch_size` is the step's, shared among the processes as evenly as it goes, so that their
    number changes neither the steps nor the rate. "process": each takes `batch_size`, and the rate grows with
    their number ("linear"), with its root ("sqrt") or not at all.

    Several processes take full batches only: they need the same number of steps, and a short last batch would
    weigh its samples more than the others. Raises ConfigError where the data does not fill one batch of
    theirs, where a step has fewer samples than processes, and for a scaling without "process".
    """
    if per == "step" and scaling != "none":
        raise ConfigError(
            f"train.lr_scaling={scaling} goes with train.batch_per=process: with batch_per=step a step has "
            "the same samples whatever the number of processes, and wants the same rate"
        )
    total = batch_size * world if per == "process" else batch_size
    if total < world:
        raise ConfigError(f"train.batch_size={batch_size} leaves some of {world} processes without a sample")
    if world > 1 and length < total:
        raise ConfigError(
            f"a step of {total} samples on {world} processes, but the training data has only {length}; "
            "lower train.batch_size or use fewer processes"
        )
    share = share_of(total, rank, world)
    rate = {"none": 1.0, "linear": float(world), "sqrt": math.sqrt(world)}[scaling]
    # Alone, a last short batch would skew BatchNorm, but less than no step at all.
    return BatchPlan(total, share.stop - share.start, rate, drop_last=length >= total)
