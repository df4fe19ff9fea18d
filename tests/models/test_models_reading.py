"""How the output of a network is read: asked for, said by the weights, or published with their codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_hourglass_weights import dead_shortcuts, empty, official_file
from tiny_hourglass import tiny_hourglass

from fastpose.errors import ConfigError
from fastpose.infer.export.spec import spec_of
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import COCO_17
from fastpose.models import (
    ModelMeta,
    create_model,
    load_backbone,
    load_model,
    load_weights,
    save_weights,
)
from fastpose.models.hrnet import CONFIGS, HRNetConfig
from fastpose.models.reading import Reading, reading_of
from fastpose.train.config import Config
from fastpose.train.config_io import load_config
from fastpose.train.tasks.networks import start_network
from fastpose.train.tasks.pose_data import build_model
from fastpose.train.tasks.pose_validation import reading

SAID = {"refine": "dark", "shift": False, "blur_kernel": 5, "cell_offset": 0.25, "background": True}
ASKED = {"refine": "none", "shift": True, "blur_kernel": 17, "cell_offset": 0.0, "background": False}


def test_asked_comes_before_said_and_said_before_published() -> None:
    assert reading_of(ModelMeta("any", 17)) == Reading("quarter", True, 11, 0.0, False)
    assert reading_of(ModelMeta("any", 17, codec="udp")) == Reading("dark_udp", False, 11, 0.0, False)
    meta = ModelMeta("any", 17, **SAID)
    assert reading_of(meta)._asdict() == SAID
    assert reading_of(meta, **ASKED)._asdict() == ASKED
    for name, value in ASKED.items():
        assert reading_of(meta, **{name: value})._asdict() == {**SAID, name: value}


def test_it_travels_with_the_weights(tmp_path: Path) -> None:
    model = tiny_hourglass()
    model.meta = replace(model.meta, **SAID)
    save_weights(model, tmp_path / "a.safetensors")
    loaded = empty()
    load_weights(loaded, tmp_path / "a.safetensors")
    assert reading_of(loaded.meta)._asdict() == SAID


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"refine": "third"}, "refine: expected one of none, quarter"),
        ({"blur_kernel": 4}, "blur_kernel: expected an odd number"),
        ({"shift": "yes"}, "shift must be true or false, got 'yes'"),
        ({"shift": 1}, "shift must be true or false, got 1"),
        ({"background": 2}, "background must be true or false, got 2"),
        ({"cell_offset": 3.0}, "cell_offset must be a share of a cell from -1 to 1, got 3.0"),
        ({"cell_offset": True}, "cell_offset must be"),
    ],
)
def test_impossible_readings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelMeta("any", 17, **values)


def test_one_cell_a_pixel_is_averaged_without_shift() -> None:
    with torch.device("meta"):
        model, asked = create_model("hrnet_fullres_w32"), create_model("hrnet_fullres_w32", shift=True)
    assert reading_of(model.meta).shift is False
    assert reading_of(asked.meta).shift is True


def test_a_file_that_does_not_say_leaves_what_the_network_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = HRNetConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    monkeypatch.setitem(CONFIGS, "hrnet_w32", small)
    model = create_model("hrnet_fullres_w32")
    for said, expected in ((None, False), (True, True)):
        model.meta = replace(model.meta, shift=said)
        save_weights(model, tmp_path / "a.safetensors")
        assert reading_of(load_model(tmp_path / "a.safetensors").meta).shift is expected


def test_official_hourglass_files_are_known_by_their_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled, model = tiny_hourglass(), empty()
    with caplog.at_level("INFO"):
        load_weights(
            model, official_file(tmp_path / "a.pt", {**filled.state_dict(), **dead_shortcuts(filled)})
        )
    assert reading_of(model.meta) == Reading("quarter_each", False, 11, 0.5, False)
    assert "by its names it goes with shift=False, refine=quarter_each, cell_offset=0.5" in caplog.text
    plain = empty()
    load_weights(plain, official_file(tmp_path / "b.pt", filled.state_dict()))
    assert reading_of(plain.meta) == Reading("quarter", True, 11, 0.0, False)


def test_weights_to_train_from_do_not_say_how_the_result_is_read(tmp_path: Path) -> None:
    filled, model = tiny_hourglass(), empty()
    path = official_file(tmp_path / "a.pt", {**filled.state_dict(), **dead_shortcuts(filled)})
    config = Config()
    config.model.weights, config.data.sigma, config.val.refine = str(path), 3.0, "dark"
    start_network(model, config, {"refine": "dark"})
    assert reading_of(model.meta) == Reading("dark", True, 17, 0.0, False)


@pytest.mark.parametrize(("given", "order"), [(None, "rgb"), ("bgr", "bgr")], ids=["known", "asked for"])
def test_mmpose_trains_on_rgb(given: str | None, order: str, tmp_path: Path) -> None:
    state = create_model("pose_resnet50").state_dict()
    heads = ("deconv_layers", "final_layer")
    named = {
        f"{'head' if name.startswith(heads) else 'backbone'}.{name}": value for name, value in state.items()
    }
    torch.save({"state_dict": named}, tmp_path / "mmpose.pth")
    torch.save(state, tmp_path / "official.pth")
    model = create_model("pose_resnet50", weights=tmp_path / "mmpose.pth", channel_order=given)
    assert model.meta.channel_order == order
    assert create_model("pose_resnet50", weights=tmp_path / "official.pth").meta.channel_order == "bgr"
    for name, expected in (("mmpose", "rgb"), ("official", "bgr")):
        start = create_model("pose_resnet50", 16)
        load_backbone(start, tmp_path / f"{name}.pth")
        assert start.meta.channel_order == expected


@pytest.mark.parametrize(
    "settings",
    [
        ["data.sigma=1.0", "val.refine=dark"],
        ["val.refine=quarter_each", "val.shift_heatmap=false", "val.cell_offset=0.5"],
        ["val.refine=dark", "val.blur_kernel=3"],
        [],
    ],
    ids=["dark of sigma 1", "quarters without shift", "own kernel", "usual"],
)
def test_a_predictor_reads_what_validation_read(settings: list[str], tmp_path: Path) -> None:
    config = load_config("samples/figures", ["data.input_size=[32, 64]", *settings])
    model = build_model(config, COCO_17)
    save_weights(model, tmp_path / "best.safetensors")
    predictor = Predictor(tmp_path / "best.safetensors", device="cpu")
    read = {name: getattr(predictor.options, name) for name in Reading._fields}
    assert read == reading(config, model.meta)._asdict()
    assert reading(load_config("samples/figures"), predictor.meta) == reading(config, model.meta)


def test_weights_that_do_not_say_are_blurred_by_the_configurations_sigma(tmp_path: Path) -> None:
    config = load_config("samples/figures", ["data.input_size=[32, 64]", "data.sigma=3.0", "val.refine=dark"])
    torch.save(build_model(config, COCO_17).state_dict(), tmp_path / "official.pth")
    network = build_model(config, COCO_17, tmp_path / "official.pth")
    assert reading(config, network.meta) == reading_of(network.meta) == Reading("dark", True, 17, 0.0, False)


def test_an_exported_file_says_what_it_was_exported_for() -> None:
    spec = spec_of(tiny_hourglass(), refine="dark", shift=False, blur_kernel=5)
    assert reading_of(spec.meta) == Reading("dark", False, 5, 0.0, False)
    assert (spec.refine, spec.shift, spec.blur_kernel, spec.cell_offset) == ("dark", False, 5, 0.0)
    assert spec_of(tiny_hourglass(), cell_offset=0.5).meta.cell_offset == 0.5
