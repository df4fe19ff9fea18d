"""Configurations: every shipped one loads; wrong ones are refused by name."""

import dataclasses

import pytest
import yaml

from fastpose.errors import ConfigError
from fastpose.models import ModelMeta
from fastpose.train.config import Config, DataConfig, ValConfig
from fastpose.train.config_check import check_config
from fastpose.train.config_io import list_configs, load_config, save_config
from fastpose.train.settings import describe_settings
from fastpose.train.tasks.pose_validation import reading

OFFICIAL = [
    ("coco/hrnet_w32_256x192", "hrnet_w32", [192, 256], 2.0, 128),
    ("coco/hrnet_w32_384x288", "hrnet_w32", [288, 384], 3.0, 128),
    ("coco/hrnet_w48_256x192", "hrnet_w48", [192, 256], 2.0, 128),
    ("coco/hrnet_w48_384x288", "hrnet_w48", [288, 384], 3.0, 96),
    ("mpii/hrnet_w32_256x256", "hrnet_w32", [256, 256], 2.0, 128),
    ("mpii/hrnet_w48_256x256", "hrnet_w48", [256, 256], 2.0, 128),
]


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configuration_loads_and_survives_saving(name, tmp_path):
    config = load_config(name, ["data.root=somewhere"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("name", "model", "size", "sigma", "batch"), OFFICIAL, ids=[row[0] for row in OFFICIAL]
)
def test_official_experiments(name, model, size, sigma, batch):
    config = load_config(name, ["data.root=x"])
    assert (config.model.name, config.data.input_size, config.data.sigma) == (model, size, sigma)
    assert (config.train.batch_size, config.train.epochs, config.train.milestones) == (batch, 210, [170, 200])
    assert (config.train.lr, config.train.optimizer, config.train.weight_decay) == (1e-3, "adam", 0.0)
    coco = name.startswith("coco")
    assert config.augment.rotation_factor == (45.0 if coco else 30.0)
    assert config.augment.scale_factor == (0.35 if coco else 0.25)
    assert config.augment.half_body_prob == (0.3 if coco else 0.0)


@pytest.mark.parametrize(
    ("setting", "said", "sigma", "taps"),
    [
        ("auto", None, 2.0, 11),
        ("auto", None, 3.0, 17),
        ("auto", None, 0.1, 1),
        ("auto", None, 40.0, 63),
        ("auto", 5, 3.0, 5),
        (7, 5, 2.0, 7),
    ],
)
def test_taps_of_the_blur(setting, said, sigma, taps):
    config = Config(val=ValConfig(blur_kernel=setting), data=DataConfig(sigma=sigma))
    assert reading(config, ModelMeta("hrnet_w32", 17, blur_kernel=said)).blur_kernel == taps


def test_overrides_take_yaml_values():
    config = load_config(
        "samples/figures", ["train.lr=1e-4", "data.input_size=[64, 96]", "augment.flip=false"]
    )
    assert (config.train.lr, config.data.input_size, config.augment.flip) == (1e-4, [64, 96], False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"unknown key 'train.epoch'; did you mean 'train.epochs'"),
        ("trian.epochs=3", r"did you mean 'train'"),
        ("train.epochs=three", r"train.epochs: got 'three', expected int"),
        ("train.epochs=true", r"expected int"),
        ("train.epochs", r"expected key=value"),
        ("train=3", r"'train' is a group; set one of train.epochs"),
        ("train.epochs.x=3", r"'epochs' has no settings below it"),
        ("train.optimizer=lion", r"got 'lion', must be one of adam, adamw, sgd, rmsprop"),
        ("data.input_size=[100, 128]", r"multiples of 8"),
        ("data.input_size=[96]", r"must be 2 numbers"),
        ("train.epochs=0", r"must be at least 1"),
        ("val.boxes=detector", r"val.detections=FILE"),
        ("train.lr=[", r"not valid yaml"),
        ("train.lr=.nan", r"train.lr=nan: must be a finite number"),
        ("run.threads=-1", r"run.threads=-1: must be at least 0"),
        ("run.name=../x", r"must be a name, not a path"),
        ("data.flip_pairs=[[1]]", r"pairs of joint numbers"),
        ("data.workers=-2", r"auto or at least 0"),
        ("val.refine=half", r"val.refine: got 'half', must be one of none, quarter, dark"),
        ("val.blur_kernel=oops", r"val.blur_kernel: got 'oops', expected int or auto"),
        ("val.cell_offset=oops", r"val.cell_offset: got 'oops', expected float or auto"),
        ("val.window=oops", r"val.window: got 'oops', expected a list of int or null"),
        ("val.blur_kernel=12", r"val.blur_kernel: expected an odd number from 1 to 63, got 12"),
    ],
)
def test_wrong_override(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("samples/figures", [override])


def test_base_may_be_a_shipped_one(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: coco/hrnet_w48_256x192\ntrain: {epochs: 3}\n")
    config = load_config(file, ["data.root=."])
    assert (config.model.name, config.train.epochs) == ("hrnet_w48", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  epohcs: 3\n", r"unknown key 'train.epohcs'; did you mean 'train.epochs'"),
        ("- 1\n", r"holds list, not a mapping"),
        ("train: 3\n", r"train must be a mapping"),
        ("a: [\n", r"not valid yaml"),
        ("base: coco/hrnet_w23\n", r"c.yaml: base: no configuration 'coco/hrnet_w23'.* did you mean"),
        ("base: c.yaml\n", r"circular"),
        ("model: {name: !!python/object/apply:os.getcwd []}\n", r"not valid yaml"),
    ],
)
def test_wrong_file(text, message, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)


def test_weights_in_the_place_of_a_configuration(tmp_path):
    file = tmp_path / "best.safetensors"
    file.write_bytes(b"\x00\xdc\xff")
    with pytest.raises(ConfigError, match=r"best\.safetensors: cannot be read: no text; .*--weights"):
        load_config(file)


def test_missing_configuration_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'coco/hrnet_w32_256x192'"):
        load_config("coco/hrnet_w32_256x129")


def test_data_root_is_asked_for():
    with pytest.raises(ConfigError, match=r"data.root=FOLDER"):
        load_config("coco/hrnet_w32_256x192")


def test_base_is_merged_deeply(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"data": {"format": "figures", "sigma": 3.0}}))
    (tmp_path / "top.yaml").write_text("base: base.yaml\ndata:\n  workers: 2\n")
    config = load_config(tmp_path / "top.yaml")
    assert (config.data.format, config.data.sigma, config.data.workers) == ("figures", 3.0, 2)


def test_defaults_are_usable():
    config = Config()
    config.data.format = "figures"
    check_config(config)
    assert dataclasses.asdict(config)["train"]["milestones"] == [170, 200]


def test_every_setting_is_explained():
    lines = describe_settings().splitlines()
    assert not [line for line in lines if len(line.split("  ")) < 2]
    assert any(line.startswith("train.milestones=[170, 200]  ") for line in lines)
    assert len(lines) > 60


@pytest.mark.parametrize("setting", ["train.lr=.inf", "data.sigma=.nan", "val.scales=[.inf]"])
def test_numbers_must_be_finite(setting):
    with pytest.raises(ConfigError, match=setting.split("=")[0].replace(".", r"\.")):
        load_config("samples/figures", [setting])


def test_run_name_stays_in_its_folder():
    with pytest.raises(ConfigError, match=r"run\.name='\.\.': must be a name"):
        load_config("samples/figures", ["run.name=.."])
