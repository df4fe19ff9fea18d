"""A whole run of a very small network, of seconds, and what it leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fastpose.models import HRNet, HRNetConfig, ModelMeta
from fastpose.train.config_io import load_config
from fastpose.train.loop import Trainer
from fastpose.train.saving.checkpoint import list_states
from fastpose.train.saving.progress import state_place

NAME = "tiny_hrnet"
SETTINGS = [
    f"model.name={NAME}",
    "data.input_size=[32, 32]",
    "data.figures.image_size=[64, 64]",
    "data.figures.train_count=8",
    "data.figures.val_count=2",
    "data.cache_mb=0",
    "data.workers=0",
    "augment.rotation_factor=30",
    "augment.scale_factor=0.2",
    "train.epochs=6",
    "train.batch_size=4",
    "train.schedule=step",
    "train.milestones=[2, 4]",
    "train.warmup_steps=3",
    "train.amp=bf16",
    "train.ema=0.9",
    "train.save_steps=1",
    "train.keep=99",
    "val.every=2",
    "val.flip_test=false",
    "run.name=tiny",
    "run.pictures_every=0",
    "run.threads=1",
    "run.tensorboard=false",
]


def tiny_hrnet(num_joints: int = 17, *, weights: Any = None, **options: Any) -> HRNet:
    """Two channels at the finest level; `weights` is not for it."""
    config = HRNetConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    return HRNet(config, ModelMeta(NAME, num_joints).with_options(options))


def run(root: Path, *settings: str) -> Path:
    """Trains in `root` or goes on there; the run folder."""
    config = load_config("samples/figures", [*SETTINGS, f"run.dir={root}", *settings])
    folder = root / "train" / "tiny"
    Trainer(config, folder).fit()
    return folder


def cut_back(whole: Path, root: Path, place: tuple[int, int]) -> None:
    """A copy of a run in `root`, as a kill right after the state of `place` leaves it."""
    folder = root / "train" / "tiny"
    shutil.copytree(whole, folder)
    for path in list_states(folder / "checkpoints"):
        if (state_place(path) or place) > place:
            shutil.rmtree(path)


def outcome(folder: Path) -> dict[str, Any]:
    """`state` of a run folder, without the clock's readings."""
    found = state(folder / "checkpoints")
    for row in found["progress"]["history"]:
        for name in ("seconds", "images_per_second"):
            row.pop(name, None)
    return found


def state(folder: Path) -> dict[str, Any]:
    """Everything that the last training state in `folder` holds."""
    path = list_states(folder)[-1]
    training = torch.load(path / "training.pt", weights_only=True)
    return {**training, "weights": safetensors.torch.load_file(path / "weights.safetensors")}


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Names of what is not the same to the bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return [path]
        return [found for key in a for found in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [path]
        pairs = enumerate(zip(a, b, strict=True))
        return [found for index, (x, y) in pairs for found in differences(x, y, f"{path}[{index}]")]
    return [] if a == b else [path]
