"""One fused sum shares its statistics among one group of processes; layers that differ in it stay layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_nn_fuse import DOUBLE, WIDTHS, Uses, assert_same, branches, by_moments, random_parameters
from test_nn_fuse_layers import by_layers
from torch import nn

from fastpose.nn import Bottleneck, Exchange
from fastpose.nn import fuse as nn_fuse

__all__ = ["by_moments"]  # a fixture


def synchronised(norm: nn.Module, group: object = None) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(norm, group).double()


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the choice asks of torch.distributed; the layers themselves see one process."""
    fake = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda group: 1 if group == "alone" else 2,
        group=SimpleNamespace(WORLD="world"),
    )
    monkeypatch.setattr(nn_fuse, "dist", fake)


@pytest.mark.parametrize(
    ("groups", "alike"),
    [
        ([None, None], True),
        (["world", None], False),
        ([None, "world"], False),
        (["world", "world"], True),
        (["world", "other"], False),
        (["alone", None], True),
        (["alone", "other"], False),
        (["frozen", None], True),
        (["frozen", "other"], True),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, list) else None,
)
def test_one_group_for_all_statistics(two_processes: None, groups: list[str | None], alike: bool) -> None:
    made = []
    for group in groups:
        norm = nn.BatchNorm2d(3) if group is None else synchronised(nn.BatchNorm2d(3), group)
        made.append(norm.eval() if group == "frozen" else norm)
    assert nn_fuse.alike(made) is alike


def test_a_synchronised_norm_among_plain_ones_keeps_the_layers(by_moments: Uses, two_processes: None) -> None:
    exchange = random_parameters(Exchange(WIDTHS))
    exchange[1][2][1] = synchronised(exchange[1][2][1])
    inputs = branches()
    assert_same(list(exchange(inputs)), [row(inputs) for row in exchange])
    block = random_parameters(Bottleneck(8, 4))
    block.downsample[1] = synchronised(block.downsample[1])
    x = torch.randn(2, 8, 6, 4, dtype=DOUBLE)
    assert_same([block(x)], [by_layers(block, x)])
    assert by_moments.count == 0
