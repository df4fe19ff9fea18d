"""SimpleBaseline (arXiv:1804.06208): parameter names and numbers of hrnet lib/models/pose_resnet.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastpose.models.meta import ModelMeta, StrPath
from fastpose.models.network import PoseModel
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_images, check_input_size
from fastpose.models.weights import load_weights
from fastpose.nn.init import reset_convolutions
from fastpose.nn.resnet import CHANNELS, STRIDE, resnet_layers, resnet_stem

__all__ = ["PoseResNet", "pose_resnet50", "pose_resnet101", "pose_resnet152"]

DECONV_LAYERS = 3
DECONV_CHANNELS = 256


class PoseResNet(PoseModel):
    """Images (B, 3, H, W), normalised -> heatmaps (B, num_joints, H / 4, W / 4).

    A ResNet of `depth` 50, 101 or 152 (else ValueError), three transposed convolutions, a 1x1 convolution.
    H and W must be multiples of 32 (else ValueError): the official network rounds other sizes up, and its
    heatmaps then no longer lie on a grid of 4 pixels. Stride 2 is on the 3x3 convolutions, as in all
    published weights; the Caffe style of the first repository, on the 1x1, is not here.
    """

    backbone_layers = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, depth: int, meta: ModelMeta) -> None:
        super().__init__(meta)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet_stem()
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet_layers(depth)
        self.deconv_layers = nn.Sequential(*_deconvolutions(CHANNELS))
        self.final_layer = nn.Conv2d(DECONV_CHANNELS, meta.num_joints, 1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "official") -> None:
        """As `HRNet.reset_parameters`: 'official' is N(0, 0.001), 'kaiming' learns faster from nothing."""
        reset_convolutions(self, init, last=self.final_layer)

    def forward(self, x: Tensor) -> Tensor:
        check_images("PoseResNet", x, STRIDE)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.final_layer(self.deconv_layers(x))


def _deconvolutions(inputs: int) -> list[nn.Module]:
    """Each doubles the size: 4x4 of stride 2 without bias, BatchNorm, ReLU."""
    layers: list[nn.Module] = []
    for _ in range(DECONV_LAYERS):
        deconv = nn.ConvTranspose2d(inputs, DECONV_CHANNELS, 4, stride=2, padding=1, bias=False)
        layers += [deconv, nn.BatchNorm2d(DECONV_CHANNELS), nn.ReLU(inplace=True)]
        inputs = DECONV_CHANNELS
    return layers


def _create(depth: int, num_joints: int, weights: StrPath | None, options: dict[str, Any]) -> PoseResNet:
    meta = ModelMeta(f"pose_resnet{depth}", num_joints, channel_order="bgr").with_options(options)
    model = PoseResNet(depth, meta)
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    check_input_size(model.meta, STRIDE)
    return model


@register_model
def pose_resnet50(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PoseResNet:
    """SimpleBaseline with ResNet-50, 34.0 million parameters.

    Arguments as for `hrnet_w32`, but the channel order is 'bgr' where nothing else says so: all official
    pose_resnet weights take BGR pixels, normalised with ImageNet's RGB statistics. ImageNet weights of
    torchvision (RGB) load as a backbone, and the official runs start from them with BGR pixels all the same.
    """
    return _create(50, num_joints, weights, options)


@register_model
def pose_resnet101(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PoseResNet:
    """SimpleBaseline with ResNet-101, 53.0 million parameters; arguments as for `pose_resnet50`."""
    return _create(101, num_joints, weights, options)


@register_model
def pose_resnet152(num_joints: int = 17, *, weights: StrPath | None = None, **options: Any) -> PoseResNet:
    """SimpleBaseline with ResNet-152, 68.6 million parameters; arguments as for `pose_resnet50`."""
    return _create(152, num_joints, weights, options)
