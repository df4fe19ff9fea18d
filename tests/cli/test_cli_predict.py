"""`fastpose predict`: whose boxes, which way up, and what it says when nobody is found."""

import json
import re
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


def test_the_remedy_is_one_for_the_command_line(weights, photo, tmp_path, caplog):
    assert predict(weights, photo, "--out", tmp_path / "out") == 0
    assert "--detector whole silences this" in caplog.text
    assert "detector=" not in caplog.text


def test_without_drawing_the_json_is_the_same(weights, photo, tmp_path, capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled.append(options) or module)
    common = [weights, photo.parent, "--detector", "whole", "--no-flip"]
    assert predict(*common, "--out", tmp_path / "drawn") == 0
    assert not compiled
    capsys.readouterr()
    drawn = rows(tmp_path / "drawn")
    assert [row.pop("drawn") for row in drawn] == ["photo.png"]
    for number, speed in enumerate(["--batch-size 1", "--workers 2", "--warp gpu", "--compile default"]):
        out = tmp_path / str(number)
        assert predict(*common, "--no-draw", *speed.split(), "--out", out) == 0
        assert rows(out) == drawn
        assert [path.name for path in out.iterdir()] == ["predictions.json"]
        assert capsys.readouterr().out.endswith(f"results: {out}/predictions.json\n")
        assert len(compiled) == ("--compile" in speed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "batch_size: expected a whole number above 0, got 0"),
        (["--batch-size", "many"], "--batch-size: invalid int value: 'many'"),
        (["--workers", "-1"], "--workers: expected"),
        (["--workers", "2.5"], "--workers: expected auto or a whole number from 0 on, got '2.5'"),
        (["--workers", "1000"], "workers: expected 'auto' or a whole number from 0 to 256, got 1000"),
        (["--compile", "fast"], "--compile: invalid choice: 'fast'"),
        (["--threshold", "nan"], "--threshold: expected a score from 0 to 1, got 'nan'"),
        (["--threshold", "7"], "--threshold: expected a score from 0 to 1, got '7'"),
        (["--threshold", "-0.1"], "--threshold: expected a score from 0 to 1, got '-0.1'"),
        (["--threshold", "a"], "--threshold: invalid"),
        (["--box-score", "0.9"], "--box-score: chooses among the boxes of --boxes FILE"),
        (["--box-score", "0.9", "--detector", "people"], "--box-score: chooses among the boxes of --boxes"),
        (["--box-score", "nan", "--boxes", "boxes.json"], "--box-score: expected a finite number"),
        (
            ["--blur-kernel", "17"],
            "blur_kernel=17: belongs to dark and dark_udp, and hrnet_w18_small is read",
        ),
        (["--rate", "0"], "rate: expected a number of frames a second above 0, got 0.0"),
        (["--amp", "fp16", "--device", "cpu"], "fp16 needs a CUDA device"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_numbers_that_cannot_be(weights, photo, words, message, capsys, tmp_path):
    try:
        code = predict(weights, photo, *words, "--out", tmp_path / "out")
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_an_empty_name_of_a_picture_is_not_the_working_folder(weights, photo, monkeypatch, capsys):
    monkeypatch.chdir(photo.parent)
    assert predict(weights, "") == 2
    assert "an empty name" in capsys.readouterr().err


def test_help_has_its_options_in_groups(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    text = capsys.readouterr().out
    heads = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    for head in ("where people are", "network", "speed", "output", "video"):
        assert heads.count(head) == 1
    (own,) = re.findall(r"^options:\n((?: .*\n)+)", text, re.M)
    assert " ".join(own.split()) == "-h, --help show this help message and exit", "all others have a group"


def test_run_folder_is_its_best_weights(weights, photo, tmp_path):
    assert predict(weights.parent, photo, "--out", tmp_path / "out") == 0
    assert len(rows(tmp_path / "out")) == 1


def test_built_in_detector_that_finds_nobody_gives_an_empty_result(weights, photo, tmp_path, capsys):
    assert predict(weights, photo, "--out", tmp_path / "out", "--detector", "people") == 0
    assert rows(tmp_path / "out") == []
    assert "0 persons in 1 picture, 0 skipped" in capsys.readouterr().out
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
        (["https://a.b/c.jpg"], "https://a.b/c.jpg: URLs are not fetched"),
        (["https://a.b/c.jpg?size=*"], "URLs are not fetched"),
        (["--config", "nonsense"], "no configuration 'nonsense': neither a file nor a shipped one (fastpose"),
        (
            ["--config", "coco/hrnet_w32_256x193"],
            "did you mean 'coco/hrnet_w32_256x192'? (fastpose train --li",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_refusals(weights, photo, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    assert predict(weights, photo, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error) < 600, "a list of names in the place of a remedy"


def test_a_file_that_is_no_picture_costs_a_line(weights, photo, tmp_path, capsys):
    notes = photo.with_name("notes.txt")
    notes.write_text("of this day")
    nameless = photo.with_name("nameless")
    nameless.write_bytes(photo.read_bytes())
    assert predict(weights, notes, photo, nameless, "--no-draw", "--out", tmp_path / "out") == 0
    assert {row["file_name"] for row in rows(tmp_path / "out")} == {photo.as_posix(), nameless.as_posix()}
    said = capsys.readouterr().out
    assert f"skipped: {notes}: not an image (11 bytes without a header of " in said
    assert "2 persons in 3 pictures, 1 skipped" in said
    assert predict(weights, notes, "--out", tmp_path / "none") == 2
    captured = capsys.readouterr()
    assert f"skipped: {notes}: not an image" in captured.out
    assert "nobody to predict in 1 picture" in captured.err


@pytest.mark.parametrize("name", ["photo.png", "film.MP4"])
def test_a_picture_in_the_place_of_weights(name, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(b"x" * 100)
    assert predict(path, path, "--out", tmp_path / "out") == 2
    assert f"{path}: is no file of weights, which come first" in capsys.readouterr().err


def test_a_kernel_of_its_refinement_is_taken(weights, photo, tmp_path):
    assert predict(weights, photo, "--refine", "dark", "--blur-kernel", "17", "--out", tmp_path / "out") == 0
