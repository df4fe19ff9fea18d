"""A run small enough to be killed and started over: synthetic samples, a real sampler, real states."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import nn

from fastpose.data.sharding import ShardedSampler
from fastpose.models import ModelMeta, PoseModel
from fastpose.train.parallel.batch_plan import plan_batches
from fastpose.train.parallel.distributed import start_world
from fastpose.train.saving.checkpoint import Progress, load_state, save_state

LENGTH, BATCH, EPOCHS, SAVE_EVERY = 13, 4, 3, 2


class Small(PoseModel):
    def __init__(self) -> None:
        super().__init__(ModelMeta("small", 1))
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def sample(epoch: int, row: int) -> torch.Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(1000 * epoch + row), dtype=torch.float64)


def train(folder: Path, die_at: int = -1, *, stop_at: int = -1, patience: float = 20.0) -> None:
    """Trains in `folder` or goes on there; rank 1 is killed before step `die_at` of the run's first start.

    All stop in good order before step `stop_at`.
    """
    with start_world("cpu", patience=patience) as world:
        if world.is_main:
            with (folder / "starts.txt").open("a") as file:
                file.write(f"{world.restarts}\n")
        torch.manual_seed(1)
        model = Small()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        plan = plan_batches(LENGTH, BATCH, rank=world.rank, world=world.size)
        forward = world.wrap(model, weight=plan.weight)
        options = {"shuffle": True, "seed": 3, "drop_last": True}
        sampler = ShardedSampler(LENGTH, plan.total, rank=world.rank, world=world.size, **options)
        progress = Progress()
        if world.is_main:
            progress = load_state(folder / "states", model, optimizer, None) or progress
        world.copy_from_main({"model": model, "optimizer": optimizer})
        start, batch = world.from_main(lambda: [progress.epoch, progress.batch])
        for epoch in range(start, EPOCHS):
            sampler.set_epoch(epoch, batch)
            for keys in sampler:
                step = epoch * len(sampler) + batch
                if step == die_at and world.rank == 1 and world.restarts == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step == stop_at:
                    return
                optimizer.zero_grad()
                x = torch.stack([sample(*key) for key in keys])
                (forward(x) - x.sum(1, keepdim=True)).square().mean().backward()
                optimizer.step()
                batch += 1
                if world.is_main and batch % SAVE_EVERY == 0:
                    save_state(folder / "states", model, optimizer, None, Progress(epoch, batch))
            world.check_in_step(model, epoch, batch)
            batch = 0
        if world.is_main:
            torch.save(model.state_dict(), folder / "final.pt")


def work(rank: int, folder: Path, *, stop_at: int = -1) -> None:
    train(folder, stop_at=stop_at)
