"""Codecs through configuration, weights and the predictor."""

import numpy as np
import pytest
import torch
from thin_codecs import CODECS, task, thin_networks

from fastpose.data.affine import (
    box_to_center_scale,
    get_affine_transform,
    get_udp_transform,
    warp_crop,
)
from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.predictor import Predictor
from fastpose.models import create_model, save_weights
from fastpose.nn.normalize import normalize_crops
from fastpose.train.config_io import load_config

__all__ = ["thin_networks"]

pytestmark = pytest.mark.usefixtures("thin_networks")


def test_settings_choose_codec_and_test():
    udp = load_config("coco/hrnet_w32_256x192_udp", ["data.root=."])
    assert (udp.data.codec, udp.val.refine, udp.val.shift_heatmap) == ("udp", "auto", "auto")
    found = task(*CODECS["udp"])
    model = found.build_model(found.val_table())
    assert model.meta.codec == "udp"
    assert found.objective(model).codec == "udp"
    assert found.conditions(model, 3).endswith("codec udp, refine dark_udp")
    names = set(found.conventions(model))
    assert {"flip test with the one-pixel shift", "DARK", "quarter shift"} <= names
    assert "DARK of UDP" not in names
    simcc = task(*CODECS["simcc"])
    model = simcc.build_model(simcc.val_table())
    assert simcc.objective(model).target == {"sigma": (3.0, 3.0), "smoothing": 0.0}
    names = set(simcc.conventions(model))
    assert "flip test with aligned bins" in names
    assert "DARK" not in names


@pytest.mark.parametrize(
    ("settings", "transform"),
    [(CODECS["msra"], get_affine_transform), (CODECS["udp"], get_udp_transform)],
    ids=["msra", "udp"],
)
def test_crops_are_cut_in_the_unit_of_the_network(settings, transform):
    found = task(*settings)
    table = found.train_table()
    dataset = found.train_dataset(table, found.build_model(table), parts=True)
    dataset.augmentation = None
    part = dataset[0]
    expected = transform(table.center[0], table.scale[0], 0.0, (64, 64))
    np.testing.assert_array_equal(part["matrix"], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.name=thin_heatmaps", "data.codec=simcc"], "thin_heatmaps predicts heatmaps: codec must be"),
        (["model.name=thin_simcc", "data.codec=udp"], "thin_simcc predicts bins: codec must be 'simcc'"),
        (["model.name=thin_heatmaps", "data.split_ratio=3"], "split_ratio is of codec 'simcc'"),
    ],
    ids=["heatmaps", "bins", "ratio"],
)
def test_a_codec_of_other_networks_is_refused(settings, message):
    found = task(*settings)
    with pytest.raises(ConfigError, match=message):
        found.build_model(found.val_table())


def test_a_loss_of_other_codecs_is_refused():
    found = task(*CODECS["simcc"], "train.loss=mse")
    with pytest.raises(ConfigError, match="thin_simcc predicts bins; choose kl"):
        found.objective(found.build_model(found.val_table()))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.codec=UDP", "data.codec: got 'UDP', must be one of auto, msra, udp, simcc"),
        ("data.simcc_sigma=[1]", "data.simcc_sigma=.*two numbers above 0, or null"),
        ("data.simcc_sigma=[1, 0]", "data.simcc_sigma=.*two numbers above 0, or null"),
        ("data.simcc_smoothing=0.1", "data.simcc_smoothing is of one bin"),
        ("data.simcc_smoothing=1", "data.simcc_smoothing=1.0: must be 0 or more and below 1"),
    ],
)
def test_settings_that_cannot_be(setting, message):
    with pytest.raises(ConfigError, match=message):
        task(setting)


@pytest.mark.parametrize(("saved", "asked"), [("udp", "msra"), ("msra", "udp")])
def test_weights_of_another_codec_are_not_scored(saved, asked, tmp_path):
    path = tmp_path / "own.safetensors"
    trained = task(*CODECS[saved])
    save_weights(trained.build_model(trained.val_table()), path)
    other = task("model.name=thin_heatmaps", f"data.codec={asked}")
    with pytest.raises(CheckpointError, match=f"trained with codec {saved}, not data.codec={asked}"):
        other.build_model(other.val_table(), path)
    free = task("model.name=thin_heatmaps")
    assert free.build_model(free.val_table(), path).meta.codec == saved


def test_a_training_may_start_from_weights_of_another_codec(tmp_path):
    path = tmp_path / "own.safetensors"
    before = task(*CODECS["msra"])
    save_weights(before.build_model(before.val_table()), path)
    after = task(*CODECS["udp"], f"model.weights={path}")
    assert after.build_model(after.train_table()).meta.codec == "udp"
    kept = task("model.name=thin_heatmaps", f"model.weights={path}")
    assert kept.build_model(kept.train_table()).meta.codec == "msra"


def test_a_predictor_runs_weights_as_they_were_trained(tmp_path):
    udp = Predictor(create_model("thin_heatmaps", codec="udp", input_size=(64, 64)), detector="whole")
    assert (udp.options.refine, udp.options.shift) == ("dark_udp", False)
    own = Predictor(create_model("thin_heatmaps", input_size=(64, 64)), detector="whole")
    assert (own.options.refine, own.options.shift) == ("quarter", True)
    path = tmp_path / "simcc.safetensors"
    save_weights(create_model("thin_simcc", input_size=(64, 64)), path)
    simcc = Predictor("thin_simcc", weights=path, detector="whole")
    assert (simcc.meta.input_size, simcc.options.shift) == ((64, 64), False)
    found = simcc(np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8))[0]
    assert found.keypoints.xy.shape == (1, 17, 2)


@pytest.mark.parametrize(("codec", "transform"), [("msra", get_affine_transform), ("udp", get_udp_transform)])
def test_a_predictor_cuts_in_the_unit_of_the_weights(codec, transform):
    seen = []
    network = create_model("thin_heatmaps", codec=codec, input_size=(64, 64))
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].clone()))
    picture = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    box = np.array([5.0, 6.0, 40.0, 60.0])
    Predictor(network, device="cpu")(picture, boxes=box[None])
    center, scale = box_to_center_scale(box, 1.0)
    crop = warp_crop(picture, transform(center, scale, 0.0, (64, 64)), (64, 64))[..., ::-1].copy()
    torch.testing.assert_close(seen[-1], normalize_crops(torch.from_numpy(crop[None]))[0])
