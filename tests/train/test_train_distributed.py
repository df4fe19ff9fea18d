"""What several processes compute together is what one computes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import run_ranks
from torch import nn

from fastpose.nn import Bottleneck
from fastpose.nn import fuse as nn_fuse
from fastpose.ops import _fuse, heatmap_loss
from fastpose.train.parallel.batch_plan import plan_batches
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.parallel.replicas import checksum

CPU = torch.device("cpu")
SIZE = 3
TOTALS = {"even": 6, "uneven": 5}
ROWS = np.arange(8 * 2, dtype=np.float32).reshape(8, 2)
ROWS[3] = np.nan
COUNTS = [3, 0, 5]


class Net(nn.Module):
    """A convolution, a bottleneck's fused end and a map for each of two joints, in float64."""

    def __init__(self, norms: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.block = Bottleneck(4, 2) if norms else nn.Identity()
        if norms:
            self.block.downsample = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8 if norms else 4, 2, 1)
        torch.manual_seed(3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.6)
        self.double()
        if norms:
            self.block.bn1.eval()  # SyncBatchNorm itself runs on GPUs only, a fused sum anywhere
            self.block.bn2.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x)))


def samples(total: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(total)
    images = torch.randn(total, 3, 16, 16, generator=draw, dtype=torch.float64)
    joints = torch.rand(total, 2, 2, generator=draw, dtype=torch.float64) * 14
    return images, joints, 0.5 + torch.rand(total, 2, generator=draw, dtype=torch.float64)


def gradients(model: nn.Module, forward: nn.Module, data: Any) -> list[torch.Tensor]:
    images, joints, weight = data
    heatmap_loss(forward(images), joints, weight, input_size=(16, 16), sigma=1.0).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def synchronised(model: Net) -> Net:
    for owner, name in ((model.block, "bn3"), (model.block.downsample, "1")):
        setattr(owner, name, nn.SyncBatchNorm.convert_sync_batchnorm(owner.get_submodule(name)))
    return model


def work(rank: int, folder: Path) -> None:
    _fuse.fuse_runs_on_triton = nn_fuse.fuse_runs_on_triton = lambda *_: True
    nn.parallel.DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # refuses CPUs
    with start_world("cpu") as world:
        result: dict[str, Any] = {"place": [world.rank, world.size, world.local_size, int(world.is_main)]}
        for name, total in TOTALS.items():
            plan = plan_batches(total, total, rank=rank, world=SIZE)
            start = sum(plan_batches(total, total, rank=r, world=SIZE).share for r in range(rank))
            mine = [tensor[start : start + plan.share] for tensor in samples(total)]
            plain = Net(norms=False)
            result[name] = gradients(plain, world.wrap(plain, weight=plan.weight), mine)
            sync = synchronised(Net(norms=True))
            result[f"sync {name}"] = gradients(sync, world.wrap(sync, weight=plan.weight), mine)
            result[f"statistics {name}"] = [buffer.double() for buffer in sync.buffers()]
        result |= talk(world, rank)
        torch.save(result, folder / f"{rank}.pt")


def talk(world: World, rank: int) -> dict[str, Any]:
    """Everything that passes between the processes apart from gradients."""
    norm = nn.BatchNorm1d(2)
    norm.running_mean += rank
    norm.running_var *= rank + 1
    world.average_buffers(norm, weight=(rank + 1) / 6)
    sums = torch.tensor([1.0 + rank, 10.0], dtype=torch.float64)
    start = sum(COUNTS[:rank])
    rows = world.gather_rows(ROWS[start : start + COUNTS[rank]], COUNTS)
    flags = world.gather_rows(np.full(COUNTS[rank], rank == 2), COUNTS)
    torch.manual_seed(rank)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1 * (rank + 1))
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    parted = checksum(model)
    world.copy_from_main({"model": model, "optimizer": optimizer, "scaler": None})
    world.check_in_step(model, 0, 1)
    world.seed(5)
    return {
        "buffers": [norm.running_mean, norm.running_var],
        "collected": torch.tensor(world.collect(sums)),
        "left": sums,
        "rows": torch.from_numpy(rows.copy()),
        "flags": torch.from_numpy(flags.copy()),
        "said": world.from_main(lambda: {"folder": "a", "AP": float("nan"), "rank": rank}),
        "checksums": torch.tensor([parted, checksum(model)]),
        "rate": optimizer.param_groups[0]["lr"],
        "moment": optimizer.state[model.weight]["exp_avg"],
        "random": torch.rand(2),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, SIZE, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]


