"""FrozenBatchNorm2d: BatchNorm in evaluation, whatever the mode, with nothing to train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastpose.nn.frozen_norm import FrozenBatchNorm2d


def pair(channels: int = 5) -> tuple[FrozenBatchNorm2d, nn.BatchNorm2d]:
    """The same statistics in both."""
    twin = nn.BatchNorm2d(channels)
    for tensor in (twin.weight.data, twin.bias.data, twin.running_mean, twin.running_var):
        assert tensor is not None
        tensor.uniform_(0.5, 2.0)
    frozen = FrozenBatchNorm2d(channels)
    frozen.load_state_dict({name: twin.state_dict()[name] for name in frozen.state_dict()})
    return frozen, twin.eval()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_is_batch_norm_in_evaluation(training: bool) -> None:
    frozen, twin = pair()
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    x = torch.randn(3, 5, 4, 6, requires_grad=True)
    y = frozen.train(training)(x)
    torch.testing.assert_close(y, twin(x))
    want = (twin.weight / (twin.running_var + 1e-5).sqrt())[:, None, None].expand_as(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], want)
    assert all(torch.equal(frozen.state_dict()[name], tensor) for name, tensor in before.items())


def test_has_the_official_names_and_no_parameters() -> None:
    frozen, _ = pair()
    assert list(frozen.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(frozen.parameters()) == []


def test_reset_makes_it_the_identity() -> None:
    frozen, _ = pair()
    frozen.reset_parameters()
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(frozen(x), x / (1 + 1e-5) ** 0.5)


def test_half_precision_stays_half_and_is_computed_in_float32() -> None:
    frozen, twin = pair()
    x = torch.randn(3, 5, 4, 6).bfloat16()
    y = frozen(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, twin(x.float()).bfloat16())


def test_keeps_channels_last() -> None:
    frozen, _ = pair()
    x = torch.randn(3, 5, 4, 6).contiguous(memory_format=torch.channels_last)
    assert frozen(x).is_contiguous(memory_format=torch.channels_last)
