"""What a configuration says of its network, apart from what the network is to find, and where it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastpose.errors import ConfigError
from fastpose.models.meta import READING
from fastpose.models.network import Network, PoseModel
from fastpose.models.reading import kernel_for
from fastpose.models.registry import task_of
from fastpose.models.transfer import load_backbone
from fastpose.models.weights import load_weights
from fastpose.train.config import Config, ValConfig

_OF_POSES = (
    "background", "blur_kernel", "boxes", "cell_offset", "detections", "in_vis_threshold", "nms",
    "oks_threshold", "refine", "score_threshold", "shift_heatmap",
)  # fmt: skip
_OFF = {"background": (False,), "cell_offset": (0.0,)}
"""Values besides the default that ask for nothing."""
_OF_SEGMENTATION = ("average", "scales", "stride_rate", "window")


def check_evaluation(config: Config) -> None:
    """ConfigError for the first setting of `val` that only networks of another task have."""
    name, usual = config.model.name, ValConfig()
    segments = task_of(name) == "segmentation"
    finds = "gives every pixel a class" if segments else "finds keypoints"
    for key in _OF_POSES if segments else _OF_SEGMENTATION:
        value = getattr(config.val, key)
        if value not in (getattr(usual, key), *_OFF.get(key, ())):
            other = "networks that find keypoints" if segments else "segmentation networks"
            raise ConfigError(f"val.{key}={value}: is for {other}, and {name} {finds}; leave it out")


def network_options(config: Config) -> dict[str, Any]:
    """Options of `create_model` for the network of a configuration; None where it leaves them open.

    Raises ConfigError for residuals an hourglass has, in another network.
    """
    model, data = config.model, config.data
    options: dict[str, Any] = {
        "input_size": (data.input_size[0], data.input_size[1]),
        "channel_order": model.channel_order,
    }
    if task_of(model.name) == "segmentation":
        if model.num_modules != "auto":
            raise ConfigError(
                f"model.num_modules={model.num_modules}: {model.name} is no hourglass; leave it out"
            )
        options["align_corners"] = model.align_corners
    else:
        options |= {
            "codec": data.codec,
            "split_ratio": data.split_ratio,
            "num_modules": model.num_modules,
            **reading_settings(config.val),
        }
    return {name: None if value == "auto" else value for name, value in options.items()}


def reading_settings(val: ValConfig) -> dict[str, Any]:
    """How the output is to be read, by the names of `fastpose.models.reading.reading_of`."""
    return {name: getattr(val, "shift_heatmap" if name == "shift" else name) for name in READING}


def say_kernel(network: Network, config: Config) -> Network:
    """The network, which from now on says the taps of DARK's blur for `data.sigma`, where it did not."""
    if isinstance(network, PoseModel) and network.meta.blur_kernel is None:
        network.meta = replace(network.meta, blur_kernel=kernel_for(config.data.sigma))
    return network


def start_network(network: Network, config: Config, options: dict[str, Any]) -> None:
    """Fresh parameters, and over them the weights or the backbone that training starts from.

    options: of the network's meta, which go before what the files say. How the output is read follows from
    the targets of this training, not from those of the weights.
    """
    network.reset_parameters(config.model.init)
    fresh = network.meta
    if config.model.weights is not None:
        load_weights(network, config.model.weights)
    elif config.model.backbone is not None:
        load_backbone(network, config.model.backbone)
    if isinstance(network, PoseModel):
        network.meta = replace(network.meta, **{name: getattr(fresh, name) for name in READING})
    network.meta = network.meta.with_options(options)
    say_kernel(network, config)