def test_each_process_knows_its_place(ranks):
    assert [rank["place"] for rank in ranks] == [[0, 3, 3, 1], [1, 3, 3, 0], [2, 3, 3, 0]]


@pytest.mark.parametrize("shares", TOTALS)
@pytest.mark.parametrize("norms", ["", "sync "], ids=["plain", "sync_bn"])
def test_gradients_are_those_of_the_whole_batch(ranks, shares, norms):
    model = Net(norms=bool(norms))
    expected = gradients(model, model, samples(TOTALS[shares]))
    assert expected[0].abs().max() > 1e-3, "the gradient reaches the first layer"
    for rank in ranks:
        torch.testing.assert_close(rank[norms + shares], expected, rtol=1e-9, atol=1e-12)
    if norms:
        statistics = [buffer.double() for buffer in model.buffers()]
        for rank in ranks:
            torch.testing.assert_close(rank[f"statistics {shares}"], statistics, rtol=1e-9, atol=1e-12)


def test_running_statistics_are_averaged_by_share(ranks):
    mean, var = (0 * 1 + 1 * 2 + 2 * 3) / 6, (1 * 1 + 2 * 2 + 3 * 3) / 6
    for rank in ranks:
        torch.testing.assert_close(rank["buffers"], [torch.full((2,), mean), torch.full((2,), var)])


def test_sums_end_up_on_the_main_process_and_nowhere_twice(ranks):
    for number, rank in enumerate(ranks):
        assert rank["collected"].tolist() == [6.0, 30.0]
        assert rank["left"].tolist() == ([6.0, 30.0] if number == 0 else [0.0, 0.0])


def test_rows_are_gathered_in_the_order_of_ranks(ranks):
    np.testing.assert_array_equal(ranks[0]["rows"], ROWS)
    assert ranks[0]["flags"].dtype == torch.bool
    assert ranks[0]["flags"].tolist() == [False] * 3 + [True] * 5
    assert [len(rank["rows"]) for rank in ranks] == [8, 0, 5]


def test_what_the_main_process_says_reaches_all(ranks):
    for rank in ranks:
        assert rank["said"]["folder"] == "a"
        assert np.isnan(rank["said"]["AP"])
        assert rank["said"]["rank"] == 0


def test_states_are_copied_from_the_main_process(ranks):
    assert len({int(rank["checksums"][0]) for rank in ranks}) == SIZE
    assert len({int(rank["checksums"][1]) for rank in ranks}) == 1
    for rank in ranks:
        assert rank["rate"] == 0.1
        assert torch.equal(rank["moment"], ranks[0]["moment"])


def test_random_numbers_differ_between_processes(ranks):
    assert len({tuple(rank["random"].tolist()) for rank in ranks}) == SIZE


def test_a_process_alone_needs_no_communication(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model, sums = nn.BatchNorm1d(2), torch.ones(2)
    with start_world("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, CPU)
        assert world.wrap(model, weight=1.0) is model
        assert world.collect(sums) == sums.tolist() == [1.0, 1.0]
        assert world.from_main(lambda: 5) == 5
        assert world.gather_rows(ROWS, [8]) is ROWS
        world.average_buffers(model, 1.0)
        world.copy_from_main({"model": model})
        world.barrier("the end")
        world.check_in_step(model, 0, 1)
    assert not dist.is_initialized()
    with pytest.raises(KeyError), World(CPU):
        raise KeyError
