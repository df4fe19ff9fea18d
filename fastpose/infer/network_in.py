"""From what a user calls a model to a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch

from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.engines import Engine, load_engine
from fastpose.infer.engines_open import SUFFIXES
from fastpose.infer.folded import folded, with_cast_convolutions
from fastpose.infer.forward import ForwardOptions
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import ModelMeta, PoseModel, create_trained, list_models, load_model
from fastpose.models.checkpoint_formats import weights_file
from fastpose.models.meta import check_keypoints
from fastpose.models.reading import Reading, reading_of
from fastpose.models.registry import task_of
from fastpose.models.weights import create_fitting

StrPath = str | os.PathLike[str]
N = TypeVar("N", bound=torch.nn.Module)


def find_network(
    model: torch.nn.Module | StrPath,
    weights: StrPath | None = None,
    *,
    engine: str | None = None,
    amp: str = "none",
    **options: Any,
) -> PoseModel:
    """The network of a name and its weights, of a .safetensors file, of a run folder, of a file of
    `fastpose export`, or the one given.

    engine, amp: of an exported file alone: what runs it (`fastpose.infer.engines.open_graph`), and in bf16
    or not, where 'auto' is float32 for engines that cannot.
    options: those of the model's factory, and `num_joints`, for a name only; None changes nothing. The file
    says how many joints there are where neither `num_joints` nor `keypoints` does. A run folder stands for
    its best.safetensors, as model and as weights. Raises ConfigError for a model that is not known or not for
    poses, CheckpointError for a file that cannot be used, ExportError where a package for it is missing.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if is_exported(model) and weights is None and not options:
        return load_engine(cast(StrPath, model), engine, _precision(engine, amp))
    if engine is not None:
        raise ConfigError(
            f"engine={engine!r}: runs files of `fastpose export`, and this is none; write one with "
            "`fastpose export WEIGHTS --out FILE.onnx`"
        )
    return _pose(open_network(model, weights, options, _by_name, "Predictor('hrnet_w32'"))


def open_network(
    model: torch.nn.Module | StrPath,
    weights: StrPath | None,
    options: dict[str, Any],
    by_name: Callable[[str, StrPath | None, dict[str, Any]], torch.nn.Module],
    call: str,
) -> torch.nn.Module:
    """The network of a name (`by_name`), of a .safetensors file or run folder, or the one given.

    call: how a name is given, for messages. Raises as `find_network`.
    """
    named = weights is not None and model in list_models()  # a folder may have the name too
    if isinstance(model, str) and (named or _looks_like_name(model)):
        return by_name(model, weights, options)
    if weights is not None or options:
        given = ", ".join((["weights"] if weights is not None else []) + sorted(options))
        none = f", and {os.fspath(model)!r} is none" if isinstance(model, (str, os.PathLike)) else ""
        raise ConfigError(f"{given}: only with the name of a model{none}; a network or its file has its own")
    if isinstance(model, torch.nn.Module):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise ConfigError(f"model: expected a name, file, run folder or network, got {type(model).__name__}")
    return load_model(_safetensors(Path(model), call))


def is_exported(model: torch.nn.Module | StrPath) -> bool:
    """Whether it is named as files of `fastpose export` are."""
    return isinstance(model, str | os.PathLike) and Path(model).suffix in SUFFIXES.values()


def _precision(engine: str | None, amp: str) -> str:
    if amp == "auto" and engine != "openvino":
        return "float32"
    return "bfloat16" if autocast_dtype(amp, torch.device("cpu")) is torch.bfloat16 else "float32"


def device_for(network: PoseModel, name: str) -> torch.device:
    """As `pick_device`; an exported network runs on the CPU, and ConfigError where another is named."""
    if not isinstance(network, Engine):
        return pick_device(name)
    device = pick_device("cpu" if name == "auto" else name)
    if device.type != "cpu":
        raise ConfigError(f"{network.source}: an exported network runs on the CPU; give device='cpu'")
    return device


def settle(network: PoseModel, refine: str, blur_kernel: int | Literal["auto"]) -> Reading:
    """How the output is read; 'auto' is what an exported graph does, else what the weights want."""
    if isinstance(network, Engine):
        return network.reading(refine, blur_kernel)
    return reading_of(network.meta, refine=refine, blur_kernel=blur_kernel)


def check_test(network: PoseModel, options: ForwardOptions) -> None:
    """ConfigError where an exported graph does something in another way."""
    if isinstance(network, Engine):
        network.check(options)


def on_device(
    network: torch.nn.Module, device: torch.device, dtype: torch.dtype | None, *, fold: bool
) -> torch.nn.Module:
    """The network in eval mode and channels_last; with `fold`, a copy for running (`for_running`).

    dtype: that of autocast. An exported network stays as it is.
    """
    network.eval()
    if isinstance(network, Engine):
        return network
    placed = for_running(network, device, dtype) if fold else network
    return placed.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def for_running(network: torch.nn.Module, device: torch.device, dtype: torch.dtype | None) -> torch.nn.Module:
    """What computes the same faster: on a CPU a folded copy (`folded`), on a GPU under autocast one of which
    the convolutions are cast already (`with_cast_convolutions`), else the network itself.

    On a GPU BatchNorm stays, since the kernels of the exchange units take it in.
    """
    if device.type == "cpu":
        return folded(network, dtype)
    return network if dtype is None else with_cast_convolutions(network, dtype)


def usual_keypoints(num_joints: int) -> KeypointSet:
    """The known set of so many joints, for weights that do not say; CheckpointError if there is none."""
    for known in (COCO_17, MPII_16):
        if known.num_joints == num_joints:
            return known
    raise CheckpointError(
        f"the weights have {num_joints} joints and do not say which; "
        "create the model with keypoints=KeypointSet(...)"
    )


def _looks_like_name(model: str) -> bool:
    return not os.path.exists(model) and not Path(model).suffix and os.sep not in model


def _by_name(name: str, weights: StrPath | None, options: dict[str, Any]) -> PoseModel:
    if task_of(name) != ModelMeta.task:
        raise ConfigError(
            f"{name} is a {task_of(name)} network, which fastpose.Segmenter runs; "
            f"for poses: {', '.join(list_models('pose'))}"
        )
    if weights is None:
        raise ConfigError(f"{name}: an untrained network finds nothing; give weights=FILE")
    file = weights_file(Path(weights))
    keypoints = check_keypoints(options.get("keypoints"))
    joints = options.pop("num_joints", keypoints.num_joints if keypoints else None)
    if joints is None:
        return _pose(create_fitting(name, file, **options))
    return _pose(create_trained(name, joints, file, **options))


def _safetensors(path: Path, call: str) -> Path:
    file = weights_file(path)
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file}: does not say which network it is for; name it, as in {call}, weights={str(file)!r})"
        )
    return file


def _pose(network: torch.nn.Module) -> PoseModel:
    return expect(network, PoseModel, "pose", "fastpose.Segmenter")


def expect(network: torch.nn.Module, kind: type[N], task: str, other: str) -> N:
    """The network where it is one of the task; else ConfigError naming what runs the other task."""
    if isinstance(network, kind):
        return network
    meta = getattr(network, "meta", None)
    what = type(network).__name__
    if meta is not None:
        what = f"{meta.model}, for {meta.task}, which {other} runs"
    raise ConfigError(f"model: expected a {task} network of fastpose.models, got {what}")
