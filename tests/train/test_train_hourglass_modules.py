"""`num_modules`, the residuals at each place of an hourglass: from a setting to weights and back."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from docs_blocks import SHORTER

from fastpose.cli import export, main, parity
from fastpose.errors import CheckpointError, ConfigError
from fastpose.keypoints import COCO_17, MPII_16
from fastpose.models import (
    Hourglass,
    HourglassConfig,
    ModelMeta,
    create_model,
    hourglasses,
    load_model,
    read_meta,
    save_weights,
)
from fastpose.train.config_io import load_config
from fastpose.train.tasks import task_for
from fastpose.train.tasks.pose_data import build_model

NAME = "hourglass2_mobile"


@pytest.fixture(autouse=True)
def thin_hourglasses(monkeypatch):
    """The factories' networks, two halvings deep and eight channels wide."""
    for variant in (hourglasses.PAPER, hourglasses.MOBILE):
        for key, value in {"depth": 2, "width": 8, "stem_widths": (6, 6)}.items():
            monkeypatch.setitem(variant, key, value)


def settings(*more):
    given = ["data.root=.", f"model.name={NAME}", "data.input_size=[64, 64]", *more]
    return load_config("mpii/hourglass2_mobile_256x256", given)


@pytest.mark.parametrize("name", ["hourglass2_mobile", "hourglass2_paper"])
def test_the_factories_build_that_many_residuals(name):
    sizes = [
        sum(p.numel() for p in create_model(name, num_modules=count).parameters()) for count in (1, 2, 3)
    ]
    assert create_model(name).config.num_modules == 1
    assert create_model(name, num_modules=3).meta.num_modules == 3
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0


def test_a_training_saves_it_and_the_file_builds_the_network_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"model.name={NAME}", "model.num_modules=3", "run.name=three", *SHORTER]
    assert main(["train", "samples/figures", *words]) == 0
    file = tmp_path / "runs/train/three/best.safetensors"
    assert read_meta(file).num_modules == 3
    model = load_model(file)
    assert (model.config.num_modules, model.meta.num_modules) == (3, 3)
    assert model.meta.keypoints == COCO_17
    again = create_model(NAME, 17, weights=file)
    assert again.config == model.config
    saved, loaded = again.state_dict(), model.state_dict()
    assert all(torch.equal(saved[name], loaded[name]) for name in loaded)


def test_weights_to_start_from_or_to_evaluate_bring_their_own(tmp_path):
    save_weights(create_model(NAME, num_modules=2), tmp_path / "two.safetensors")
    started = build_model(settings(f"model.weights={tmp_path}/two.safetensors"), MPII_16)
    evaluated = build_model(settings(), MPII_16, tmp_path / "two.safetensors")
    assert [model.config.num_modules for model in (started, evaluated)] == [2, 2]
    assert build_model(settings(), MPII_16).config.num_modules == 1


def test_another_number_than_that_of_the_file_is_told(tmp_path):
    path = tmp_path / "two.safetensors"
    save_weights(create_model(NAME, num_modules=2), path)
    message = f"two.safetensors: holds {NAME} with num_modules=2, not 3; leave it out"
    with pytest.raises(CheckpointError, match=message):
        create_model(NAME, weights=path, num_modules=3)
    with pytest.raises(CheckpointError, match=message):
        build_model(settings("model.num_modules=3"), MPII_16, path)


def test_official_files_take_it_from_the_option(tmp_path):
    model = create_model(NAME, num_modules=2)
    torch.save(model.state_dict(), tmp_path / "two.pth")
    assert create_model(NAME, weights=tmp_path / "two.pth", num_modules=2).config.num_modules == 2
    with pytest.raises(CheckpointError, match="does not fit"):
        create_model(NAME, weights=tmp_path / "two.pth")


@pytest.mark.parametrize("verb", ["parity", "export"])
def test_configurations_say_it_of_official_files(tmp_path, verb):
    file, config = tmp_path / "two.pth", tmp_path / "two.yaml"
    torch.save(create_model(NAME, 16, num_modules=2).state_dict(), file)
    config.write_text(f"base: mpii/hourglass2_256x256\nmodel: {{name: {NAME}, num_modules: 2}}\n")
    args = Namespace(
        model=str(config), config=str(config), settings=[], data=None, weights=file, input_size=None
    )
    model = parity._from_config(args)[0] if verb == "parity" else export._network(file, args)
    assert (model.config.num_modules, model.meta.num_joints) == (2, 16)


def test_a_network_of_ones_own_says_it_too(tmp_path):
    config = HourglassConfig(1, depth=2, width=8, stem_widths=(6, 6), num_modules=2)
    assert Hourglass(config, ModelMeta("own", 3)).meta.num_modules == 2


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"], ids=repr)
def test_impossible_numbers_are_refused(count):
    with pytest.raises(ConfigError, match="num_modules must be a whole number above 0"):
        create_model(NAME, num_modules=count)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.num_modules=0", "model.num_modules=0: must be auto or at least 1"),
        ("model.num_modules=two", "model.num_modules: got 'two'"),
        ("model.num_modules=true", "model.num_modules: got True"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        settings(given)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "simcc_resnet50", "prtr_resnet50", "pose_resnet50"])
def test_other_pose_networks_have_none(name):
    with pytest.raises(ConfigError, match=f"{name}: num_modules=2 is of hourglasses; leave it out"):
        create_model(name, num_modules=2)
    assert create_model("hrnet_w18_small", num_modules=1).meta.num_modules == 1


def test_segmentation_networks_have_none():
    with pytest.raises(ConfigError, match="hrnet_seg_w18_small_v1: unknown option 'num_modules'"):
        create_model("hrnet_seg_w18_small_v1", num_modules=2)
    config = load_config("samples/figures_segmentation", ["model.num_modules=2", "data.figures.val_count=1"])
    task = task_for(config)
    with pytest.raises(ConfigError, match=r"model\.num_modules=2: hrnet_seg_w18_small_v1 is no hourglass"):
        task.build_model(task.val_table())
