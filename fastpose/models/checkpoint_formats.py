"""Weights files of all kinds -> tensors under the official names. No code of a file is ever run."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastpose.errors import CheckpointError
from fastpose.models.meta import Meta
from fastpose.models.safetensors_file import read_safetensors

WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")
"""Prefixes of DataParallel, torch.compile, mmpose's backbone files and trainers that hold their model (as of
the official hourglass), taken off when every name has them."""

HOLDERS = ("state_dict", "model")
"""Keys under which training checkpoints keep the state_dict: the official and mmpose's ones, DETR's."""

MMPOSE_HEADS = ("head.", "keypoint_head.")
MMPOSE_DROPPED = ("data_preprocessor.",)


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` under the official names; `meta` only where fastpose wrote the file; `conventions` are
    options of a meta that follow from a file's names: mmpose trains on RGB, whatever the original did."""

    tensors: dict[str, Tensor]
    meta: Meta | None = None
    conventions: dict[str, Any] = field(default_factory=dict)


def weights_file(path: Path) -> Path:
    """The file itself, or the best weights of a run folder; CheckpointError where it is not there."""
    folder = os.path.isdir(path)
    file = path / "best.safetensors" if folder else path
    if folder and not os.path.isfile(file):
        raise CheckpointError(f"{path}: no run folder with weights: it has no best.safetensors")
    if not os.path.isfile(file):  # also of names that Path.is_file raises for
        raise CheckpointError(f"{file}: no such file; weights= takes a weights file or a run folder")
    return file


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads `.safetensors`, or any other name as a file of torch.save; CheckpointError if it cannot be used.

    A run folder stands for its best.safetensors.

    A file of torch.save is a state_dict, or a dict with one under 'state_dict' (official and mmpose training
    checkpoints) or 'model' (DETR's). Names are brought to the official ones by `official_names`.
    """
    path = weights_file(path)
    if path.suffix == ".safetensors":
        tensors, meta = read_safetensors(path)
        return Checkpoint(official_names(tensors), meta)
    state = _state_dict(_torch_load(path), path)
    mmpose = any(name.startswith(MMPOSE_HEADS) for name in state)
    return Checkpoint(official_names(state), conventions={"channel_order": "rgb"} if mmpose else {})


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes wrapper prefixes off and maps mmpose's names (`backbone.X`, `head.X`) to the official `X`."""
    while prefix := next((p for p in WRAPPERS if state and all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if not any(name.startswith(MMPOSE_HEADS) for name in state):
        return state
    return {
        re.sub(r"^(backbone|head|keypoint_head)\.", "", name): tensor
        for name, tensor in state.items()
        if not name.startswith(MMPOSE_DROPPED)
    }


class _Inert:
    """Stands in for what training checkpoints hold besides tensors (a score as a NumPy scalar, log buffers,
    the arguments of DETR's command line).

    Unpickling builds this instead of the named object, so nothing of NumPy or mmengine is called.
    """

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_INERT_NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "argparse.Namespace",
)


def _torch_load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _INERT_NAMES]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle can end in any exception whatever
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"{path}: refused, it holds more than tensors ({refused[1]}), and a pickle can run code; "
                "save the state_dict alone and load that"
            ) from error
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable PyTorch file ({reason[:200]}); it may be cut short: fetch it again"
        ) from error


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    state = loaded
    if isinstance(loaded, dict):
        held = (loaded[key] for key in HOLDERS if isinstance(loaded.get(key), dict))
        state = next(held, loaded)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: no state_dict in it, but {type(loaded).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise CheckpointError(
                f"{path}: not a state_dict: {name!r} is {type(value).__name__}, not a dense tensor; "
                "save model.state_dict() alone or under 'state_dict'"
            )
    return state
