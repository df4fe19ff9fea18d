"""Stacked hourglass networks (arXiv:1603.06937): one builder for the official one and its variants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.errors import ConfigError
from fastpose.models.hourglass_blocks import (
    KINDS,
    PostLevel,
    PreLevel,
    PreResidual,
    Residuals,
    conv_block,
    residual,
)
from fastpose.models.meta import ModelMeta
from fastpose.models.network import PoseModel
from fastpose.models.sizes import check_images

__all__ = ["Hourglass", "HourglassConfig"]


@dataclass(frozen=True)
class HourglassConfig:
    """`stacks` hourglasses in a row, each `depth` halvings deep and `width` wide; impossible values raise
    ConfigError.

    `residual`: 'pre' is the block of the paper (BatchNorm, ReLU, convolution); 'post' turns it round
    (convolution, ReLU, BatchNorm) and puts a block before and after each join of scales; 'separable' is
    'post' with depthwise-separable convolutions. `num_modules` residuals stand at each place of an hourglass
    and, with 'pre', after it. `stem_widths` are those of the first two residuals; the third is `width` wide.
    """

    stacks: int
    depth: int = 4
    num_modules: int = 1
    width: int = 256
    stem_widths: tuple[int, int] = (128, 128)
    residual: Residuals = "pre"

    def __post_init__(self) -> None:
        for name, least in (("stacks", 1), ("depth", 1), ("num_modules", 1), ("width", 2)):
            _check_number(name, getattr(self, name), least)
        if not isinstance(self.stem_widths, tuple | list) or len(self.stem_widths) != 2:
            raise ConfigError(f"stem_widths must be two widths, got {self.stem_widths!r}")
        for value in self.stem_widths:
            _check_number("stem_widths", value, 2)
        if self.residual not in KINDS:
            raise ConfigError(f"residual must be 'pre', 'post' or 'separable', got {self.residual!r}")

    @property
    def stride(self) -> int:
        """Of the coarsest maps: the input's width and height must be multiples of it."""
        return 4 * 2**self.depth


class Hourglass(PoseModel):
    """Images (B, 3, H, W), normalised -> heatmaps (B, stacks, num_joints, H / 4, W / 4), the final ones last.

    Every stack predicts, in training and in evaluation, and `heatmaps` lists the predictions for a loss over
    all of them. H and W must be multiples of `config.stride` (else ValueError): scales are halved and joined
    again. Names of parameters as in pytorch_stacked_hourglass models/posenet.py, without the ones that never
    get a gradient there: shortcuts that nobody calls. Files that hold them load all the same. The number of
    modules is that of `config`, and travels in `meta`.
    """

    has_modules = True

    def __init__(self, config: HourglassConfig, meta: ModelMeta) -> None:
        super().__init__(replace(meta, num_modules=config.num_modules))
        self.config = config
        stacks, width = range(config.stacks), config.width
        self.pre = _stem(config)
        self.hgs = nn.ModuleList(nn.Sequential(_hourglass(config)) for _ in stacks)
        self.features = nn.ModuleList(_features(config) for _ in stacks)
        self.outs = nn.ModuleList(conv_block(width, meta.num_joints, 1) for _ in stacks)
        # The last stack has nothing to hand on.
        self.merge_features = nn.ModuleList(_merge(width, width) for _ in stacks[1:])
        self.merge_preds = nn.ModuleList(_merge(meta.num_joints, width) for _ in stacks[1:])
        self.reset_parameters()

    def reset_parameters(self, init: str = "official") -> None:
        """Fresh parameters: BatchNorm 1 and 0, and convolutions by `init`.

        'official' is PyTorch's own initialisation for 'pre' residuals, as in pytorch_stacked_hourglass, and
        for the others Keras's, Glorot uniform with biases 0. 'kaiming' is fan-out for ReLU with biases 0 and
        N(0, 0.001) in the layers that predict. Another name raises ConfigError.
        """
        if init not in ("official", "kaiming"):
            raise ConfigError(f"init must be 'official' or 'kaiming', got {init!r}")
        glorot = init == "official" and self.config.residual != "pre"
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                module.reset_parameters()
                if glorot:
                    nn.init.xavier_uniform_(module.weight)
                elif init == "kaiming":
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None and (glorot or init == "kaiming"):
                    nn.init.zeros_(module.bias)
        if init == "kaiming":
            for out in self.outs:
                nn.init.normal_(out.get_parameter("conv.weight"), std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        check_images(type(self).__name__, x, self.config.stride)
        x = self.pre(x)
        outputs = []
        for i, (hourglass, features, out) in enumerate(zip(self.hgs, self.features, self.outs, strict=True)):
            found = features(hourglass(x))
            outputs.append(out(found))
            if i < len(self.merge_preds):
                x = x + self.merge_preds[i](outputs[-1]) + self.merge_features[i](found)
        return torch.stack(outputs, 1)

    def heatmaps(self, output: Tensor) -> list[Tensor]:
        return list(output.unbind(1))

    def adapt_names(self, found: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Leaves out what official files hold and nobody calls: shortcuts between equal widths, and layers
        that hand on from the last stack."""
        dead = [f"merge_{kind}.{self.config.stacks - 1}." for kind in ("features", "preds")]
        for name, module in self.named_modules():
            if isinstance(module, PreResidual) and module.skip_layer is None:
                dead.append(f"{name}.skip_layer.")
        unused = [name for name in found if name.startswith(tuple(dead))]
        return {name: tensor for name, tensor in found.items() if name not in unused}, unused

    def conventions_of(self, unused: list[str]) -> dict[str, Any]:
        """Shortcuts that nobody calls are in files of pytorch_stacked_hourglass, which cuts the centre of a
        target off to a whole cell, moves a peak by a quarter in each axis, and does not shift the mirrored
        picture (utils/group.py)."""
        official = any(".skip_layer." in name for name in unused)
        return {"shift": False, "refine": "quarter_each", "cell_offset": 0.5} if official else {}


def _stem(config: HourglassConfig) -> nn.Sequential:
    """The image at a quarter of its size, `width` channels wide."""
    first, second = config.stem_widths
    return nn.Sequential(
        conv_block(3, 64, 7, *_order(config), stride=2),
        residual(config.residual, 64, first),
        nn.MaxPool2d(2),
        residual(config.residual, first, second),
        residual(config.residual, second, config.width),
    )


def _order(config: HourglassConfig) -> tuple[str, str]:
    return ("bn", "relu") if config.residual == "pre" else ("relu", "bn")


def _hourglass(config: HourglassConfig) -> nn.Module:
    if config.residual == "pre":
        return PreLevel(config.depth, config.width, config.num_modules)
    return PostLevel(config.residual, config.depth, config.width, config.num_modules)


def _features(config: HourglassConfig) -> nn.Sequential:
    """Between an hourglass and its prediction."""
    count = config.num_modules if config.residual == "pre" else 0
    blocks = [residual(config.residual, config.width, config.width) for _ in range(count)]
    return nn.Sequential(*blocks, conv_block(config.width, config.width, 1, *_order(config)))


def _merge(inputs: int, outputs: int) -> nn.Sequential:
    merge = nn.Sequential()
    merge.add_module("conv", conv_block(inputs, outputs, 1))
    return merge


def _check_number(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
