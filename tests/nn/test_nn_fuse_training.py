"""A network trained with the fused exchange learns as one trained with the layers: 200 steps of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interpreter import run_interpreted

pytest.importorskip("triton")

STEPS = 200
TRAIN = f"""
import torch.nn as nn
from fastpose.backend import use_backend
from fastpose.nn import Exchange

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(6, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.exchange = Exchange([6, 4])
        self.fine, self.coarse = nn.Conv2d(6, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        fine, coarse = self.exchange([x, self.down(x)])
        return self.fine(fine) + self.coarse(coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)

LAST_BIT = {{"float32": 2**-24, "bfloat16": 2**-9}}

def train(backend, jitter, dtype):
    torch.manual_seed(1)
    network, x, target = Network(), torch.randn(2, 3, 8, 8), torch.rand(2, 2, 8, 8)
    draw = torch.Generator().manual_seed(jitter)
    with torch.no_grad():
        for p in network.parameters():
            p += p * LAST_BIT[dtype] * torch.randn(p.shape, generator=draw) * (jitter > 0)
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=5e-3), []
    for _ in range({STEPS}):
        with use_backend(backend), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = (network(x).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_curve_stays_within_the_spread_of_the_layers(tmp_path: Path, dtype: str) -> None:
    """The spread: layers whose initial weights differ in their last bit, as after another order of a sum."""
    body = (
        TRAIN
        + f"""
outputs = {{
    "kernels": train("triton", 0, "{dtype}"),
    "layers": torch.stack([train("reference", jitter, "{dtype}") for jitter in range(6)]),
}}
"""
    )
    curves = run_interpreted(body, {}, tmp_path)
    layers, kernels = curves["layers"], curves["kernels"]
    assert layers[0, -1] < 0.5 * layers[0, 0], "the network must learn for the comparison to say anything"
    assert not torch.equal(kernels, layers[0]), "the kernels did not run"
    spread = (layers - layers.mean(0)).abs().amax(0).cummax(0).values
    distance = (kernels - layers.mean(0)).abs()
    assert (distance <= 2 * spread + 1e-6).all(), (distance / (2 * spread + 1e-6)).max()
