"""The fused sums of HRNet as layers and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.models.hrnet import CONFIGS
from fastpose.nn.blocks import conv_bn
from fastpose.nn.fuse import Branch, Sum
from fastpose.reference.fuse import Path, Row

SIZE = (64, 48)  # height and width of branch 0 and of layer1, for images of 256x192


class SumShape(NamedTuple):
    """One output, `channels` at `level`, of source `identity` (-1: none) and (source, weighted) paths."""

    channels: int
    level: int
    identity: int
    paths: tuple[tuple[int, bool], ...]


@dataclass(frozen=True)
class FuseShape:
    """What one call of `fastpose.ops.fuse` takes: sources (channels, level), level l being `size` / 2^l."""

    sources: tuple[tuple[int, int], ...]
    sums: tuple[SumShape, ...]
    size: tuple[int, int] = SIZE


def exchange(widths: Sequence[int], outputs: int | None = None) -> FuseShape:
    """The exchange of branches `widths` wide, or its first outputs; strided convolutions are done already."""
    sources = [(channels, level) for level, channels in enumerate(widths)]
    sums = []
    for i, channels in enumerate(widths[:outputs]):
        down = [(len(sources) + j, False) for j in range(i)]
        sources += [(channels, i)] * i
        up = [(j, True) for j in range(i + 1, len(widths))]
        sums.append(SumShape(channels, i, i, (*down, *up)))
    return FuseShape(tuple(sources), tuple(sums))


def bottleneck(shortcut: bool = False) -> FuseShape:
    """The end of a block of layer1, 64 -> 256, with the identity or, in the first block, a 1x1 shortcut."""
    if shortcut:
        return FuseShape(((64, 0), (64, 0)), (SumShape(256, 0, -1, ((0, True), (1, True))),))
    return FuseShape(((256, 0), (64, 0)), (SumShape(256, 0, 0, ((1, True),)),))


def branch_widths(network: str) -> list[int]:
    """Of the four branches of `hrnet_<network>`."""
    return [CONFIGS[f"hrnet_{network}"].width << level for level in range(4)]


def network_shapes(network: str) -> list[tuple[FuseShape, int]]:
    """All fused sums of `hrnet_<network>`, each with how often it occurs."""
    config, widths = CONFIGS[f"hrnet_{network}"], branch_widths(network)
    two, three, four = config.modules
    return [
        (exchange(widths[:2]), two),
        (exchange(widths[:3]), three),
        (exchange(widths), four - 1),
        (exchange(widths, 1), 1),
        (bottleneck(shortcut=True), 1),
        (bottleneck(), config.layer1_blocks - 1),
    ]


class Layers(nn.Module):
    """The sums as the official network computes them: list of images in, list of outputs out.

    `sums` is the same for `fastpose.nn.fuse.fuse_sums`, with the same parameters and running statistics.
    """

    def __init__(self, shape: FuseShape) -> None:
        super().__init__()
        self.shape = shape
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for one in shape.sums:
            for source, weighted in one.paths:
                conv, norm = conv_bn(shape.sources[source][0], one.channels, 1)
                self.convs.append(conv if weighted else nn.Identity())
                self.norms.append(norm)

    def reset(self, draw: torch.Generator) -> Layers:
        """Random parameters and running statistics; what a path adds is about as large as an image."""
        with torch.no_grad():
            for conv in self.convs:
                for weight in conv.parameters():  # bfloat16 holds it, so that casting it is no error
                    weight.normal_(0, weight.shape[1] ** -0.5, generator=draw).copy_(weight.bfloat16())
            for name, vector in (*self.norms.named_parameters(), *self.norms.named_buffers()):
                if name.endswith(("weight", "running_var")):
                    vector.uniform_(0.5, 1.5, generator=draw)
                elif name.endswith(("bias", "running_mean")):
                    vector.normal_(0, 0.3, generator=draw)
        return self

    def sums(self, images: Sequence[Tensor]) -> list[Sum]:
        layers = zip(self.convs, self.norms, strict=True)
        sums = []
        for one in self.shape.sums:
            identity = images[one.identity] if one.identity >= 0 else None
            branches = []
            for source, weighted in one.paths:
                conv, norm = next(layers)
                branches.append(Branch(images[source], conv if weighted else None, norm))
            sums.append(Sum(identity, tuple(branches)))
        return sums

    def rows(self, images: Sequence[Tensor]) -> list[Row]:
        """For `fastpose.ops.fuse`; in evaluation with the running statistics."""
        return [Row(one.identity, tuple(map(_path, one.branches))) for one in self.sums(images)]

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        outputs = []
        for shape, one in zip(self.shape.sums, self.sums(images), strict=True):
            total = one.identity
            for branch in one.branches:
                z = branch.norm(branch.x if branch.conv is None else branch.conv(branch.x))
                factor = (self.shape.size[0] >> shape.level) // z.shape[2]
                z = z if factor == 1 else F.interpolate(z, scale_factor=factor, mode="nearest")
                total = z if total is None else total + z
            outputs.append(torch.relu(total))  # type: ignore[arg-type]
        return outputs


def draw_images(
    shape: FuseShape, batch: int, dtype: torch.dtype, channels_last: bool, draw: torch.Generator
) -> list[Tensor]:
    """One image for each source, as behind a ReLU, on the device of `draw`."""
    images = []
    for channels, level in shape.sources:
        size = batch, channels, shape.size[0] >> level, shape.size[1] >> level
        x = torch.randn(size, generator=draw, device=draw.device).relu_().to(dtype)
        images.append(x.contiguous(memory_format=torch.channels_last) if channels_last else x)
    return images


def meta_images(shape: FuseShape, batch: int, dtype: torch.dtype, channels_last: bool) -> list[Tensor]:
    """What `draw_images` gives, without values."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty(
            (batch, channels, shape.size[0] >> level, shape.size[1] >> level),
            dtype=dtype, device="meta", memory_format=layout,
        )
        for channels, level in shape.sources
    ]  # fmt: skip


def _path(branch: Branch) -> Path:
    norm, weight = branch.norm, None if branch.conv is None else branch.conv.weight
    given = (None, None) if norm.training else (norm.running_mean, norm.running_var)
    return Path(branch.x, weight, norm.weight, norm.bias, *given)
