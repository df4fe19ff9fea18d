"""The average of the weights follows the formula, buffers included, and comes back from a checkpoint."""

import pytest
import torch
from torch import nn

from fastpose.errors import ConfigError
from fastpose.train.engine.ema import Ema


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def shake(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(
                torch.randn_like(tensor.float()).to(tensor.dtype) if tensor.is_floating_point() else 1
            )


def test_follows_weights_and_running_statistics():
    model = network()
    ema = Ema(model, 0.75)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        shake(model)
        ema.update()
        for name, tensor in model.state_dict().items():
            floating = tensor.is_floating_point()
            expected[name] = 0.75 * expected[name] + 0.25 * tensor if floating else tensor.clone()
    assert ema.state_dict().keys() == model.state_dict().keys()
    for name, tensor in ema.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    assert int(ema.state_dict()["1.num_batches_tracked"]) == 3


def test_is_a_network_of_its_own_that_does_not_train():
    model = network()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    ema = Ema(model, 0.5)
    assert not ema.module.training
    assert all(p.grad is None and not p.requires_grad for p in ema.module.parameters())
    before = ema.module[0].weight.clone()
    shake(model)
    assert torch.equal(ema.module[0].weight, before)


def test_saved_average_goes_on():
    model = network()
    ema = Ema(model, 0.5)
    shake(model)
    ema.update()
    saved = {name: tensor.clone() for name, tensor in ema.state_dict().items()}
    other = Ema(model, 0.5)
    other.load_state_dict(saved)
    shake(model)
    ema.update()
    other.update()
    for a, b in zip(ema.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_a_decay_that_averages_nothing(decay):
    with pytest.raises(ConfigError, match="decay: expected a number between 0 and 1"):
        Ema(network(), decay)
