"""The ways to run a network that users choose from, on networks with the same weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.captured import Captured
from bench.engines import timm_network
from fastpose.backend import use_backend
from fastpose.infer.folded import folded
from fastpose.models import create_model
from fastpose.nn import BasicBlock, Bottleneck
from fastpose.nn.streams import Mode, use_branch_streams

MODELS = ("hrnet_w48", "hrnet_w32")
SIZES = {"256x192": (192, 256), "384x288": (288, 384)}  # height x width as papers say, (width, height)
BATCHES = (1, 32, 64, 128)
JOINTS = 17
NORMS = {"block": 0.1, "fuse": 0.25}


@dataclass(frozen=True)
class Way:
    """One way to run a network.

    backend: of fastpose's operations; `reference` runs the plain layers.
    precision: `float32`, `autocast` to bfloat16, or `cast`: weights of the convolutions in bfloat16 for good,
        which only inference can do.
    compile: mode of torch.compile; empty: eager.
    graph: on CUDA the whole call is one captured graph.
    streams: of `fastpose.nn.streams`.
    official: loss and optimizer of the official training code, instead of one loss over all joints and fused
        AdamW.
    timm: the features trunk of timm's HRNet in place of the network.
    folded: BatchNorm inside the convolutions, whose weights are in autocast's dtype already, as on a CPU
        predictions run.
    """

    backend: str = "reference"
    precision: str = "autocast"
    layout: torch.memory_format = torch.channels_last
    compile: str = ""
    graph: bool = False
    streams: Mode = "auto"
    official: bool = False
    timm: bool = False
    folded: bool = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Backend and streams of this way."""
        with use_backend(self.backend), use_branch_streams(self.streams):
            yield

    def autocast(self, device: str) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "autocast")

    def place(self, images: Tensor) -> Tensor:
        """Images as this way wants them."""
        dtype = torch.bfloat16 if self.precision == "cast" else torch.float32
        return images.to(dtype=dtype, memory_format=self.layout)


OFFICIAL = Way(precision="float32", layout=torch.contiguous_format, official=True)
AMP = Way(official=True)


def make_network(name: str, device: str, seed: int = 0) -> nn.Module:
    """A network in training mode that rounds about as a trained one.

    He's initialisation, with small scales at the ends of blocks and in the exchanges: an untrained network
    with scales of 1 multiplies rounding errors from layer to layer, until bfloat16 gradients are noise and
    could not show an error. Running statistics are those of a few small random images.
    """
    with torch.random.fork_rng([0] if device == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        network: Any = create_model(name, JOINTS).train()
        network.reset_parameters("kaiming")
        images = torch.randn(4, 3, 64, 64)
    norms: dict[str, Any] = {
        name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    for name, norm in norms.items():
        norm.momentum = None
        if "fuse_layers" in name:
            nn.init.constant_(norm.weight, NORMS["fuse"])
    for block in network.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            last: Any = block.bn2 if isinstance(block, BasicBlock) else block.bn3
            nn.init.constant_(last.weight, NORMS["block"])
    with torch.no_grad(), use_backend("reference"):
        network(images)
    for norm in norms.values():
        norm.momentum = 0.1
    return network


def place_network(network: nn.Module, way: Way) -> nn.Module:
    """A copy of `network` in the layout and, for `cast`, the precision of `way`."""
    torch.backends.cudnn.benchmark = True  # as the official code has it
    placed: Any = timm_network(network) if way.timm else copy.deepcopy(network)
    if way.folded:
        placed = folded(placed, torch.bfloat16 if way.precision == "autocast" else None)
    placed = placed.to(memory_format=way.layout)
    if way.precision == "cast":
        for module in placed.modules():
            if isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    return placed


class Forward:
    """The forward pass of a network in evaluation: images (B, 3, H, W) float32 -> heatmaps."""

    def __init__(self, network: nn.Module, way: Way) -> None:
        self.way = way
        self.network: Any = place_network(network, way).eval()
        if way.compile:
            self.network = torch.compile(self.network, mode=way.compile, dynamic=False)
        self._captured: Captured | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if not (self.way.graph and images.is_cuda):
            return self.run(images)
        if self._captured is None:
            static = torch.empty_like(self.way.place(images))
            self._captured = Captured(self.run, (static.copy_(images),))
        return self._captured(images)

    @torch.no_grad()
    def run(self, images: Tensor) -> Tensor:
        """Without a graph of its own."""
        with self.way.running(), self.way.autocast(images.device.type):
            return self.network(self.way.place(images))
