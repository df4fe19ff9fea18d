"""PRTR, pose by keypoint queries (arXiv:2104.06976): names and numbers of prtr two_stage/lib/models."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.device import without_autocast
from fastpose.errors import ConfigError
from fastpose.models.fit import COUNTER
from fastpose.models.hrnet import CONFIGS, STRIDE
from fastpose.models.hrnet_cls import HRNetBody
from fastpose.models.meta import ModelMeta, StrPath
from fastpose.models.network import PoseModel
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_images, check_input_size
from fastpose.models.weights import load_weights
from fastpose.nn.frozen_norm import FrozenBatchNorm2d
from fastpose.nn.init import reset_convolutions
from fastpose.nn.position import sine_positions
from fastpose.nn.resnet import CHANNELS, ResNetBody
from fastpose.nn.transformer import Transformer

__all__ = [
    "PRTR",
    "prtr_hrnet_w18_small",
    "prtr_hrnet_w32",
    "prtr_hrnet_w48",
    "prtr_resnet50",
    "prtr_resnet101",
    "prtr_resnet152",
]

QUERIES = 100
INPUT_SIZE = (288, 384)
BODY = "backbone.0.body."
OLD_BODY = "backbone.body."
"""Of the authors' older files."""

CLASSIFIERS = ("fc.", "classifier.")
"""What ImageNet files of ResNet and HRNet hold besides the body."""

BOX_HEAD = "bbox_embed."
"""Only detectors of the DETR family have one."""


