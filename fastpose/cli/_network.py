"""The network that a verb runs on pictures, and the options that say which one and how."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.errors import CheckpointError
    from fastpose.infer.predictor import Predictor


def add_network_options(parser: argparse.ArgumentParser) -> tuple[Any, Any]:
    """The options that `predict` and `app` have in common; returns their groups, network and speed."""
    network = parser.add_argument_group("network")
    network.add_argument("--config", help="configuration of the training, for weights that do not say theirs")
    network.add_argument(
        "--engine", choices=("onnx", "openvino", "torch"),
        help="what runs an exported file (default: onnx for .onnx, torch for .pt2)",
    )  # fmt: skip
    network.add_argument("--no-flip", action="store_true", help="do not average in the mirrored picture")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    speed.add_argument(
        "--amp", choices=("none", "auto", "bf16", "fp16"), default="none",
        help="auto: bf16 where the device multiplies it, faster and less exact (default: %(default)s)",
    )  # fmt: skip
    return network, speed


def network_of(weights: Path, config: str | None = None, model: str | None = None) -> Any:
    """What `Predictor` takes: the file of the weights where it says what it is, else the network with them.

    config: of its training. model: a name of `fastpose.models`; the file says how many joints there are.
    Raises ConfigError and CheckpointError with what to do on the command line.
    """
    from fastpose.errors import ConfigError
    from fastpose.infer.network_in import is_exported
    from fastpose.models.checkpoint_formats import weights_file

    refuse_picture(weights)
    named = [f"--{name}" for name, value in (("config", config), ("model", model)) if value]
    if len(named) > 1:
        raise ConfigError("--config and --model: give one of the two")
    file = weights_file(weights)
    if is_exported(file) and named:
        raise ConfigError(f"{named[0]}: {file} is an exported network, which says what it is; leave it out")
    if config:
        return _of_config(config, file)
    if model:
        return _of_name(model, file)
    if file.suffix != ".safetensors" and not is_exported(file):
        raise unknown_network(file)
    return file


def unknown_network(weights: Path) -> CheckpointError:
    """The error for weights of which nobody says what network they are for."""
    from fastpose.errors import CheckpointError
    from fastpose.infer.network_in import is_exported

    if is_exported(weights):
        return CheckpointError(f"{weights}: is exported already; name the weights that it was made from")
    return CheckpointError(
        f"{weights}: does not say which network it is for, nor its input size; name the configuration of "
        "its training, as in --config coco/hrnet_w32_256x192"
    )


def refuse_picture(weights: Path) -> None:
    """CheckpointError where a picture or a video stands in the place of weights."""
    from fastpose.errors import CheckpointError
    from fastpose.infer.sources import EXTENSIONS
    from fastpose.infer.video_in import VIDEO_EXTENSIONS

    if weights.suffix.lower() in (*EXTENSIONS, *VIDEO_EXTENSIONS):
        raise CheckpointError(f"{weights}: is no file of weights, which come first, in front of the pictures")


def print_network(predictor: Predictor) -> None:
    """A line with what runs, on which crops, and where."""
    from fastpose.infer.engines import Engine

    width, height = predictor.meta.input_size
    place = predictor.model.graph.engine if isinstance(predictor.model, Engine) else predictor.device
    print(f"{predictor.meta.model}, crops {width}x{height} {predictor.meta.channel_order}, {place}")


def _of_config(name: str, file: Path) -> Any:
    from fastpose.keypoints import COCO_17, MPII_16
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks.pose_data import build_model

    config = load_config(name, ["data.root=."])
    return build_model(config, MPII_16 if config.data.format == "mpii" else COCO_17, file)


def _of_name(name: str, file: Path) -> Any:
    from fastpose.errors import CheckpointError, ConfigError
    from fastpose.infer.network_in import usual_keypoints
    from fastpose.models import list_models
    from fastpose.models.registry import task_of
    from fastpose.models.weights import create_fitting

    if task_of(name) != "pose":
        raise ConfigError(
            f"--model {name}: a {task_of(name)} network; for poses: {', '.join(list_models('pose'))}"
        )
    network = create_fitting(name, file)
    try:
        network.meta.keypoints or usual_keypoints(network.meta.outputs)
    except CheckpointError:
        raise CheckpointError(
            f"{file}: has {network.meta.outputs} joints and does not say which; give a run folder or its "
            "best.safetensors, or write one: fastpose.models.save_weights of a network created with "
            "keypoints=KeypointSet(...)"
        ) from None
    return network
