"""`Trainer` in several processes: one folder, and a killed run that ends as if nothing had been."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from processes import context, run_ranks

from fastpose.train.config_io import load_config
from fastpose.train.loop import Trainer
from fastpose.train.parallel.distributed import start_world
from fastpose.train.saving.checkpoint import list_states

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
TIMES = ("seconds", "images_per_second")
SETTINGS = [
    "data.input_size=[64, 64]", "data.figures.train_count=8", "data.figures.val_count=5", "data.workers=0",
    "train.epochs=2", "train.batch_size=4", "train.milestones=[1]", "train.schedule=step", "train.amp=none",
    "train.save_steps=2", "val.batch_size=4", "run.threads=1", "run.device=cpu", "run.tensorboard=false",
    "run.pictures_every=0",
]  # fmt: skip


def train(folder: Path, die_at: int = -1, *more: str) -> None:
    """Trains in `folder` or goes on; rank 1 is killed after `die_at` steps of the first start."""
    config = load_config("samples/figures", [*SETTINGS, *more])
    with start_world(config.run.device, patience=20.0) as world:
        trainer = Trainer(config, folder, world)
        step, taken = trainer.step.__class__.__call__, 0

        def counting(self: Any, *args: Any, **options: Any) -> None:
            nonlocal taken
            if taken == die_at and world.rank == 1 and world.restarts == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            taken += 1
            step(self, *args, **options)

        trainer.step.__class__.__call__ = counting  # a class's, as Python looks there for the call
        trainer.fit()


def work(rank: int, folder: Path, *more: str) -> None:
    train(folder, -1, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_ranks(work, 2, folder)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    """results.csv without the times."""
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_rank_0_writes_a_run_folder(whole):
    assert [row["epoch"] for row in table(whole)] == ["1", "2"]
    assert (whole / "last.safetensors").exists()
    assert list_states(whole / "checkpoints")
    assert not list(whole.rglob("*.tmp"))


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(whole, tmp_path):
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    context()
    handlers = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="run", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=1, start_method="forkserver",
    )  # fmt: skip
    try:
        elastic_launch(config, train)(tmp_path / "run", 3)
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert table(tmp_path / "run") == table(whole)


@pytest.mark.slow
def test_another_number_of_processes_goes_on(whole, tmp_path):
    folder = tmp_path / "run"
    run_ranks(work, 2, folder, "train.epochs=1")
    run_ranks(work, 3, folder, "train.epochs=2")
    rows, expected = table(folder), table(whole)
    for name in ("epoch", "lr", "loss", "accuracy"):
        assert rows[0][name] == expected[0][name]
    assert (rows[1]["epoch"], rows[1]["lr"]) == ("2", expected[1]["lr"])
    # BatchNorm sees shares of another size.
    assert float(rows[1]["loss"]) == pytest.approx(float(expected[1]["loss"]), rel=0.1)
