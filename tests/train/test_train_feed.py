"""Ways of feeding a run: what each changes in its outcome, down to the bit, and what it must not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import NAME, SETTINGS, differences, outcome, run, tiny_hrnet

from fastpose.data.encode import Encoding
from fastpose.data.prepare import prepare_crops
from fastpose.models.registry import _factories, register_model
from fastpose.train.config_io import load_config
from fastpose.train.feed import replace_unusable
from fastpose.train.tasks.pose_data import aspect_ratio, train_table

SHORT = ("train.epochs=2", "val.every=2", "train.save_steps=0")


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    register_model(tiny_hrnet)
    yield
    _factories.pop(NAME)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(run(tmp_path_factory.mktemp("plain"), *SHORT))


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_cut_on_the_device_train_to_the_same_bits(
    tmp_path: Path, plain: dict[str, Any], workers: int
) -> None:
    folder = run(tmp_path, *SHORT, "data.warp=gpu", f"data.workers={workers}")
    assert differences(outcome(folder), plain) == []


def test_a_lossless_crop_cache_trains_to_the_same_bits(tmp_path: Path, plain: dict[str, Any]) -> None:
    config = load_config("samples/figures", [*SETTINGS, *SHORT])
    prepare_crops(
        train_table(config),
        tmp_path / "crops",
        augmentation=config.augment,
        aspect_ratio=aspect_ratio(config),
        encoding=Encoding("raw"),
    )
    folder = run(tmp_path, *SHORT, f"data.crop_cache={tmp_path / 'crops'}")
    assert differences(outcome(folder), plain) == []


def test_grouped_pictures_change_the_order_alone(tmp_path: Path, plain: dict[str, Any]) -> None:
    found = outcome(run(tmp_path, *SHORT, "data.group_images=true"))
    assert differences(found, plain), "another order of samples gives other weights"
    assert found["progress"]["epoch"] == plain["progress"]["epoch"]
    assert all(row["loss"] > 0 for row in found["progress"]["history"])


def test_parts_of_pictures_survive_the_replacement_of_unusable_samples() -> None:
    batch = {
        "pixels": torch.arange(6, dtype=torch.uint8),
        "offsets": torch.tensor([0, 3, 3]),
        "sizes": torch.tensor([[1, 1], [0, 0], [1, 1]], dtype=torch.int32),
        "usable": torch.tensor([True, False, True]),
    }
    assert replace_unusable(batch) == 1
    assert batch["pixels"].tolist() == list(range(6))
    assert batch["offsets"].tolist() == [0, 0, 3]
    assert batch["sizes"][1].tolist() == [1, 1]
