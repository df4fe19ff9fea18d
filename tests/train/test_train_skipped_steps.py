"""A skipped step in several processes: said once, with the samples of all of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import run_ranks

from fastpose.errors import OutputError, TrainingError
from fastpose.train.engine.bad_steps import BadSteps, Place
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.parallel.skipped_steps import FILE, SkippedSteps, lists_of_all

CPU = torch.device("cpu")
OF_RANK = {0: [71, 3], 1: [5], 2: []}


def at_once(write):
    write()


def place(numbers: list[int], batch: int = 11) -> Place:
    return Place(4, batch, 0.5, torch.tensor(numbers, dtype=torch.int64))


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def work(rank: int, folder: Path) -> None:
    """Two skipped steps, the second of which is the last straw."""
    heard = Lines()
    logging.getLogger("fastpose").addHandler(heard)
    with start_world("cpu", patience=20.0) as world:
        lists = lists_of_all(world, OF_RANK[rank])
        nothing = lists_of_all(world, [])
        steps = BadSteps(2, SkippedSteps(world, folder, at_once))
        steps.aloud = world.is_main
        error = ""
        for batch in (11, 12):
            try:
                steps.see(place(OF_RANK[rank], batch), True)
            except TrainingError as raised:
                error = str(raised)
    told = {"lists": lists, "nothing": nothing, "lines": heard.lines, "error": error}
    (folder / f"{rank}.json").write_text(json.dumps(told))


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_one_process_tells_the_samples_of_all(tmp_path):
    run_ranks(work, 3, tmp_path)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    samples = "samples of rank 0: 71, 3; of rank 1: 5; of rank 2: ; all in skipped_steps.jsonl"
    for rank, of_rank in enumerate(told):
        assert of_rank["lists"] == list(OF_RANK.values())
        assert of_rank["nothing"] == [[], [], []]
        assert f"from epoch 5, batch 12 ({samples}) to epoch 5, batch 13" in of_rank["error"]
        assert len(of_rank["lines"]) == (2 if rank == 0 else 0)
    assert told[0]["lines"][0] == (
        f"the gradient was not finite: step skipped in epoch 5, batch 12 ({samples})"
    )
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    expected = {"epoch": 5, "lr": 0.5, "samples": list(OF_RANK.values())}
    assert rows == [{**expected, "batch": batch} for batch in (12, 13)]


def test_the_file_has_what_the_message_leaves_out(tmp_path):
    describe = SkippedSteps(World(CPU), tmp_path, at_once)
    text = describe(place(list(range(40))))
    first = ", ".join(map(str, range(16)))
    assert text == f"epoch 5, batch 12 (samples {first}, ...; all in skipped_steps.jsonl)"
    assert json.loads((tmp_path / FILE).read_text())["samples"] == [list(range(40))]
    assert describe(Place(0, 0)) == "epoch 1, batch 1"


def test_a_message_about_many_processes_stays_short():
    of_ranks = [list(range(64)) for _ in range(1000)]
    text = place([]).with_samples(of_ranks, "elsewhere")
    assert len(text) < 500
    assert "of rank 15: 0, ..." in text
    assert text.endswith("; all in elsewhere)")


def test_a_file_that_cannot_be_written_goes_by_the_rule_of_outputs(tmp_path):
    refused: list[OutputError] = []

    def attempt(write):
        with pytest.raises(OutputError, match=r"skipped_steps\.jsonl: cannot be written") as caught:
            write()
        refused.append(caught.value)

    SkippedSteps(World(CPU), tmp_path / "nowhere", attempt)(place([1]))
    assert len(refused) == 1
