"""What a configuration is about, and what cannot go together."""

import pytest

from fastpose.classes import BODY_PARTS
from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import ModelMeta, create_model, save_weights
from fastpose.train.config_io import load_config
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.segmentation_objective import SegmentationObjective
from fastpose.train.tasks import task_for
from fastpose.train.tasks.conventions import pose_conventions
from fastpose.train.tasks.pose import PoseTask
from fastpose.train.tasks.segmentation import SegmentationTask

POSE, SEGMENTATION = "samples/figures", "samples/figures_segmentation"
SMALL = ["data.figures.train_count=3", "data.figures.val_count=2"]


def task(name, *settings):
    return task_for(load_config(name, [*SMALL, *settings]))


def test_network_chooses_the_task():
    assert type(task(POSE)) is PoseTask
    assert type(task(SEGMENTATION)) is SegmentationTask
    with pytest.raises(ConfigError, match=r"unknown model 'hrnet_w33'; did you mean 'hrnet_w3"):
        task(POSE, "model.name=hrnet_w33")


def test_pose_objective_follows_settings_and_network():
    pose = task(POSE, "train.loss=ohkm", "train.ohkm_topk=4", "data.target=unbiased")
    model = create_model("hrnet_w18_small", 17, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    found = pose.objective(model)
    assert isinstance(found, HeatmapObjective)
    assert (found.topk, found.target) == (4, {"sigma": 1.25, "unbiased": True})
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        (
            POSE,
            "ce_dice",
            r"train\.loss=ce_dice: hrnet_w18_small predicts heatmaps; choose mse, keypoint_mse or ohkm",
        ),
        (SEGMENTATION, "mse", r"train\.loss=mse: hrnet_seg_w18_small_v1 is for segmentation; choose ce,"),
    ],
)
def test_loss_of_another_task_is_refused(name, loss, message):
    found = task(name, f"train.loss={loss}")
    with pytest.raises(ConfigError, match=message):
        found.objective(found.build_model(found.val_table()))


def test_segmentation_objective_follows_settings_and_network():
    weights = "[0.5, 1, 1, 1, 1, 1, 1]"
    parts = task(SEGMENTATION, "train.loss=ohem", "train.ohem_keep=9", f"train.class_weights={weights}")
    model = parts.build_model(parts.val_table())
    assert model.meta.classes == BODY_PARTS
    found = parts.objective(model)
    assert isinstance(found, SegmentationObjective)
    assert found.options == {"name": "ohem", "align_corners": False, "threshold": 0.9}
    assert (found.min_kept, found.batch_size) == (9, parts.config.train.batch_size)
    assert found.weight.tolist() == [0.5, 1, 1, 1, 1, 1, 1]


def test_what_asks_for_nothing_is_no_setting_of_another_task():
    """As configurations of runs hold it that began before these were left to the weights."""
    assert task(SEGMENTATION, "val.cell_offset=0.0", "val.background=false").config.val.cell_offset == 0
    with pytest.raises(ConfigError, match=r"val\.cell_offset=0\.5: is for networks that find keypoints"):
        task(SEGMENTATION, "val.cell_offset=0.5")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.class_weights=[1, 2]", r"train\.class_weights: 2 weights for 7 classes"),
        ("data.warp=gpu", r"data\.warp=gpu and data\.crop_cache cut persons out"),
    ],
)
def test_segmentation_refuses(setting, message):
    parts = task(SEGMENTATION, setting)
    with pytest.raises(ConfigError, match=message):
        parts.check(parts.train_table(), parts.val_table())


def test_format_of_another_task_is_refused():
    with pytest.raises(ConfigError, match=r"data\.format=mpii: segmentation networks take voc, coco or fig"):
        task(SEGMENTATION, "data.format=mpii", "data.root=.").train_table()
    with pytest.raises(ConfigError, match=r"data\.format=voc: pose networks take coco, mpii or figures"):
        task(POSE, "data.format=voc", "data.root=.").train_table()


