"""A whole HRNet by the Triton kernels, in the interpreter, beside its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interpreter import run_interpreted

pytest.importorskip("triton")

SCRIPT = """
from fastpose.backend import use_backend
from fastpose.models import create_model
from fastpose.ops import heatmap_loss

def run(backend, dtype, wide=torch.float32):
    torch.manual_seed(3)
    network = create_model("hrnet_w18_small", num_joints=3).to(memory_format=torch.channels_last)
    network.reset_parameters("kaiming")
    network.to(wide)
    x = torch.randn(2, 3, 64, 32).to(memory_format=torch.channels_last)
    x = x.to(wide)
    joints, weight = torch.rand(2, 3, 2) * 30, torch.ones(2, 3)
    with use_backend(backend):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            prediction = network(x)
        loss = heatmap_loss(prediction, joints, weight, input_size=(32, 64))
        loss.backward()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            evaluated = network.eval()(x)
    gradients = torch.cat([p.grad.flatten() for p in network.parameters()])
    buffers = torch.cat([b.double().flatten() for b in network.buffers()])
    return [prediction.detach(), loss.detach(), gradients, buffers, evaluated]

outputs = {
    "truth": run("reference", "float64", torch.float64),
    "layers": run("reference", inputs["dtype"]),
    "kernels": run("triton", inputs["dtype"]),
}
"""
NAMES = ("prediction", "loss", "gradients", "buffers", "evaluated")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernels_are_as_exact_as_the_layers(tmp_path: Path, dtype: str) -> None:
    """From float64, in training and in evaluation, through some 60 layers."""
    results = run_interpreted(SCRIPT, {"dtype": dtype}, tmp_path)
    for i, name in enumerate(NAMES):
        truth, layers, kernels = (results[key][i].double() for key in ("truth", "layers", "kernels"))
        error, allowed = (kernels - truth).norm(), 1.5 * (layers - truth).norm() + 1e-6 * truth.norm()
        assert error <= allowed, (name, error / truth.norm(), allowed / truth.norm())
    assert not torch.equal(results["kernels"][0], results["layers"][0]), "the kernels did not run"