class Backbone(nn.Module):
    """Gives the body its official name."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Mlp(nn.Module):
    """Linear layers with ReLU between them: (..., sizes[0]) -> (..., sizes[-1])."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class PRTR(PoseModel):
    """Images (B, 3, H, W), normalised -> what each of Q learned queries has found.

    The output is a dict: `pred_logits` (B, Q, K + 1), the last class for no keypoint, `pred_coords`
    (B, Q, 2), (x, y) from 0 to 1 of the crop's width and height, and `aux_outputs`, the same two of every
    decoder layer before the last, in order. Heads compute in the dtype of their weights, also under autocast:
    bfloat16 tells positions in a crop apart by a pixel or two. H and W must be multiples of 32, else
    ValueError. `fastpose.infer.queries.decode_queries` makes keypoints of the output,
    `fastpose.train.set_objective` a loss.

    Args:
        body: images -> features (B, 2048, H / 32, W / 32).
        channels, layers: of the transformer, `layers` each in encoder and decoder.
        num_queries: at least the number of joints, else ConfigError.
    """

    output = "queries"
    backbone_layers = ("backbone",)
    head_extra: ClassVar[int] = 1  # classes of the head besides the joints

    def __init__(
        self,
        body: nn.Module,
        meta: ModelMeta,
        *,
        channels: int = 256,
        layers: int = 6,
        num_queries: int = QUERIES,
    ) -> None:
        super().__init__(meta)
        if meta.num_joints > num_queries:
            raise ConfigError(
                f"{meta.model}: {meta.num_joints} joints need as many queries, it has {num_queries}"
            )
        self.transformer = Transformer(channels, layers, layers)
        self.backbone = nn.Sequential(Backbone(body))
        self.class_embed = nn.Linear(channels, meta.num_joints + self.head_extra)
        self.kpt_embed = Mlp(channels, channels, channels, 2)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.input_proj = nn.Conv2d(CHANNELS, channels, 1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "official") -> None:
        """Fresh parameters: a Kaiming backbone, Xavier matrices in the transformer, PyTorch's own elsewhere.

        'official' and 'kaiming' are the same here; another name raises ConfigError. The official runs start
        from an ImageNet backbone; without one the frozen layers of a ResNet stay as they are drawn.
        """
        reset_convolutions(self.backbone, "kaiming" if init == "official" else init, last=self.backbone)
        self.transformer.reset_parameters()
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.reset_parameters()
        heads = (self.class_embed, *self.kpt_embed.layers, self.query_embed, self.input_proj)
        for layer in heads:
            layer.reset_parameters()

    def forward(self, x: Tensor) -> dict[str, Any]:
        check_images("PRTR", x, STRIDE)
        tokens = self.input_proj(self.backbone(x))
        height, width = tokens.shape[2:]
        positions = sine_positions(height, width, tokens.shape[1], tokens.device).to(tokens.dtype)
        states = self.transformer(tokens.flatten(2).transpose(1, 2), positions, self.query_embed.weight)
        with without_autocast(x.device):
            states = states.to(self.class_embed.weight.dtype)
            logits, coords = self.class_embed(states), self.kpt_embed(states).sigmoid()
        *aux, last = (
            {"pred_logits": a, "pred_coords": b}
            for a, b in zip(logits.unbind(), coords.unbind(), strict=True)
        )
        return {**last, "aux_outputs": aux}

    def adapt_names(self, found: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Takes the authors' older files, and ImageNet and DETR files as backbones.

        Left out are an ImageNet classifier, all of DETR but its backbone, and the step counters of BatchNorms
        that are frozen here.
        """
        detector = any(name.startswith(BOX_HEAD) for name in found)
        plain = not any(name.startswith(("backbone.", "transformer.")) for name in found)
        own = self.state_dict()
        kept, unused = {}, []
        for old, tensor in found.items():
            name = BODY + old if plain else old
            if old.startswith(OLD_BODY):
                name = BODY + old.removeprefix(OLD_BODY)
            surplus = plain and old.startswith(CLASSIFIERS)
            surplus |= detector and not name.startswith(BODY)
            if surplus or (name.endswith(COUNTER) and name not in own):
                unused.append(old)
            else:
                kept[name] = tensor
        return kept, unused


def _frozen_resnet(depth: int) -> ResNetBody:
    """Its BatchNorms, conv1 and layer1 stay as ImageNet left them (prtr lib/models/backbone.py)."""
    body = ResNetBody(depth, norm=FrozenBatchNorm2d)
    for part in (body.conv1, body.layer1):
        part.requires_grad_(False)
    return body


def _create(
    body: nn.Module, meta: ModelMeta, weights: StrPath | None, options: dict[str, Any], **size: int
) -> PRTR:
    model = PRTR(body, meta.with_options(options), **size)
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    check_input_size(model.meta, STRIDE)
    return model


def _create_resnet(depth: int, num_joints: int, weights: StrPath | None, options: dict[str, Any]) -> PRTR:
    meta = ModelMeta(f"prtr_resnet{depth}", num_joints, INPUT_SIZE, channel_order="bgr")
    return _create(_frozen_resnet(depth), meta, weights, options)


def _create_hrnet(
    width: str, num_joints: int, weights: StrPath | None, options: dict[str, Any], **size: int
) -> PRTR:
    meta = ModelMeta(f"prtr_hrnet_{width}", num_joints, INPUT_SIZE)
    return _create(HRNetBody(CONFIGS[f"hrnet_{width}"]), meta, weights, options, **size)


@register_model
def prtr_resnet50(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with ResNet-50, 41.5 million parameters, of which 41.3 million are trained.

    Arguments as for `hrnet_w32`, but where nothing else speaks, input_size is (288, 384) and, as for all
    official weights with a ResNet, the channel order 'bgr', normalised with ImageNet's RGB statistics.
    Weights of ImageNet (torchvision's names) and DETR's official files fill the backbone alone: transformer,
    queries and heads start fresh, as in the official runs.
    """
    return _create_resnet(50, num_joints, weights, options)


@register_model
def prtr_resnet101(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with ResNet-101, 60.4 million parameters; arguments as for `prtr_resnet50`."""
    return _create_resnet(101, num_joints, weights, options)


@register_model
def prtr_resnet152(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with ResNet-152, 76.1 million parameters; arguments as for `prtr_resnet50`.

    The official tables list it, but the published code refuses this depth.
    """
    return _create_resnet(152, num_joints, weights, options)


@register_model
def prtr_hrnet_w32(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with the classification HRNet-W32, 57.2 million parameters, all of them trained.

    Arguments as for `hrnet_w32`, but input_size is (288, 384) where nothing else speaks. ImageNet weights of
    HRNet fill the backbone, its classification head included.
    """
    return _create_hrnet("w32", num_joints, weights, options)


@register_model
def prtr_hrnet_w48(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with the classification HRNet-W48; arguments as for `prtr_hrnet_w32`."""
    return _create_hrnet("w48", num_joints, weights, options)


@register_model
def prtr_hrnet_w18_small(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PRTR:
    """PRTR with the classification HRNet-W18-small-v2, small enough to train on a CPU.

    17.6 million parameters; three layers of 128 channels in encoder and decoder, 50 queries. A size of this
    project, nobody publishes weights of it. Arguments as for `prtr_hrnet_w32`.
    """
    return _create_hrnet("w18_small", num_joints, weights, options, channels=128, layers=3, num_queries=50)
