"""A named network takes what its file has, unless something else is asked for."""

from __future__ import annotations

import pytest
import torch

from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.network_in import find_network
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import create_model, save_weights

FIVE = KeypointSet(
    name="five",
    names=("nose", "left_hand", "right_hand", "left_foot", "right_foot"),
    flip_pairs=((1, 2), (3, 4)),
    skeleton=((1, 2),),
    sigmas=(0.05,) * 5,
    upper_body=(0, 1, 2),
    joint_weights=(1.0,) * 5,
)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """name, joints -> a file that says nothing but its tensors, each written once."""
    folder, made = tmp_path_factory.mktemp("files"), {}

    def write(name: str, joints: int):
        path = folder / f"{name}_{joints}.pth"
        if path not in made:
            made[path] = torch.save(create_model(name, joints).state_dict(), path)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "keypoints"),
    [("hourglass2_mobile", MPII_16), ("hrnet_w18_small", MPII_16), ("hrnet_w18_small", COCO_17)],
    ids=["its-own-16", "16-in-place-of-17", "its-own-17"],
)
def test_the_file_says_how_many_joints(file_of, name, keypoints):
    file = file_of(name, keypoints.num_joints)
    predict = Predictor(name, weights=file, device="cpu", detector="whole")
    assert (predict.meta.model, predict.meta.num_joints) == (name, keypoints.num_joints)
    assert predict.keypoints == keypoints


def test_keypoints_and_options_travel_along(file_of):
    file = file_of("hrnet_w18_small", 5)
    network = find_network("hrnet_w18_small", file, keypoints=FIVE, input_size=(96, 128))
    assert (network.meta.keypoints, network.meta.input_size) == (FIVE, (96, 128))
    assert find_network("hrnet_w18_small", file, input_size=(96, 128)).meta.num_joints == 5
    with pytest.raises(CheckpointError, match="5 joints and do not say which"):
        Predictor("hrnet_w18_small", weights=file, device="cpu")


@pytest.mark.parametrize("asked", [{"num_joints": 17}, {"keypoints": COCO_17}], ids=["number", "set"])
def test_what_is_asked_for_goes_before_the_file(file_of, asked):
    with pytest.raises(CheckpointError, match="create the model with num_joints=5"):
        find_network("hrnet_w18_small", file_of("hrnet_w18_small", 5), **asked)


def test_a_file_of_ours_says_so_itself(tmp_path):
    path = tmp_path / "five.safetensors"
    save_weights(create_model("hrnet_w18_small", 5, keypoints=FIVE), path)
    assert Predictor("hrnet_w18_small", weights=path, device="cpu").keypoints == FIVE
    with pytest.raises(CheckpointError, match="holds hrnet_w18_small with 5 joints, not hourglass2_mobile"):
        find_network("hourglass2_mobile", path)


@pytest.mark.parametrize("keypoints", ["mpii", 16, {"name": "mpii"}], ids=["name", "number", "dict"])
def test_keypoints_are_a_set(file_of, keypoints):
    message = r"^keypoints: expected a fastpose.keypoints.KeypointSet, got .*; give COCO_17, MPII_16 or"
    with pytest.raises(ConfigError, match=message):
        Predictor("hrnet_w18_small", weights=file_of("hrnet_w18_small", 5), keypoints=keypoints, device="cpu")
    with pytest.raises(ConfigError, match=message):
        create_model("hrnet_w18_small", 16, keypoints=keypoints)
