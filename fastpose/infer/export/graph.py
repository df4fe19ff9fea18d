"""A network with what surrounds it, as one function of tensors that can be traced."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.backend import use_backend
from fastpose.data.affine import PIXELS_PER_SCALE
from fastpose.errors import ExportError
from fastpose.infer.export.spec import GraphSpec
from fastpose.infer.folded import folded
from fastpose.models.network import Network
from fastpose.reference.decode import Decoded, decode_heatmaps, flip_average
from fastpose.reference.simcc import decode_simcc, flip_bins

EXAMPLES = 2
"""Batch of the example inputs: torch.export takes 0 and 1 for constants."""


class ExportGraph(nn.Module):
    """The inputs of `spec` in their order -> its outputs, a tuple of tensors.

    Everything but the network is `fastpose.reference`, so that a graph means what validation means.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(self, network: Network, spec: GraphSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(spec.meta, name)), persistent=False)
        if spec.flip_test:
            self.register_buffer("order", torch.tensor(spec.flip_index), persistent=False)

    def forward(
        self, pictures: Tensor, center: Tensor | None = None, scale: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        images = pictures
        if self.spec.takes == "crops":
            images = ((pictures.to(torch.float32) / 255.0 - self.mean) / self.std).permute(0, 3, 1, 2)
        if self.spec.flip_test:
            images = torch.cat([images, images.flip(3)])
        found = self._outputs(self.network(images))
        if self.spec.flip_test:
            found = self._averaged(found, pictures.shape[0])
        return tuple(locate(found, self.spec, center, scale)) if self.spec.decode else found

    def _outputs(self, found: Any) -> tuple[Tensor, ...]:
        """What the network gives, in the order of its names in `spec`; of heatmaps the final ones."""
        if self.spec.network == "heatmaps":
            network: Any = self.network
            return (network.heatmaps(found)[-1],)
        if self.spec.network == "queries":
            return found["pred_logits"], found["pred_coords"]
        return found if isinstance(found, tuple) else (found,)

    def _averaged(self, found: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
        """`count` is given: torch.export cannot know that half of twice a free number is that number, and
        takes len() of a tensor for a constant."""
        straight, mirrored = [x[:count] for x in found], [x[count:] for x in found]
        if self.spec.network == "heatmaps":
            return (flip_average(straight[0], mirrored[0], self.order, self.spec.shift),)
        bins_a_pixel = straight[0].shape[2] / self.spec.meta.input_size[0]
        shift = round(bins_a_pixel - 1) if self.spec.shift else 0
        x, y = flip_bins((mirrored[0], mirrored[1]), self.order, shift)
        return (straight[0] + x) * 0.5, (straight[1] + y) * 0.5


def locate(
    found: tuple[Tensor, ...], spec: GraphSpec, center: Tensor | None, scale: Tensor | None
) -> Decoded:
    """What a network gives, averaged where that is wanted -> keypoints as `spec.decode` says."""
    if spec.network == "bins":
        return decode_simcc((found[0], found[1]), center, scale, input_size=spec.meta.input_size)
    heatmaps = found[0]
    how: Any = {"refine": spec.refine, "blur_kernel": spec.blur_kernel, "unit": spec.unit}
    decoded = decode_heatmaps(heatmaps, center, scale, **how)
    less = 1 if spec.unit == "size-1" else 0
    if spec.decode == "image":
        if spec.cell_offset and scale is not None:
            cell = PIXELS_PER_SCALE * scale[:, :1, None] / (heatmaps.shape[3] - less)
            decoded = decoded._replace(keypoints=decoded.keypoints + spec.cell_offset * cell)
        return decoded
    pixels = zip(spec.meta.input_size, (heatmaps.shape[3], heatmaps.shape[2]), strict=True)
    strides = [(crop - less) / (cells - less) for crop, cells in pixels]
    x, y = ((decoded.keypoints[..., i] + spec.cell_offset) * stride for i, stride in enumerate(strides))
    return decoded._replace(keypoints=torch.stack((x, y), dim=-1))


def example_inputs(spec: GraphSpec, count: int = EXAMPLES) -> tuple[Tensor, ...]:
    """Inputs of the right shapes and dtypes."""
    width, height = spec.meta.input_size
    if spec.takes == "crops":
        pictures = torch.zeros(count, height, width, 3, dtype=torch.uint8)
    else:
        pictures = torch.zeros(count, 3, height, width)
    boxes = (torch.zeros(count, 2), torch.ones(count, 2))
    return (pictures, *(boxes if spec.decode == "image" else ()))


def trace(model: Network, spec: GraphSpec) -> torch.export.ExportedProgram:
    """The graph of a network on the CPU in float32, with BatchNorm folded and the batch free.

    `model` itself is not changed. ExportError where torch.export cannot follow the network.
    """
    network = folded(model).float().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    examples = example_inputs(spec)
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in examples)
    with torch.no_grad(), use_backend("reference"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(ExportGraph(network, spec).eval(), examples, dynamic_shapes=shapes)
        except Exception as error:  # the tracer has many of its own
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"{spec.meta.model}: torch.export cannot trace it: {reason}") from error
