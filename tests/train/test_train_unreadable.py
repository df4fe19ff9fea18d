"""Steps without a readable sample: passed over by a process alone, filled up in one of several; resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from processes import run_ranks
from tiny_run import NAME, SETTINGS, cut_back, differences, outcome, tiny_hrnet

from fastpose.data.figures import FigureImages
from fastpose.data.sharding import ShardedSampler
from fastpose.errors import ImageError
from fastpose.models.registry import _factories, register_model
from fastpose.train.config_io import load_config
from fastpose.train.loop import Trainer
from fastpose.train.parallel.distributed import start_world
from fastpose.train.tasks.pose_data import train_table

BAD = ((0, 0), (0, 2), (1, 1))
"""(epoch, step) in which the last process of two has nothing readable: the first of the run among them."""

BATCH, EPOCHS = 4, 2


def config_of(root: Path) -> Any:
    changes = [f"train.batch_size={BATCH}", f"train.epochs={EPOCHS}", "val.every=2", "train.amp=none"]
    changes += ["data.figures.people=[1, 1]", "data.figures.train_count=12"]
    return load_config("samples/figures", [*SETTINGS, *changes, f"run.dir={root}"])


def bad_names(root: Path, world: int = 2) -> set[str]:
    """Pictures of all that the last process takes in the steps BAD; they may spoil others too."""
    config = config_of(root)
    table = train_table(config)
    options = {"shuffle": True, "seed": config.run.seed, "drop_last": True}
    sampler = ShardedSampler(len(table), BATCH, rank=world - 1, world=world, **options)
    names = set()
    for epoch, step in BAD:
        sampler.set_epoch(epoch, step)
        names |= {str(table.file_names[table.image_index[row]]) for _, row in next(iter(sampler))}
    return names


def spoil(names: set[str]) -> Any:
    """Makes these pictures unreadable; what undoes it."""
    read = FigureImages.read

    def reading(self: FigureImages, name: str) -> Any:
        if name in names:
            raise ImageError(f"{name}: spoilt")
        return read(self, name)

    FigureImages.read = reading  # type: ignore[method-assign]
    return lambda: setattr(FigureImages, "read", read)


def work(rank: int, root: Path) -> None:
    register_model(tiny_hrnet)
    spoil(bad_names(root))
    with start_world("cpu", patience=20.0) as world:
        Trainer(config_of(root), root / "train" / "tiny", world).fit()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_one_of_several_processes_gets_others_whatever_was_before(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run_ranks(work, 2, whole)
    expected = outcome(whole / "train" / "tiny")
    history = expected["progress"]["history"]
    assert [row["skipped"] for row in history] == [0] * EPOCHS
    assert all(row["unusable"] >= BATCH // 2 for row in history)
    cut_back(whole / "train" / "tiny", tmp_path, (0, 2 * BATCH))  # the next step is a bad one
    run_ranks(work, 2, tmp_path)
    found = outcome(tmp_path / "train" / "tiny")
    for result in (found, expected):
        for row in result["progress"]["history"]:
            row.pop("unusable")  # counted since the start or the resume
    assert differences(found, expected) == []


def test_a_process_alone_passes_over(tmp_path: Path) -> None:
    register_model(tiny_hrnet)
    undo = spoil(bad_names(tmp_path, world=1))
    try:
        trainer = Trainer(config_of(tmp_path), tmp_path / "train" / "tiny")
        passed = [batch is None for batch in trainer.feed.batches(0, 0)]
        later = [batch is None for batch in trainer.feed.batches(0, 2)]
    finally:
        undo()
        _factories.pop(NAME)
    assert passed[0]
    assert passed[2]
    assert later == passed[2:]
