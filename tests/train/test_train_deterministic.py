"""`make_deterministic`: what it sets, and that nothing of a training step raises under it."""

import os

import pytest
import torch

from fastpose.models import create_model
from fastpose.train.config import TrainConfig
from fastpose.train.engine.deterministic import WORKSPACE, make_deterministic
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

K = 3


@pytest.fixture(autouse=True)
def _undone(monkeypatch):
    """The process is as it was afterwards."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    held = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, cudnn = torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(held[0], warn_only=held[1])
    torch.utils.deterministic.fill_uninitialized_memory = fill
    cudnn.deterministic, cudnn.benchmark = flags
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_it_asks_torch_cudnn_and_cublas():
    torch.backends.cudnn.benchmark = True
    make_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == WORKSPACE


def test_a_workspace_somebody_chose_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    make_deterministic()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def train(device: torch.device, topk: int | None, steps: int = 3, size: int = 64) -> list[torch.Tensor]:
    """Everything that some steps of an HRNet leave behind."""
    torch.manual_seed(0)
    config = TrainConfig(clip_grad=1.0, weight_decay=0.01)
    model = create_model("hrnet_w18_small", K, input_size=(size, size)).to(device).train()
    model.reset_parameters("kaiming")
    ema, objective = Ema(model, 0.9), HeatmapObjective(sigma=1.0, topk=topk)
    step = TrainStep(
        model, build_optimizer(model, config, device), config, objective=objective, dtype=torch.bfloat16,
        device=device, ema=ema, graph=device.type == "cuda",
    )  # fmt: skip
    for number in range(steps):
        draw = torch.Generator().manual_seed(number)
        batch = {
            "crop": torch.randint(0, 256, (2, size, size, 3), generator=draw, dtype=torch.uint8),
            "joints": torch.rand(2, K, 2, generator=draw) * (size - 1),
            "weight": torch.ones(2, K),
        }
        step(batch, 1e-3)
    step.finish()
    return [tensor.cpu() for tensor in (*model.state_dict().values(), *ema.state_dict().values(), step.sums)]


@pytest.mark.parametrize("topk", [None, 2], ids=["mse", "ohkm"])
def test_nothing_in_the_step_raises(topk):
    make_deterministic()
    assert all(tensor.isfinite().all() for tensor in train(torch.device("cpu"), topk))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("topk", [None, 2], ids=["mse", "ohkm"])
def test_a_device_gives_the_same_bits_again(topk):
    make_deterministic()
    first, again = (train(torch.device("cuda"), topk, steps=12, size=128) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
