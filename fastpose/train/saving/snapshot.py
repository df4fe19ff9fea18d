"""A training state in host memory, where no step changes it any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fastpose.files import write_atomic, write_text
from fastpose.models import Meta, Network
from fastpose.models.safetensors_file import to_safetensors
from fastpose.train.saving.host_copy import HostCopier, map_tensors
from fastpose.train.saving.progress import Progress, state_name
from fastpose.train.saving.random_states import RandomStates


class Stateful(Protocol):
    """What can be saved and loaded, as torch's modules and optimizers can."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> object: ...


Extra = Mapping[str, Stateful | Tensor | None]
"""What else a state holds, by name: Statefuls of trees of tensors and plain values, and tensors, which are
loaded in place; None stands for nothing."""


@dataclass(frozen=True)
class WeightsFile:
    """Weights to publish: `path`.safetensors, and `path`.json with its SHA-256 and `note` (epoch, score).

    The weights are the model's or, with `of`, those that this entry of the extra state holds: an average.
    """

    path: Path
    note: Mapping[str, Any]
    of: str | None = None


@dataclass(frozen=True)
class WeightsBytes:
    """A weights file to write, which needs its snapshot no more."""

    path: Path
    note: Mapping[str, Any]
    data: bytes

    def write(self) -> None:
        """OutputError where that fails, with the file there before intact."""
        write_atomic(Path(f"{self.path}.safetensors"), lambda temporary: temporary.write_bytes(self.data))
        note = {**self.note, "sha256": sha256(self.data).hexdigest()}
        write_text(Path(f"{self.path}.json"), json.dumps(note, indent=1))


@dataclass(frozen=True)
class Snapshot:
    """What `take_snapshot` took. Nothing in it may be read before `wait` has returned."""

    name: str
    meta: Meta
    weights: dict[str, Tensor]
    training: dict[str, Any]
    wait: Callable[[], None]

    @cached_property
    def weights_bytes(self) -> bytes:
        """The weights as a safetensors file."""
        return to_safetensors(self.weights, self.meta)

    def owned_training(self) -> dict[str, Any]:
        """All but the weights; no tensor in it drags along the memory of others, as `torch.save` would."""
        return map_tensors(self.training, _owned)

    def weights_file(self, file: WeightsFile) -> WeightsBytes:
        """What `file` asks for."""
        self.wait()
        if file.of is None:
            return WeightsBytes(file.path, file.note, self.weights_bytes)
        average = to_safetensors(self.training["extra"][file.of], self.meta)
        return WeightsBytes(file.path, file.note, average)


def take_snapshot(
    model: Network,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    progress: Progress,
    *,
    extra: Extra | None = None,
    random: RandomStates | None = None,
    copier: HostCopier | None = None,
) -> Snapshot:
    """Copies everything a state holds, as it is behind the steps begun so far.

    model: without torch.compile or DistributedDataParallel around it. random: collected already; without it
    this process's generators are taken. copier: keeps its memory from one snapshot to the next.
    """
    if not isinstance(model, Network):
        raise TypeError(f"model: a model of fastpose.models is needed, got {type(model).__name__}")
    if random is None:
        random = RandomStates()
        random.collect()
    training = {
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "progress": asdict(progress),
        "random": random.state_dict(),
        "extra": {name: _state(thing) for name, thing in (extra or {}).items() if thing is not None},
    }
    (weights, training), wait = (copier or HostCopier())([model.state_dict(), training])
    return Snapshot(state_name(progress.place), model.meta, weights, training, wait)


def _state(thing: Stateful | Tensor) -> Any:
    return thing if isinstance(thing, Tensor) else thing.state_dict()


def _owned(tensor: Tensor) -> Tensor:
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
