"""Whether copies of a network are copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastpose.errors import ConfigError
from fastpose.train.parallel.replicas import checksum, difference, replicate


def test_checksum_sees_one_bit_and_the_order():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = checksum(model)
    assert before == checksum(model)
    weights = [layer.weight.detach().clone() for layer in model]
    model[0].weight.data, model[1].weight.data = weights[1], weights[0]
    assert checksum(model) != before
    model[0].weight.data, model[1].weight.data = weights
    assert checksum(model) == before
    model[1].weight.data.view(torch.int32)[2, 1] ^= 1
    assert checksum(model) != before
    assert checksum(nn.ReLU()) == 0


def test_difference_names_the_odd_ones():
    names = ("epoch", "step")
    assert difference([[1, 5], [1, 5], [1, 5]], names) is None
    assert difference([[1, 5], [1, 4], [1, 5]], names) == "rank 1 has step 4, the others 5"
    assert difference([[2, 5], [1, 5], [1, 5]], names) == "rank 0 has epoch 2, the others 1"


def test_sync_bn_needs_cuda():
    with pytest.raises(ConfigError, match="SyncBatchNorm needs CUDA"):
        replicate(nn.BatchNorm2d(2), torch.device("cpu"), sync_bn=True)
