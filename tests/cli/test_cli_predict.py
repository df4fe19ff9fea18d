"""`fastpose predict`: whose boxes, which way up, and what it says when nobody is found."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch

from fastpose.cli import main
from fastpose.keypoints import COCO_17
from fastpose.models import create_model, save_weights

WIDTH, HEIGHT = 120, 160


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    torch.manual_seed(0)
    network = create_model("hrnet_w18_small", input_size=(64, 64), keypoints=COCO_17)
    with torch.no_grad():
        network.final_layer.bias += 1  # peaks above 0: joints
    save_weights(network, path)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    return path


def predict(weights, *words) -> int:
    return main(["predict", *map(str, (weights, *words))])


def rows(folder) -> list[dict]:
    return json.loads((folder / "predictions.json").read_text())


def test_without_boxes_the_whole_picture_is_one_person_and_it_says_so(weights, photo, tmp_path, caplog):
    assert predict(weights, photo, "--out", tmp_path / "out") == 0
    (row,) = rows(tmp_path / "out")
    assert row["bbox"] == [0, 0, WIDTH, HEIGHT]
    assert "taken as one person" in caplog.text
    caplog.clear()
    assert predict(weights, photo, "--out", tmp_path / "quiet", "--detector", "whole") == 0
    assert rows(tmp_path / "quiet") == [row]
    assert "taken as one person" not in caplog.text


def test_run_folder_is_its_best_weights(weights, photo, tmp_path):
    assert predict(weights.parent, photo, "--out", tmp_path / "out") == 0
    assert len(rows(tmp_path / "out")) == 1


def test_built_in_detector_that_finds_nobody_gives_an_empty_result(weights, photo, tmp_path, capsys):
    assert predict(weights, photo, "--out", tmp_path / "out", "--detector", "people") == 0
    assert rows(tmp_path / "out") == []
    assert "0 persons in 1 pictures, 0 skipped" in capsys.readouterr().out
    drawn = cv2.imread(str(tmp_path / "out" / "photo.png"))
    assert np.array_equal(drawn, cv2.imread(str(photo)))


def test_pictures_stand_upright_unless_told_otherwise(weights, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    path = tmp_path / "turned.jpg"
    image = Image.new("RGB", (WIDTH, HEIGHT))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert predict(weights, path, "--out", tmp_path / "up") == 0
    assert rows(tmp_path / "up")[0]["bbox"] == [0, 0, HEIGHT, WIDTH]
    assert predict(weights, path, "--out", tmp_path / "stored", "--no-exif") == 0
    assert rows(tmp_path / "stored")[0]["bbox"] == [0, 0, WIDTH, HEIGHT]


def test_names_in_a_json_of_boxes_lead_nowhere(weights, photo, tmp_path, capsys):
    boxes = tmp_path / "boxes.json"
    names = [
        "../../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "\\\\host\\share\\photo.png",
        "x" * 4096,
        "photo.png",
    ]
    boxes.write_text(json.dumps([{"file_name": name, "bbox": [5, 5, 50, 60]} for name in names]))
    assert predict(weights, photo, "--boxes", boxes, "--out", tmp_path / "out") == 0
    (row,) = rows(tmp_path / "out")
    assert row["file_name"] == photo.as_posix()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo.png", "predictions.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detector", "yolo"], "unknown; expected 'whole', 'people'"),
        (["--detector", "ultralytics:yolo11n.pt"], "pip install ultralytics"),
        (["--detector", "people", "--boxes", "boxes.json"], "give one of the two"),
        (["--boxes", "gone.json"], "gone.json: cannot be read"),
        (["--device", "tpu"], "not a device"),
        (["gone.jpg"], "gone.jpg: no such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_refusals(weights, photo, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    assert predict(weights, photo, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
