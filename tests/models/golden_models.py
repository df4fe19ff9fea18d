"""The filling rule and the files of the golden model numbers (golden/README.md)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass
class Golden:
    info: dict[str, Any]
    state_dict: dict[str, list[int]]
    grad_norm: dict[str, float | None]
    arrays: dict[str, np.ndarray]

    @property
    def input(self) -> torch.Tensor:
        return standard_normal(0, self.info["input_shape"])


def read_golden(path: Path) -> Golden:
    """`path` is the model's .json; its arrays lie beside it in the .npz of the same name."""
    facts = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Golden(facts["info"], facts["state_dict"], facts["grad_norm"], arrays)


def standard_normal(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Float32, of NumPy's default generator."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def fill(model: torch.nn.Module) -> None:
    """Gives every parameter and buffer the value that follows from its name and shape."""
    state = {name: _values(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)


def relative_error(got: torch.Tensor, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.detach().double().numpy() - want) / np.linalg.norm(want))


def _values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif len(shape) == 1 and name.endswith(("running_var", "weight")):
        values = rng.uniform(0.8, 1.2, shape)
    elif len(shape) == 1:
        values = rng.standard_normal(shape) * 0.1
    else:
        values = rng.standard_normal(shape) * np.sqrt(shape[0] / np.prod(shape))
    return torch.from_numpy(values.astype(np.float32))
