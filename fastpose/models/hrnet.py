"""HRNet for pose (arXiv:1902.09212): parameter names and numbers of hrnet lib/models/pose_hrnet.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastpose.models.meta import ModelMeta, StrPath
from fastpose.models.network import PoseModel
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_images, check_input_size
from fastpose.models.weights import load_weights
from fastpose.nn import BasicBlock, Bottleneck, Exchange, conv_bn, residual_layer
from fastpose.nn.blocks import Activation, relu
from fastpose.nn.init import reset_convolutions
from fastpose.nn.streams import run_branches

__all__ = ["HRNet", "HRNetConfig", "hrnet_w18_small", "hrnet_w32", "hrnet_w48"]

STRIDE = 32
"""Of the coarsest branch: the input's width and height must be multiples of it."""


@dataclass(frozen=True)
class HRNetConfig:
    """Branch i is `width * 2^i` wide; `blocks` BasicBlocks per branch; `modules` of the stages 2, 3 and 4."""

    width: int
    layer1_blocks: int = 4
    blocks: int = 4
    modules: tuple[int, int, int] = (1, 4, 3)


CONFIGS = {
    "hrnet_w32": HRNetConfig(width=32),
    "hrnet_w48": HRNetConfig(width=48),
    "hrnet_w18_small": HRNetConfig(width=18, layer1_blocks=2, blocks=2, modules=(1, 3, 2)),
}


class HRModule(nn.Module):
    """Parallel branches of BasicBlocks, then the exchange between them: list of branches in and out.

    `exchange(widths, num_outputs)` builds the exchange.
    """

    def __init__(
        self,
        widths: list[int],
        blocks: int,
        num_outputs: int,
        exchange: Callable[[list[int], int], nn.Module] = Exchange,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            residual_layer(BasicBlock, w, w, blocks, activation=activation) for w in widths
        )
        self.fuse_layers = exchange(widths, num_outputs)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return self.fuse_layers(run_branches(list(self.branches), branches))


class Transition(nn.ModuleList):
    """Adds one branch at half the resolution of the last one; existing branches change only their width."""

    def __init__(self, old: list[int], new: list[int], activation: Activation = relu) -> None:
        kept = (
            nn.Identity() if a == b else nn.Sequential(*conv_bn(a, b, 3), activation())
            for a, b in zip(old, new, strict=False)
        )
        down = nn.Sequential(*conv_bn(old[-1], new[-1], 3, 2), activation())
        super().__init__([*kept, nn.Sequential(down)])

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [path(branches[min(i, len(branches) - 1)]) for i, path in enumerate(self)]


class HRNet(PoseModel):
    """Images (B, 3, H, W), normalised -> heatmaps (B, num_joints, H / 4, W / 4).

    H and W must be multiples of 32 (else ValueError): the branches are halved five times and added again. The
    official network fails there with a shape mismatch deep inside; padding would move the heatmap's grid.
    """

    backbone_layers = (
        "conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2", "stage3",
        "transition3", "stage4",
    )  # fmt: skip

    def __init__(self, config: HRNetConfig, meta: ModelMeta) -> None:
        super().__init__(meta)
        w = [config.width * 2**i for i in range(4)]
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layer(Bottleneck, 64, 64, config.layer1_blocks)
        self.transition1 = Transition([64 * Bottleneck.expansion], w[:2])
        self.stage2 = _stage(config, w[:2], config.modules[0])
        self.transition2 = Transition(w[:2], w[:3])
        self.stage3 = _stage(config, w[:3], config.modules[1])
        self.transition3 = Transition(w[:3], w)
        self.stage4 = _stage(config, w, config.modules[2], last_outputs=1)
        self.final_layer = nn.Conv2d(w[0], meta.num_joints, 1)
        # The classification network keeps all four outputs of its last exchange.
        self.backbone_extra = (f"stage4.{config.modules[2] - 1}.fuse_layers.",)
        self.reset_parameters()

    def reset_parameters(self, init: str = "official") -> None:
        """Fresh parameters: BatchNorm 1 and 0, biases 0, and convolutions by `init`.

        'official' is N(0, 0.001), meant to be followed by ImageNet weights (hrnet lib/models/pose_hrnet.py);
        'kaiming' is that of HRNet's classification networks, fan-out for ReLU, which learns faster from
        nothing; the last layer stays N(0, 0.001). Another name raises ConfigError.
        """
        reset_convolutions(self, init, last=self.final_layer)

    def forward(self, x: Tensor) -> Tensor:
        check_images("HRNet", x, STRIDE)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = self.stage2(self.transition1([self.layer1(x)]))
        branches = self.stage3(self.transition2(branches))
        branches = self.stage4(self.transition3(branches))
        return self.final_layer(branches[0])


def _stage(
    config: HRNetConfig, widths: list[int], modules: int, last_outputs: int | None = None
) -> nn.Sequential:
    outputs = [len(widths)] * modules
    outputs[-1] = last_outputs or len(widths)
    return nn.Sequential(*(HRModule(widths, config.blocks, n) for n in outputs))


def _create(name: str, num_joints: int, weights: StrPath | None, options: dict[str, Any]) -> HRNet:
    meta = ModelMeta(name, num_joints).with_options(options)
    model = HRNet(CONFIGS[name], meta)
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    check_input_size(model.meta, STRIDE)
    return model


@register_model
def hrnet_w32(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> HRNet:
    """HRNet-W32, 28.5 million parameters.

    `weights`: a file that `fastpose.models.load_weights` reads; without one the official initialisation.
    Options: `channel_order` ('rgb' | 'bgr'), `input_size` (width, height) in pixels, `keypoints`
    (KeypointSet). They override what the weights file says; where neither speaks, the official 'rgb' and
    (192, 256) hold and the keypoints are None.
    Raises ConfigError for an argument that cannot be, CheckpointError for a file that cannot be used.
    """
    return _create("hrnet_w32", num_joints, weights, options)


@register_model
def hrnet_w48(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> HRNet:
    """HRNet-W48, 63.6 million parameters; arguments as for `hrnet_w32`."""
    return _create("hrnet_w48", num_joints, weights, options)


@register_model
def hrnet_w18_small(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> HRNet:
    """HRNet-W18-small-v2 with the pose head, small enough to train on a CPU; arguments as for `hrnet_w32`."""
    return _create("hrnet_w18_small", num_joints, weights, options)
