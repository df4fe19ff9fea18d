"""A whole training step of a network: bytes and joints in, loss, gradients and updated weights out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.captured import Captured
from bench.official_loss import joints_mse
from bench.ways import Way, place_network
from fastpose.nn.graph import WARMUP
from fastpose.nn.normalize import MEAN, STD
from fastpose.ops import heatmap_loss
from fastpose.reference.heatmap import gaussian_heatmaps
from fastpose.reference.loss import heatmap_loss as reference_loss
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer

SIGMA = 2.0
RATE = 1e-4  # small: hundreds of steps on random images must stay finite


def official_loss(prediction: Tensor, joints: Tensor, weight: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Targets drawn, and the official loss of them, joint by joint."""
    heatmap_size = prediction.shape[3], prediction.shape[2]
    options: Any = {"heatmap_size": heatmap_size, "input_size": input_size, "sigma": SIGMA}
    target, drawn = gaussian_heatmaps(joints, weight, **options)
    return joints_mse(prediction, target, drawn[..., None])


class WithLoss(nn.Module):
    """crop (B, H, W, 3) uint8, joints (B, K, 2), weight (B, K) of zeros and ones -> loss."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, way: Way) -> None:
        super().__init__()
        self.network, self.way = network, way
        device = next(network.parameters()).device
        self.register_buffer("mean", torch.tensor(MEAN, device=device), persistent=False)
        self.register_buffer("std", torch.tensor(STD, device=device), persistent=False)

    def forward(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        images = ((crop.float() / 255.0 - self.mean) / self.std).permute(0, 3, 1, 2)
        prediction = self.network(images.contiguous(memory_format=self.way.layout))
        input_size = crop.shape[2], crop.shape[1]
        with torch.autocast(crop.device.type, enabled=False):
            if self.way.official:
                return official_loss(prediction, joints, weight, input_size)
            loss = reference_loss if self.way.backend == "reference" else heatmap_loss
            return loss(prediction, joints, weight, input_size=input_size, sigma=SIGMA)


class Step:
    """Forward, loss, backward and update as one call, with the loss as its result.

    The gradients stay in the parameters until the next call.
    """

    def __init__(self, network: nn.Module, way: Way) -> None:
        self.way = way
        self.module = WithLoss(place_network(network, way), way)
        self.device = str(next(network.parameters()).device.type)
        self.optimizer = _optimizer(self.module, way, self.device)
        self.loss: Any = self.module
        if way.compile:
            self.loss = torch.compile(self.module, mode=way.compile, dynamic=False)
        self._start = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        self._captured: Captured | None = None

    def prepare(self, *inputs: Tensor) -> None:
        """Whatever happens once: compiling, capturing."""
        self(*inputs)

    def __call__(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        if not (self.way.graph and crop.is_cuda):
            return self.run(crop, joints, weight)
        if self._captured is None:
            statics = [tensor.clone() for tensor in (crop, joints, weight)]
            self._captured = Captured(self.run, statics, self.reset)
        return self._captured(crop, joints, weight)

    def run(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        """Without a graph of its own."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.way.running():
            with self.way.autocast(self.device):
                loss = self.loss(crop, joints, weight)
            loss.backward()
        self.optimizer.step()
        return loss.detach()

    def reset(self) -> None:
        """Weights, running statistics and optimizer as at the start, in the same memory."""
        self.module.load_state_dict(self._start)
        _zero_state(self.optimizer)


class Train:
    """The step of `fastpose train`, which besides guards against bad gradients and counts correct joints."""

    run = None

    def __init__(self, network: nn.Module, way: Way) -> None:
        self.way, self.module = way, place_network(network, way)
        device = next(network.parameters()).device
        config = TrainConfig(optimizer="adamw", lr=RATE)
        dtype = torch.bfloat16 if way.precision == "autocast" else None
        self.optimizer = build_optimizer(self.module, config, device)
        self.step = TrainStep(
            self.module,
            self.optimizer,
            config,
            objective=HeatmapObjective(sigma=SIGMA),
            dtype=dtype,
            device=device,
            graph=way.graph,
        )
        self._start = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def prepare(self, *inputs: Tensor) -> None:
        """Steps until its graph is there; RuntimeError where it does not come."""
        for _ in range(WARMUP + 1):
            self(*inputs)
        if self.way.graph and inputs[0].is_cuda and not self.step.graph.captured:
            raise RuntimeError(f"no CUDA graph: {self.step.graph.reason}")

    def __call__(self, crop: Tensor, joints: Tensor, weight: Tensor) -> Tensor:
        """Returns the sums of TrainStep, the losses of all samples first."""
        with self.way.running():
            self.step({"crop": crop, "joints": joints, "weight": weight}, RATE)
        return self.step.sums

    def reset(self) -> None:
        self.module.load_state_dict(self._start)
        self.step.sums.zero_()
        _zero_state(self.optimizer)


def _zero_state(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def _optimizer(module: nn.Module, way: Way, device: str) -> torch.optim.Optimizer:
    if way.official:
        return torch.optim.Adam(module.parameters(), lr=RATE)
    capturable = way.graph and device == "cuda"
    return torch.optim.AdamW(
        module.parameters(), lr=RATE, weight_decay=0.0, fused=True, capturable=capturable
    )
