"""The stacked hourglass networks that have a name, and how each of them is fed."""

from __future__ import annotations

from typing import Any

from fastpose.models.hourglass import Hourglass, HourglassConfig
from fastpose.models.meta import ModelMeta, StrPath, Triple
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_input_size
from fastpose.models.weights import layer_options, load_weights

__all__ = [
    "hourglass2",
    "hourglass2_mobile",
    "hourglass2_paper",
    "hourglass2_post",
    "hourglass8",
    "hourglass8_mobile",
    "hourglass8_paper",
    "hourglass8_post",
]

NO_MEAN: Triple = (0.0, 0.0, 0.0)
MPII_MEAN: Triple = (0.4404, 0.4440, 0.4327)
UNSCALED: Triple = (1.0, 1.0, 1.0)

PAPER = {"stem_widths": (128, 256)}
POST = {"depth": 3, "residual": "post"}
MOBILE = {"depth": 3, "residual": "separable"}


def _create(
    stacks: int,
    variant: dict[str, Any],
    meta: ModelMeta,
    weights: StrPath | None,
    options: dict[str, Any],
) -> Hourglass:
    meta = meta.with_options(layer_options(meta.model, weights)).with_options(options)
    config = HourglassConfig(stacks, num_modules=meta.num_modules, **variant)
    model = Hourglass(config, meta)
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    check_input_size(model.meta, config.stride)
    return model


def _meta(name: str, num_joints: int, mean: Triple = MPII_MEAN) -> ModelMeta:
    return ModelMeta(name, num_joints, input_size=(256, 256), mean=mean, std=UNSCALED)


@register_model
def hourglass2(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Two stacks as in pytorch_stacked_hourglass, 6.6 million parameters; MPII PCKh@0.5 88.3 there.

    `weights`: a file that `fastpose.models.load_weights` reads, official checkpoints among them; without one
    the official initialisation. Options: `channel_order` ('rgb' | 'bgr'), `input_size` (width, height) in
    pixels, `keypoints` (KeypointSet), `mean` and `std` of pixel / 255. They override what the weights file
    says; where neither speaks, 'rgb' and (256, 256) hold, the pixels go in as pixel / 255 and the keypoints
    are None. And `num_modules`, residuals at each place (the paper's Torch code: nModules), which are 1
    where the file does not say.
    Raises ConfigError for an argument that cannot be, CheckpointError for a file that cannot be used.
    """
    return _create(2, {}, _meta("hourglass2", num_joints, NO_MEAN), weights, options)


@register_model
def hourglass8(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Eight stacks, 25.4 million parameters; MPII PCKh@0.5 90.2 there. Arguments as for `hourglass2`."""
    return _create(8, {}, _meta("hourglass8", num_joints, NO_MEAN), weights, options)


@register_model
def hourglass2_paper(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """The paper's network with a stem that is 256 wide from its second residual on; 6.7 million parameters.

    Arguments as for `hourglass2`, but the mean of MPII is taken from pixel / 255.
    """
    return _create(2, PAPER, _meta("hourglass2_paper", num_joints), weights, options)


@register_model
def hourglass8_paper(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Eight stacks of `hourglass2_paper`, 25.6 million parameters; arguments as there."""
    return _create(8, PAPER, _meta("hourglass8_paper", num_joints), weights, options)


@register_model
def hourglass2_post(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Two stacks with the activation after the convolution, three halvings deep; 6.6 million parameters.

    The layers and numbers of the Keras variant, with PyTorch's symmetric padding and BatchNorm (eps 1e-5,
    momentum 0.1). Arguments as for `hourglass2_paper`; input sizes are multiples of 32, not 64.
    """
    return _create(2, POST, _meta("hourglass2_post", num_joints), weights, options)


@register_model
def hourglass8_post(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Eight stacks of `hourglass2_post`, 25.4 million parameters; arguments as there."""
    return _create(8, POST, _meta("hourglass8_post", num_joints), weights, options)


@register_model
def hourglass2_mobile(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """`hourglass2_post` with depthwise-separable residuals, 2.7 million parameters; arguments as there."""
    return _create(2, MOBILE, _meta("hourglass2_mobile", num_joints), weights, options)


@register_model
def hourglass8_mobile(num_joints: int = 16, *, weights: StrPath | None = None, **options: Any) -> Hourglass:
    """Eight stacks of `hourglass2_mobile`, 10.7 million parameters; arguments as there."""
    return _create(8, MOBILE, _meta("hourglass8_mobile", num_joints), weights, options)
