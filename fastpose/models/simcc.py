"""SimCC (arXiv:2107.03332) on the networks of heatmaps: names and numbers of mmpose's SimCCHead."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fastpose.models.hrnet import CONFIGS, STRIDE, HRNet, HRNetConfig
from fastpose.models.meta import ModelMeta, StrPath
from fastpose.models.network import PoseModel
from fastpose.models.pose_resnet import PoseResNet
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_input_size
from fastpose.models.weights import layer_options, load_weights
from fastpose.reference.simcc import count_bins

__all__ = ["SimCCHRNet", "SimCCPoseResNet", "simcc_hrnet_w32", "simcc_hrnet_w48", "simcc_resnet50"]

CELL = 4
"""Pixels of the input along the side of one cell of the maps."""

DECONV_HEAD = "deconv_head."
"""Where mmpose keeps the transposed convolutions and the last one."""


class SimCC(PoseModel):
    """What makes a network of heatmaps one of bins: two linear layers that read each joint's whole map.

    Images (B, 3, H, W), normalised -> x (B, num_joints, bins of x) and y (B, num_joints, bins of y), logits;
    `meta.split_ratio` bins a pixel. H and W must be those of `meta.input_size`, else ValueError, as the
    linear layers have one weight for each cell. `fastpose.reference.simcc` has targets, loss and decoder.
    """

    output: ClassVar[Literal["heatmaps", "queries", "bins"]] = "bins"

    def add_axes(self) -> None:
        """The two layers, after those of the heatmaps."""
        width, height = self.meta.input_size
        cells = (width // CELL) * (height // CELL)
        bins_x, bins_y = count_bins(self.meta.input_size, self.meta.split_ratio)
        self.mlp_head_x = nn.Linear(cells, bins_x)
        self.mlp_head_y = nn.Linear(cells, bins_y)
        for layer in (self.mlp_head_x, self.mlp_head_y):
            _reset(layer)

    def reset_parameters(self, init: str = "official") -> None:
        """As `HRNet.reset_parameters`, and N(0, 0.01) for the linear layers."""
        super().reset_parameters(init)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _reset(module)

    def forward(self, x: Tensor) -> Any:
        """Two tensors, of x and of y; `Any` as the network of heatmaps gives one."""
        maps = super().forward(x)
        width, height = self.meta.input_size
        if tuple(x.shape[2:]) != (height, width):
            raise ValueError(
                f"{self.meta.model} was built for inputs of width {width}, height {height}, "
                f"got width {x.shape[3]}, height {x.shape[2]}"
            )
        cells = maps.flatten(2)
        return self.mlp_head_x(cells), self.mlp_head_y(cells)

    def heatmaps(self, output: Any) -> list[Tensor]:
        raise TypeError(f"{self.meta.model} predicts bins of x and of y, not heatmaps")

    def adapt_names(self, found: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return {name.removeprefix(DECONV_HEAD): tensor for name, tensor in found.items()}, []


class SimCCPoseResNet(SimCC, PoseResNet):
    """`SimCC` on SimpleBaseline; `depth` as for `PoseResNet`."""

    def __init__(self, depth: int, meta: ModelMeta) -> None:
        super().__init__(depth, meta)
        self.add_axes()


class SimCCHRNet(SimCC, HRNet):
    """`SimCC` on HRNet."""

    def __init__(self, config: HRNetConfig, meta: ModelMeta) -> None:
        super().__init__(config, meta)
        self.add_axes()


def _reset(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def _meta(name: str, num_joints: int, weights: StrPath | None, options: dict[str, Any]) -> ModelMeta:
    meta = ModelMeta(name, num_joints, codec="simcc").with_options(layer_options(name, weights))
    meta = meta.with_options(options)
    check_input_size(meta, STRIDE)
    return meta


def _load(model: Any, weights: StrPath | None, options: dict[str, Any]) -> Any:
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    return model


@register_model
def simcc_resnet50(
    num_joints: int = 17, *, weights: StrPath | None = None, **options: Any
) -> SimCCPoseResNet:
    """SimCC with ResNet-50 and SimpleBaseline's transposed convolutions, 36.8 million parameters at 256x192.

    Arguments as for `hrnet_w32`, and `split_ratio`, bins a pixel, 2 by default. Layers depend on it and on
    `input_size`: give them with weights that do not say theirs. Channels are 'rgb', as mmpose has them.
    """
    meta = _meta("simcc_resnet50", num_joints, weights, options)
    return _load(SimCCPoseResNet(50, meta), weights, options)


@register_model
def simcc_hrnet_w32(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> SimCCHRNet:
    """SimCC with HRNet-W32, 31.3 million parameters at 256x192; arguments as for `simcc_resnet50`."""
    meta = _meta("simcc_hrnet_w32", num_joints, weights, options)
    return _load(SimCCHRNet(CONFIGS["hrnet_w32"], meta), weights, options)


@register_model
def simcc_hrnet_w48(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> SimCCHRNet:
    """SimCC with HRNet-W48, 66.3 million parameters at 256x192; arguments as for `simcc_resnet50`."""
    meta = _meta("simcc_hrnet_w48", num_joints, weights, options)
    return _load(SimCCHRNet(CONFIGS["hrnet_w48"], meta), weights, options)
