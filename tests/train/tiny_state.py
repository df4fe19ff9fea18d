"""A network with one layer, and its optimiser, for tests of what is saved."""

from __future__ import annotations

import os

import torch

from fastpose.models import ModelMeta, PoseModel

FULL = bool(os.environ.get("FASTPOSE_TEST_FULL"))
"""Repeat what strikes at random as often as docs/reliability.md says, which takes minutes."""


class Tiny(PoseModel):
    def __init__(self, width: int = 3) -> None:
        super().__init__(ModelMeta(model="tiny", num_joints=1))
        self.layer = torch.nn.Linear(2, width)


def trained(steps: int = 3, width: int = 3) -> tuple[Tiny, torch.optim.Adam]:
    torch.manual_seed(steps)
    model = Tiny(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model.layer(torch.randn(5, 2)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def fill(model: Tiny, optimizer: torch.optim.Adam, value: float) -> None:
    """Every number of both becomes `value`."""
    with torch.no_grad():
        for tensor in numbers(model, optimizer):
            tensor.fill_(value)


def numbers(model: Tiny, optimizer: torch.optim.Adam) -> list[torch.Tensor]:
    return [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
