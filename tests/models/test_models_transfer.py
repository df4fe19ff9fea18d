"""A backbone from the weights of another network."""

from __future__ import annotations

import pytest
import torch

from fastpose.errors import CheckpointError, ConfigError
from fastpose.keypoints import COCO_17, MPII_16
from fastpose.models import PRTR, HRNet, HRNetConfig, ModelMeta, create_model, load_backbone, save_weights
from fastpose.models.hrnet_cls import HRNetBody
from fastpose.models.hrnet_seg import HRNetSeg, HRNetSegConfig
from fastpose.models.meta import SegmentationMeta
from fastpose.train.config_io import load_config
from fastpose.train.tasks.pose_data import build_model

TINY = HRNetConfig(width=4, layer1_blocks=1, blocks=1, modules=(1, 1, 1))


def pose(joints: int = 17, **options) -> HRNet:
    return HRNet(TINY, ModelMeta("tiny_pose", joints, (64, 64)).with_options(options))


def prtr() -> PRTR:
    return PRTR(HRNetBody(TINY), ModelMeta("tiny_prtr", 5, (64, 64)), channels=8, layers=1, num_queries=5)


def drawn(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "pose.safetensors"
    save_weights(drawn(pose(), 0), path)
    return path


def test_other_joints_keep_all_but_the_head(weights):
    source, model = drawn(pose(), 0).state_dict(), drawn(pose(5), 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_backbone(model, weights) == ()
    for name, tensor in model.state_dict().items():
        head = name.startswith("final_layer.")
        assert torch.equal(tensor, (before if head else source)[name]), name


def test_prtr_starts_from_a_pose_network(weights):
    source, model = drawn(pose(), 0).state_dict(), drawn(prtr(), 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    left = load_backbone(model, weights)
    places = {name.removeprefix("backbone.0.body.").split(".")[0] for name in left}
    assert places == {"incre_modules", "downsamp_modules", "final_layer", "stage4"}
    assert all(".fuse_layers." in name for name in left if ".stage4." in name)
    for name, tensor in model.state_dict().items():
        kept = name in left or not name.startswith("backbone.") or name.endswith("num_batches_tracked")
        expected = before[name] if kept else source[name.removeprefix("backbone.0.body.")]
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("file", ["prtr.safetensors", "newer.pth", "older.pth"])
def test_a_pose_network_starts_from_prtr(tmp_path, file):
    source, path = drawn(prtr(), 0), tmp_path / file
    given = source.state_dict()
    prefix = "backbone.body." if file.startswith("older") else "backbone.0.body."
    if path.suffix == ".safetensors":
        save_weights(source, path)
    else:
        torch.save({name.replace("backbone.0.body.", prefix): given[name] for name in given}, path)
    model = drawn(pose(), 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_backbone(model, path) == ()
    for name, tensor in model.state_dict().items():
        kept = name.startswith("final_layer.") or name.endswith("num_batches_tracked")
        assert torch.equal(tensor, before[name] if kept else given[f"backbone.0.body.{name}"]), name


def test_prtr_starts_from_another_prtr(tmp_path):
    path = tmp_path / "prtr.safetensors"
    save_weights(drawn(prtr(), 0), path)
    model = drawn(prtr(), 1)
    assert load_backbone(model, path) == ()
    given, taken = drawn(prtr(), 0).state_dict(), model.state_dict()
    names = [name for name in taken if name.startswith("backbone.") and "num_batches" not in name]
    assert all(torch.equal(taken[name], given[name]) for name in names)
    assert not torch.equal(taken["class_embed.weight"], given["class_embed.weight"])


def test_pose_network_starts_from_one_for_segmentation(tmp_path):
    config = HRNetSegConfig(width=4, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    path = tmp_path / "parts.safetensors"
    save_weights(HRNetSeg(config, SegmentationMeta("tiny_seg", 7)), path)
    assert load_backbone(pose(), path) == ()


def test_features_keep_the_colours_they_were_made_of(tmp_path):
    path = tmp_path / "bgr.safetensors"
    save_weights(pose(channel_order="bgr", mean=(0.0, 0.0, 0.0)), path)
    model = pose(5)
    load_backbone(model, path)
    assert (model.meta.channel_order, model.meta.mean, model.meta.num_joints) == ("bgr", (0.0, 0.0, 0.0), 5)


def test_another_family_is_refused_and_nothing_changed(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1), "fc.weight": torch.zeros(3, 2)}, path)
    model = drawn(pose(), 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"other.pth: fills \d+% of the tensors in the backbone of tiny_pose"
    ):
        load_backbone(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_networks_without_a_backbone_say_so(weights):
    with pytest.raises(ConfigError, match="hourglass2_mobile has no backbone to fill"):
        load_backbone(create_model("hourglass2_mobile"), weights)


@pytest.mark.parametrize("order", ["auto", "rgb"])
def test_configuration_names_it_and_has_the_last_word(tmp_path, order):
    path = tmp_path / "seventeen.safetensors"
    save_weights(drawn(create_model("hrnet_w18_small", 17, keypoints=COCO_17, channel_order="bgr"), 0), path)
    settings = ["data.root=.", f"model.backbone={path}", f"model.channel_order={order}"]
    config = load_config("samples/mpii_sample", [*settings, "model.name=hrnet_w18_small"])
    model = build_model(config, MPII_16)
    assert torch.equal(model.conv1.weight, drawn(create_model("hrnet_w18_small"), 0).conv1.weight)
    assert model.meta.channel_order == {"auto": "bgr", "rgb": "rgb"}[order]
    assert model.meta.keypoints == MPII_16


def test_one_place_to_start_from():
    with pytest.raises(ConfigError, match=r"model.weights and model.backbone: give one"):
        load_config("samples/figures", ["model.weights=a.pth", "model.backbone=b.pth"])


def test_what_stays_fresh_is_told(weights, caplog):
    caplog.set_level("INFO", logger="fastpose")
    load_backbone(prtr(), weights)
    (line,) = [record.getMessage() for record in caplog.records if "fills" in record.getMessage()]
    assert line.endswith(
        "in the backbone of tiny_prtr; fresh stay downsamp_modules, final_layer, incre_modules, stage4"
    )


def test_a_run_folder_stands_for_its_best(weights, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"run: no run folder with weights: it has no best"):
        load_backbone(pose(5), folder)
    weights.rename(folder / "best.safetensors")
    assert load_backbone(pose(5), folder) == ()
