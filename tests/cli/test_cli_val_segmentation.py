"""`fastpose val` of a segmentation network on a folder in VOC's layout."""

import json

import cv2
import numpy as np
import pytest

from fastpose.classes import BODY_PARTS
from fastpose.cli import main
from fastpose.data.figures import write_figure_parts
from fastpose.data.voc import read_voc
from fastpose.models import create_model, save_weights

NAME = "hrnet_seg_w18_small_v1"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_weights(create_model(NAME, BODY_PARTS.num_classes, classes=BODY_PARTS), path)
    return path


@pytest.fixture
def folder(tmp_path):
    write_figure_parts(tmp_path / "data", 3, split="val", image_size=(64, 64))
    return tmp_path / "data"


def val(folder, weights, *words):
    settings = [
        "data.format=voc",
        f"data.root={folder}",
        "data.val_split=val",
        "run.threads=1",
        "data.workers=0",
    ]
    return main(["val", "samples/figures_segmentation", *settings, "--weights", str(weights), *words])


def test_every_class_has_a_line_and_a_row_of_the_file(folder, weights, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert val(folder, weights, "--out", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    first = 1 + lines.index(
        next(line for line in lines if line.split() == ["class", "IoU", "accuracy", "pixels"])
    )
    assert [line[:10].strip() for line in lines[first : first + 7]] == list(BODY_PARTS.names)
    assert "mIoU" in "".join(lines[:first])
    assert "IoU head" not in "".join(lines)
    rows = json.loads(out.read_text())
    assert [(row["label"], row["name"]) for row in rows] == list(enumerate(BODY_PARTS.names))
    confusion = np.array([row["predicted_as"] for row in rows])
    table = read_voc(folder, "val")
    labels = np.concatenate([table.read(row).labels.ravel() for row in range(3)])
    assert confusion.sum(1).tolist() == np.bincount(labels, minlength=256)[:7].tolist()
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    for row, hit, either in zip(rows, np.diag(confusion), union, strict=True):
        assert row["IoU"] == pytest.approx(hit / either)


def test_what_the_reader_leaves_out_is_told(folder, weights, capsys):
    masks = sorted((folder / "SegmentationClass").glob("*.png"))
    masks[0].unlink()
    cv2.imwrite(str(masks[1]), np.zeros((8, 8), np.uint8))
    assert val(folder, weights) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 x labels missing" in printed
    assert "left out: 1 x picture and labels differ in size" in printed
    assert "1 picture, whole, rgb" in printed


@pytest.mark.parametrize("setting", ["val.refine=dark", "val.cell_offset=0.5", "val.nms=none"])
def test_settings_of_poses_are_refused(folder, weights, setting, capsys):
    assert val(folder, weights, setting) == 2
    told = capsys.readouterr().err
    assert f"{setting}: is for networks that find keypoints, and {NAME} gives every pixel a class" in told


@pytest.mark.parametrize("setting", ["val.scales=[0.5, 1.0]", "val.window=[64, 64]", "val.average=exp"])
def test_settings_of_segmentation_are_refused_of_poses(setting, weights, capsys):
    assert main(["val", "samples/figures", "--weights", str(weights), setting]) == 2
    assert (
        f"{setting}: is for segmentation networks, and hrnet_w18_small finds keypoints"
        in capsys.readouterr().err
    )