def test_weights_for_other_classes_are_refused(tmp_path):
    parts = task(SEGMENTATION)
    names = tuple(f"class {label}" for label in range(7))
    other = type(BODY_PARTS)("other", names, BODY_PARTS.colors)
    path = tmp_path / "other.safetensors"
    save_weights(create_model("hrnet_seg_w18_small_v1", 7, classes=other), path)
    with pytest.raises(CheckpointError, match=r"trained on the classes class 0, class 1"):
        parts.build_model(parts.val_table(), path)


def test_weights_of_another_task_are_refused(tmp_path):
    parts, pose = task(SEGMENTATION), task(POSE)
    path = tmp_path / "pose.safetensors"
    save_weights(pose.build_model(pose.val_table()), path)
    with pytest.raises(CheckpointError, match=r"holds hrnet_w18_small with 17 joints, not hrnet_seg_w18"):
        parts.build_model(parts.val_table(), path)


def test_conventions_change_one_thing_each():
    pose = task(POSE)
    found = pose.conventions(create_model("hrnet_w18_small", 17))
    assert found["as configured"] == pose.config
    assert set(found) == {
        "as configured", "no flip test", "flip test without the one-pixel shift", "whole cells", "DARK",
        "quarter shift of mmpose", "OKS-NMS soft", "OKS-NMS none", "pixels fed as BGR",
    }  # fmt: skip
    assert not found["no flip test"].val.flip_test
    assert not found["flip test without the one-pixel shift"].val.shift_heatmap
    assert (found["DARK"].val.refine, found["whole cells"].val.refine) == ("dark", "none")
    assert found["pixels fed as BGR"].model.channel_order == "bgr"
    assert pose.config.val.flip_test, "the task's own is as it was"


def test_conventions_of_detector_boxes_and_of_mpii():
    settings = ["data.root=.", "val.detections=boxes.json"]
    coco = task_for(load_config("coco/hrnet_w32_256x192", settings))
    assert coco.conventions(create_model("hrnet_w32"))["detector boxes"].val.boxes == "detector"
    mpii = task_for(load_config("mpii/hrnet_w32_256x256", ["data.root=."]))
    assert not [name for name in mpii.conventions(create_model("hrnet_w32", 16)) if "NMS" in name]


def test_conventions_of_segmentation():
    parts = task(SEGMENTATION)
    found = parts.conventions(parts.build_model(parts.val_table()))
    assert set(found) == {
        "as configured", "align_corners true", "one scale with flip test", "several scales without flip test",
        "several scales with flip test", "pixels fed as BGR",
    }  # fmt: skip
    assert found["align_corners true"].model.align_corners is True
    both = found["several scales with flip test"].val
    assert (both.scales, both.flip_test) == ([0.5, 0.75, 1.0, 1.25, 1.5, 1.75], True)
    windows = task(SEGMENTATION, "val.window=[64, 64]")
    found = windows.conventions(windows.build_model(windows.val_table()))
    assert [found[name].val.average for name in found if "scale" in name] == ["exp"] * 4
    given = task(SEGMENTATION, "val.flip_test=true", "val.scales=[0.5, 1.0]")
    found = given.conventions(given.build_model(given.val_table()))
    assert len([name for name in found if "scale" in name]) == 4, "none of them is as configured"


def test_conventions_of_queries_and_of_hourglass():
    queries = task_for(load_config("coco/prtr_resnet50_384x288", ["data.root=."]))
    found = pose_conventions(queries.config, ModelMeta("prtr", 17, (288, 384)), "queries")
    assert found["softmax with the class for no keypoint"].val.background
    queries.config.val.background = True
    found = pose_conventions(queries.config, ModelMeta("prtr", 17, (288, 384)), "queries")
    assert not found["softmax without the class for no keypoint"].val.background
    mpii = task_for(load_config("mpii/hourglass2_256x256", ["data.root=."]))
    found = mpii.conventions(create_model("hourglass2", 16))
    assert found["peaks in the middle of cells"].val.cell_offset == 0.5
    assert found["flip test with the one-pixel shift"].val.shift_heatmap
    assert not [name for name in found if "no keypoint" in name]
