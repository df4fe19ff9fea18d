"""The batches of a run: this process's share, with unreadable samples replaced and crops cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fastpose.data.loader import make_loader
from fastpose.data.sharding import ShardedSampler
from fastpose.data.substitutes import Substitutes
from fastpose.data.warp_batch import WarpFeed, warps_on_device
from fastpose.models import Network
from fastpose.train.config import Config
from fastpose.train.loading import auto_workers
from fastpose.train.parallel.batch_plan import BatchPlan
from fastpose.train.parallel.distributed import World
from fastpose.train.tasks import Task


class TrainFeed:
    """Iterates over the batches of an epoch, from any of them on.

    `steps` are the batches of an epoch, and `unusable` counts the samples that were replaced since it was set
    to 0.
    """

    def __init__(
        self, config: Config, task: Task, table: Any, model: Network, plan: BatchPlan, world: World
    ) -> None:
        on_device = warps_on_device(config.data.warp, world.device)
        dataset = task.train_dataset(table, model, parts=on_device)
        self.sampler = ShardedSampler(
            len(dataset),
            plan.total,
            rank=world.rank,
            world=world.size,
            shuffle=True,
            seed=config.run.seed,
            drop_last=plan.drop_last,
            groups=table.image_index if config.data.group_images else None,
        )
        self.loader = make_loader(
            dataset,
            self.sampler,
            workers=auto_workers(config.data.workers, world.device, world.local_size),
            pin_memory=world.device.type == "cuda",
        )
        width, height = config.data.input_size
        self.warp = (
            WarpFeed((width, height), device=world.device, channel_order=dataset.channel_order)
            if on_device
            else None
        )
        several = world.size > 1
        self.spare = Substitutes(dataset, seed=config.run.seed, rank=world.rank) if several else None
        self.steps, self.unusable = len(self.sampler), 0

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, torch.Tensor] | None]:
        """Batches `start`, `start` + 1, ... of an epoch.

        None for one without any readable sample, where this process is alone; one of several gets others.
        """
        self.sampler.set_epoch(epoch, start)
        for step, batch in enumerate(self.loader, start):
            self.unusable += replace_unusable(batch)
            if not batch["usable"].any():
                if self.spare is None:
                    yield None
                    continue
                batch = self.spare(len(batch["usable"]), epoch, step)
            yield batch if self.warp is None else self.warp(batch)


def replace_unusable(batch: dict[str, torch.Tensor]) -> int:
    """Fills the places of unreadable samples with the batch's readable ones, in order; returns how many.

    The batch keeps its size, and no blank picture reaches the BatchNorm statistics. A batch without any
    readable sample is left alone, for the caller to pass over.
    """
    usable = batch["usable"]
    bad = torch.nonzero(~usable).flatten()
    good = torch.nonzero(usable).flatten()
    if len(bad) and len(good):
        source = good[torch.arange(len(bad)) % len(good)]
        for name, tensor in batch.items():
            if name != "pixels":  # parts of pictures end to end, which the offsets tell apart
                tensor[bad] = tensor[source]
    return len(bad)
