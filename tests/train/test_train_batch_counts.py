"""Counting batches at once leaves every BatchNorm the count it would have had."""

import copy

import pytest
import torch
from torch import nn

from fastpose.train.engine.batch_counts import BatchCounts


class Twice(nn.Module):
    """One norm used twice, one frozen, one that computes with its count, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.counted, self.plain = (
            nn.BatchNorm2d(3, momentum=None),
            nn.BatchNorm2d(3, track_running_stats=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.plain(self.counted(self.frozen(self.twice(self.twice(x)))))


def test_buffers_end_as_they_would_have():
    model = Twice().train()
    model.frozen.eval()
    plain = copy.deepcopy(model)
    counts = BatchCounts(model)
    buffers = dict(model.named_buffers())
    for _ in range(3):
        x = torch.randn(2, 3, 4, 4)
        with counts.together():
            y = model(x)
        assert torch.equal(y, plain(x))
    for name, buffer in plain.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
        assert model.get_buffer(name) is buffers[name]
    assert int(model.twice.num_batches_tracked) == 6


def test_buffers_are_put_back_after_an_error():
    model = Twice()
    counts, buffer = BatchCounts(model), model.twice.num_batches_tracked
    seen = []

    def fail() -> None:
        with counts.together():
            seen.append(model.twice.num_batches_tracked)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen[0] is not buffer
    assert model.twice.num_batches_tracked is buffer
