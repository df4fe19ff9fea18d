"""The ResNet body against arithmetic written out from its names, with norms of any kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from interpreter import run_interpreted
from named_layers import NamedLayers
from torch import Tensor, nn

from fastpose.nn import blocks
from fastpose.nn.resnet import BLOCKS, CHANNELS, ResNetBody, resnet_layers


class FixedNorm(nn.Module):
    """A normalisation whose four vectors never change."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (buffer[:, None, None] for buffer in self.buffers())
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def filled(body: ResNetBody) -> ResNetBody:
    """Statistics and weights that are not the neutral ones."""
    torch.manual_seed(0)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.8, 1.2)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.1)
    return body.double()


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> int:
    """A depth for the test alone, with two blocks in a layer where that matters."""
    monkeypatch.setitem(BLOCKS, 17, (2, 2, 1, 1))
    return 17


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_features_are_those_of_the_paper(training: bool) -> None:
    body = filled(ResNetBody(50)).train(training)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    want = NamedLayers(body.state_dict(), training).resnet(x)
    with torch.no_grad():
        features = body(x)
    assert features.shape == (2, CHANNELS, 2, 3)
    torch.testing.assert_close(features, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "norms", "parameters"),
    [(50, 53, 23_508_032), (101, 104, 42_500_160), (152, 155, 58_143_808)],
    ids=["resnet50", "resnet101", "resnet152"],
)
def test_depths_have_the_size_of_the_imagenet_networks_without_fc(
    depth: int, norms: int, parameters: int
) -> None:
    with torch.device("meta"):
        body = ResNetBody(depth)
    assert sum(p.numel() for p in body.parameters()) == parameters
    assert sum(isinstance(module, nn.BatchNorm2d) for module in body.modules()) == norms
    names = r"(conv1|bn1|layer[1-4]\.\d+\.((conv|bn)[123]|downsample\.[01]))\.\w+"
    assert all(re.fullmatch(names, name) for name in body.state_dict())


def test_another_norm_takes_the_place_of_every_batch_norm(shallow: int) -> None:
    body = ResNetBody(shallow, FixedNorm).double().train()
    usual = ResNetBody(shallow)
    where = [name for name, module in usual.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert [name for name, module in body.named_modules() if isinstance(module, FixedNorm)] == where
    assert [name for name in usual.state_dict() if not name.endswith("num_batches_tracked")] == list(
        body.state_dict()
    )
    x = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    want = NamedLayers(body.state_dict()).resnet(x)
    torch.testing.assert_close(body(x).detach(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("norm", "fused"), [(nn.BatchNorm2d, 2), (FixedNorm, 0)], ids=["batch_norm", "fixed_norm"]
)
def test_only_layer1_of_plain_batch_norms_ends_fused(
    monkeypatch: pytest.MonkeyPatch, shallow: int, norm: blocks.Norm, fused: int
) -> None:
    calls = []

    def by_layers(sums: list) -> list[Tensor]:
        calls.append(sums)
        total = sum(branch.norm(branch.conv(branch.x)) for branch in sums[0].branches)
        return [torch.relu(total if sums[0].identity is None else total + sums[0].identity)]

    body = ResNetBody(shallow, norm).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        want = body(x)
        monkeypatch.setattr(blocks, "fuses", lambda images: True)
        monkeypatch.setattr(blocks, "fuse_sums", by_layers)
        torch.testing.assert_close(body(x), want)
    assert len(calls) == fused


SCRIPT = """
from fastpose.backend import use_backend
from fastpose.nn.resnet import ResNetBody

torch.manual_seed(3)
body = ResNetBody(50).eval()
x = torch.randn(1, 3, 16, 16)

def layer1(backend, dtype):
    body.to(dtype)
    with use_backend(backend), torch.no_grad():
        return body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(x.to(dtype))))))

outputs = [layer1("reference", torch.float64), layer1("reference", torch.float32)]
outputs.append(layer1("triton", torch.float32))
"""


def test_layer1_by_the_kernels_is_as_exact_as_by_the_layers(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    truth, layers, kernels = run_interpreted(SCRIPT, {}, tmp_path)
    assert not torch.equal(kernels, layers), "the kernels did not run"
    assert (kernels - truth).norm() <= 1.5 * (layers - truth).norm() + 1e-6 * truth.norm()


@pytest.mark.parametrize("depth", [18, "50", None], ids=str)
def test_other_depths_are_refused(depth: object) -> None:
    with pytest.raises(ValueError, match=f"depth: expected one of 50, 101, 152, got {depth!r}"):
        resnet_layers(depth)
