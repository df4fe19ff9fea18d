"""What a row of the results counts outlives a stop in the middle of its epoch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
import torch.distributed as dist
from processes import run_ranks

from fastpose.models.registry import _factories, register_model
from fastpose.train import loop
from fastpose.train.config_io import load_config
from fastpose.train.feed import TrainFeed
from fastpose.train.parallel.distributed import start_world
from fastpose.train.saving.checkpoint import list_states
from fastpose.train.saving.progress import state_place

SETTINGS = ["train.epochs=2", "val.every=2", "train.amp=none", "train.max_bad_steps=0"]
BAD = (0, 2)
"""Batches of the first epoch without a finite gradient."""


@pytest.fixture(autouse=True)
def _tiny_network():
    register_model(tiny_run.tiny_hrnet)
    yield
    del _factories[tiny_run.NAME]


def with_trouble(batches: Any, rank: int = 0) -> Any:
    """Each batch has `rank` + 1 unusable samples, and some of the first epoch's have labels of nan."""

    def troubled(self: TrainFeed, epoch: int, start: int) -> Any:
        for number, batch in enumerate(batches(self, epoch, start), start):
            self.unusable += rank + 1
            if epoch == 0 and number in BAD:
                batch["weight"] = torch.full_like(batch["weight"], torch.nan)
            yield batch

    return troubled


def counts(folder: Path) -> list[tuple[int, int]]:
    rows = tiny_run.outcome(folder)["progress"]["history"]
    return [(row["skipped"], row["unusable"]) for row in rows]


def middle(folder: Path) -> tuple[int, int]:
    """Of a state in the first epoch, behind one of its bad batches and before another."""
    place = state_place(list_states(folder / "checkpoints")[0])
    assert place is not None
    return place


def test_counts_go_on_where_they_were(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(TrainFeed, "batches", with_trouble(TrainFeed.batches))
    with caplog.at_level(logging.WARNING, logger="fastpose"):
        whole = tiny_run.run(tmp_path / "whole", *SETTINGS)
    first, second = counts(whole)
    steps = second[1]
    assert steps >= 3
    assert (first, second) == ((len(BAD), steps), (0, steps))
    rows = [json.loads(line) for line in (whole / "skipped_steps.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["batch"]) for row in rows] == [(1, number + 1) for number in BAD]
    assert all(len(row["samples"]) == 1 and len(row["samples"][0]) == 4 for row in rows)
    said = [record.message for record in caplog.records if "step skipped" in record.message]
    assert len(said) == len(BAD)
    assert f"samples {', '.join(map(str, rows[0]['samples'][0]))}; all in" in said[0]
    tiny_run.cut_back(whole, tmp_path / "again", middle(whole))
    again = tiny_run.run(tmp_path / "again", *SETTINGS)
    assert counts(again) == [first, second]
    assert tiny_run.differences(tiny_run.outcome(again), tiny_run.outcome(whole)) == []


def work(rank: int, root: Path) -> None:
    register_model(tiny_run.tiny_hrnet)
    TrainFeed.batches = with_trouble(TrainFeed.batches, rank)  # type: ignore[method-assign]
    config = load_config(
        "samples/figures", [*tiny_run.SETTINGS, *SETTINGS, "run.device=cpu", f"run.dir={root}"]
    )
    with start_world("cpu", patience=20.0) as world:
        loop.Trainer(config, root / "train" / "tiny", world).fit()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_counts_of_several_processes_are_added_once(tmp_path):
    run_ranks(work, 2, tmp_path / "whole")
    whole = tmp_path / "whole" / "train" / "tiny"
    first, second = counts(whole)
    steps = second[1] // 3
    assert (first, second) == ((len(BAD), 3 * steps), (0, 3 * steps))
    tiny_run.cut_back(whole, tmp_path / "again", middle(whole))
    run_ranks(work, 2, tmp_path / "again")
    assert counts(tmp_path / "again" / "train" / "tiny") == [first, second]


def test_the_setting_makes_torch_deterministic(tmp_path, monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(loop, "make_deterministic", lambda: called.append("now"))
    for setting in ("false", "true"):
        config = load_config(
            "samples/figures",
            [*tiny_run.SETTINGS, f"run.dir={tmp_path}", "run.device=cpu", f"run.deterministic={setting}"],
        )
        trainer = loop.Trainer(config, tmp_path / setting)
        with trainer.states:
            pass
    assert called == ["now"]
