"""The fused exchange in several processes: synchronised statistics, and plain DistributedDataParallel."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fastpose.nn import Bottleneck, Exchange
from fastpose.nn import fuse as nn_fuse
from fastpose.ops import _fuse

WIDTHS = [3, 4, 5]
SHARES = (1, 3)  # images of each process
EMPTY = (4, 0)
DOUBLE = torch.float64


class Network(nn.Module):
    """A bottleneck, then an exchange: every kind of path."""

    def __init__(self) -> None:
        super().__init__()
        shortcut = nn.Sequential(nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12))
        self.block = Bottleneck(6, 3)
        self.block.downsample = shortcut
        self.squeeze = nn.Conv2d(12, 3, 1)
        self.exchange = Exchange(WIDTHS)

    def forward(self, x: Tensor, *coarse: Tensor) -> Tensor:
        outputs = self.exchange([self.squeeze(self.block(x)), *coarse])
        return torch.cat([y.flatten(1) * torch.linspace(-1, 1, y.shape[1:].numel()) for y in outputs], 1)


def inputs() -> list[Tensor]:
    torch.manual_seed(5)
    batch = sum(SHARES)
    shapes = [(batch, 6, 8, 4), (batch, 4, 4, 2), (batch, 5, 2, 1)]
    return [torch.randn(shape, dtype=DOUBLE) for shape in shapes]


def network() -> Network:
    torch.manual_seed(7)
    made = Network().double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    for norm in (made.block.bn1, made.block.bn2, made.exchange[2][0][0][1]):
        norm.eval()  # these are no part of a fused sum, and SyncBatchNorm itself runs on GPUs only
    return made


def synchronised(model: Network) -> Network:
    for name, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and norm.training:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
    return model


def work(rank: int, folder: str, sync: bool, shares: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    _fuse.fuse_runs_on_triton = nn_fuse.fuse_runs_on_triton = lambda *_: True
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares))
    model = network()
    parallel = synchronised(model) if sync else nn.parallel.DistributedDataParallel(model)
    start = sum(shares[:rank])
    xs = [x[start : start + shares[rank]].clone().requires_grad_() for x in inputs()]
    outputs = parallel(*xs)
    outputs.square().sum().backward()
    result = {
        "outputs": outputs.detach(),
        "inputs": [x.grad for x in xs],
        "parameters": [p.grad for p in model.parameters()],
        "buffers": [buffer.double() for buffer in model.buffers()],
    }
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def run_processes(folder: Path, sync: bool, shares: tuple[int, ...] = SHARES) -> list[dict[str, Any]]:
    mp.spawn(work, (str(folder), sync, shares), nprocs=len(shares))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(shares))]


def run_layers(model: nn.Module, xs: list[Tensor]) -> dict[str, Any]:
    """The same in one process, by the layers themselves."""
    xs = [x.clone().requires_grad_() for x in xs]
    outputs = model(*xs)
    outputs.square().sum().backward()
    return {
        "outputs": outputs.detach(),
        "inputs": [x.grad for x in xs],
        "parameters": [p.grad for p in model.parameters()],
        "buffers": [buffer.double() for buffer in model.buffers()],
    }


def assert_close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("shares", [SHARES, EMPTY], ids=["unequal", "empty"])
def test_synchronised_statistics_are_those_of_the_whole_batch(
    tmp_path: Path, shares: tuple[int, ...]
) -> None:
    ranks = run_processes(tmp_path, sync=True, shares=shares)
    whole = run_layers(network(), inputs())
    assert_close(torch.cat([rank["outputs"] for rank in ranks]), whole["outputs"])
    for i, expected in enumerate(whole["inputs"]):
        assert_close(torch.cat([rank["inputs"][i] for rank in ranks]), expected)
    assert_close(
        [a + b for a, b in zip(*(rank["parameters"] for rank in ranks), strict=True)], whole["parameters"]
    )
    for rank in ranks:
        assert_close(rank["buffers"], whole["buffers"])


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_plain_statistics_stay_in_their_process(tmp_path: Path) -> None:
    ranks = run_processes(tmp_path, sync=False)
    alone = []
    for rank, share in enumerate(SHARES):
        start = sum(SHARES[:rank])
        alone.append(run_layers(copy.deepcopy(network()), [x[start : start + share] for x in inputs()]))
        assert_close(ranks[rank]["outputs"], alone[rank]["outputs"])
        assert_close(ranks[rank]["inputs"], alone[rank]["inputs"])
        assert_close(ranks[rank]["buffers"], alone[rank]["buffers"])
    for i, gradient in enumerate(ranks[0]["parameters"]):
        assert_close(gradient, sum(one["parameters"][i] for one in alone) / len(SHARES))
