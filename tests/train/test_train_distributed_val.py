"""Evaluation shared among processes gives the figures of one, to the last bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import run_ranks

from fastpose.data.figures import read_figures
from fastpose.errors import DataError
from fastpose.infer.chunks import CHUNK
from fastpose.models import PoseModel
from fastpose.train.config import Config
from fastpose.train.loading import auto_workers
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.tasks.pose_validation import rows_of, validate

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from tiny_models import tiny

CPU = torch.device("cpu")
BATCHES = (4, 10, 64)
PICTURES = 9


def settings(batch_size: int) -> Config:
    config = Config()
    config.data.input_size, config.data.format, config.data.workers = [64, 64], "figures", 0
    config.val.batch_size = batch_size
    return config


def people() -> Any:
    table = read_figures(PICTURES, seed=5, aspect_ratio=1.0, image_size=(96, 96))
    # A network that has learnt nothing scores too, where joints may be far off.
    table.keypoints = replace(table.keypoints, sigmas=tuple(1.5 for _ in table.keypoints.names))
    return table


def network() -> PoseModel:
    torch.manual_seed(2)
    model = tiny(num_joints=people().keypoints.num_joints, width=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def figures(world: World) -> dict[str, Any]:
    """By batch size: metrics, and the rows that this process has."""
    found: dict[str, Any] = {}
    for size in BATCHES:
        told: list[int] = []
        evaluation, predictions = validate(network(), settings(size), people(), CPU, told.append, world)
        found[str(size)] = {
            "metrics": evaluation.metrics,
            "headline": evaluation.headline,
            "results": len(evaluation.results),
            "told": sum(told),
            "rows": len(rows_of(settings(size), len(people()), world)),
            **{name: torch.from_numpy(value.copy()) for name, value in vars(predictions).items()},
        }
    return found


def work(rank: int, folder: Path) -> None:
    with start_world("cpu") as world:
        torch.save(figures(world), folder / f"{world.size}-{rank}.pt")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes: their number may change what oneDNN adds first
    found = figures(World(CPU))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder = tmp_path_factory.mktemp("ranks")
    for size in (2, 3):
        run_ranks(work, size, folder)
    return {
        size: [torch.load(folder / f"{size}-{rank}.pt", weights_only=True) for rank in range(size)]
        for size in (2, 3)
    }


def assert_equal_bits(got: Any, expected: Any) -> None:
    np.testing.assert_array_equal(got, expected)  # NaN equals NaN
    assert got.dtype == expected.dtype


def test_the_case_says_something(alone):
    first = alone["4"]
    assert len(people()) % CHUNK["cpu"], "there is a chunk to fill"
    assert first["headline"] == "AP"
    assert first["results"] > 0
    assert 0.05 < first["metrics"]["AP"] < 0.95
    assert first["keypoints"].std() > 1.0


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch_size_gives_the_same_bits(alone, batch):
    for name in ("index", "keypoints", "score", "valid", "usable"):
        assert_equal_bits(alone[str(batch)][name], alone["4"][name])
    assert alone[str(batch)]["metrics"] == alone["4"]["metrics"]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_gives_the_same_bits(shared, alone, size, batch):
    main = shared[size][0][str(batch)]
    assert main["index"].tolist() == list(range(len(people()))), "the table's order, nobody twice"
    for name in ("keypoints", "score", "valid", "usable"):
        assert_equal_bits(main[name], alone["4"][name])
    assert main["results"] == alone["4"]["results"]
    for rank in shared[size]:
        assert rank[str(batch)]["metrics"] == alone["4"]["metrics"]
        assert rank[str(batch)]["headline"] == "AP"


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_persons(shared, size):
    ranks = [rank["4"] for rank in shared[size]]
    assert sum(rank["rows"] for rank in ranks) == len(people())
    assert [rank["told"] for rank in ranks] == [rank["rows"] for rank in ranks]
    assert [rank["results"] for rank in ranks[1:]] == [0] * (size - 1)


def test_persons_without_prediction_are_an_error(monkeypatch):
    monkeypatch.setattr("fastpose.data.dataset.CropDataset._region", lambda self, index: None)
    with pytest.raises(DataError, match="has a prediction"):
        validate(network(), settings(4), people(), CPU)


@pytest.mark.parametrize(
    ("cores", "processes", "device", "expected"),
    [(16, 1, "cuda", 16), (64, 8, "cuda", 8), (4, 8, "cuda", 1), (16, 1, "cpu", 4), (16, 8, "cpu", 0)],
)
def test_processes_share_the_cores(monkeypatch, cores, processes, device, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert auto_workers("auto", torch.device(device), processes) == expected
    assert auto_workers(3, torch.device(device), processes) == 3
