"""What is said of a file that does not fit is short, and ends with what to do."""

from __future__ import annotations

import re

import pytest
import torch

from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import PoseResNet, create_model, list_models, load_weights
from fastpose.models.fit import shortened
from fastpose.models.weights import create_fitting

ALL = f"; `fastpose models` lists all {len(list_models())}"


def words(text: str) -> list[str]:
    return [word for word in re.split(r"[^\w]+", text) if word in list_models()]


def test_a_file_that_fits_nothing_names_the_nearest_networks(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    model = create_model("hrnet_w18_small")
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    remedy = str(caught.value).splitlines()[-1]
    assert remedy.startswith("  choose the model the file was made for, such as ")
    assert remedy.endswith(ALL)
    assert "prtr_hrnet_w18_small" in words(remedy)
    assert len(words(remedy)) == 4
    assert "hrnet_w18_small" not in words(remedy)


def test_an_unknown_name_has_one_suggestion():
    with pytest.raises(ConfigError) as caught:
        create_model("hrnet_w33")
    assert words(str(caught.value)) in (["hrnet_w32"], ["hrnet_w30"])
    assert str(caught.value).endswith(ALL.removeprefix("; "))


def test_a_backbone_alone_is_told_in_a_few_names(tmp_path):
    path = tmp_path / "imagenet.pth"
    state = create_model("pose_resnet50").state_dict()
    torch.save({name: t for name, t in state.items() if name.startswith(PoseResNet.backbone_layers)}, path)
    with pytest.raises(CheckpointError) as caught:
        create_fitting("pose_resnet50", path)
    (line,) = str(caught.value).splitlines()
    unset = [name for name in state if not name.startswith(PoseResNet.backbone_layers)]
    assert (
        f"a backbone alone, which leaves {', '.join(unset[:4])}, and {len(unset) - 4} more untrained" in line
    )
    assert "; start a training from it with model.weights" in line


@pytest.mark.parametrize(("count", "end"), [(3, "c"), (4, "d"), (6, "d, and 2 more")])
def test_names_are_counted_beyond_the_first(count, end):
    assert shortened(list("abcdef"[:count]), 4).endswith(end)


def test_classes_beside_an_option_that_layers_depend_on(tmp_path):
    path = tmp_path / "five.pth"
    torch.save(create_model("simcc_resnet50", 5, input_size=(96, 96)).state_dict(), path)
    assert create_fitting("simcc_resnet50", path, input_size=(96, 96)).meta.num_joints == 5
