"""Uneven shares of a batch, for networks that give more than one tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import run_ranks
from torch import Tensor, nn

from fastpose.train.parallel.batch_plan import plan_batches
from fastpose.train.parallel.distributed import start_world

RANKS, TOTAL = 2, 5


class Net(nn.Module):
    """Two predictions in float64, shaped as `form` says."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.form = nn.Linear(3, 4).double(), nn.Linear(4, 2).double(), form

    def forward(self, x: Tensor) -> Any:
        body = self.body(x)
        return self.form(body, self.head(body.tanh()))


def _pair(first: Tensor, second: Tensor) -> Any:
    return first, second


def _queries(first: Tensor, second: Tensor) -> Any:
    return {"last": second, "others": [{"last": first}]}


def _stacks(first: Tensor, second: Tensor) -> Any:
    return [first, second]


FORMS = {"list": _stacks, "tuple": _pair, "dict of lists": _queries}


def gradients(model: Net, forward: nn.Module, x: Tensor) -> list[Tensor]:
    outputs: list[Tensor] = torch.utils._pytree.tree_leaves(forward(x))
    sum(output.square().sum(1).mean() for output in outputs).backward()  # type: ignore[union-attr]
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def samples() -> Tensor:
    return torch.randn(TOTAL, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def work(rank: int, folder: Path) -> None:
    plan = plan_batches(TOTAL, TOTAL, rank=rank, world=RANKS)
    mine = samples().split([TOTAL // RANKS, TOTAL - TOTAL // RANKS])[rank]
    assert len(mine) == plan.share
    with start_world("cpu") as world:
        found = {}
        for name, form in FORMS.items():
            model = Net(form)
            found[name] = gradients(model, world.wrap(model, weight=plan.weight), mine)
        torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder = tmp_path_factory.mktemp("outputs")
    run_ranks(work, RANKS, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_the_whole_batch(ranks, name):
    model = Net(FORMS[name])
    expected = gradients(model, model, samples())
    for found in ranks:
        for mine, one in zip(found[name], expected, strict=True):
            torch.testing.assert_close(mine, one, rtol=1e-12, atol=1e-13)
