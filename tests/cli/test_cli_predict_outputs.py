"""`fastpose predict` beside its own input: what is read is never written over, pictures are told apart."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pose_stubs import Small, small

from fastpose.cli import main
from fastpose.infer.video_out import VideoWriter
from fastpose.models import ModelMeta, registry, save_weights

NAME = "small"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder: w.safetensors, m.avi, frames/ and mixed/ of one and of two sizes, solo.png."""
    monkeypatch.setitem(registry._factories, NAME, small)
    monkeypatch.setitem(registry._tasks, NAME, ModelMeta.task)
    monkeypatch.chdir(tmp_path)
    save_weights(Small(ModelMeta(NAME, 17, (64, 64))), tmp_path / "w.safetensors")
    for path in ("frames/000000.png", "frames/000001.png", "mixed/a.png", "mixed/b.png", "solo.png"):
        Path(path).parent.mkdir(exist_ok=True)
        picture(path, (48, 64) if path == "mixed/b.png" else (64, 96))
    video = VideoWriter("m.avi", 10.0)
    for number in range(3):
        video.write(np.full((64, 96, 3), 60 * number, np.uint8))
    video.close()
    Path("boxes.json").write_text(json.dumps([{"file_name": "solo.png", "bbox": [5, 5, 50, 50]}]))
    return tmp_path


def picture(path, shape=(64, 96)):
    seed = len(str(path)) + sum(map(ord, str(path)))
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8))


def run(*words) -> int:
    common = ["--device", "cpu", "--no-flip"]
    return main(["predict", "w.safetensors", *map(str, words), "--detector", "whole", *common])


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["m.avi", "--jsonl", "m.avi"], "m.avi"),
        (["m.avi", "--video", "m.avi"], "m.avi"),
        (["m.avi", "--video", "frames/../m.avi"], "m.avi"),
        (["m.avi", "--jsonl", "link.avi"], "m.avi"),
        (["m.avi", "--jsonl", "hard.avi"], "m.avi"),
        (["m.avi", "--jsonl", "w.safetensors"], "w.safetensors"),
        (["frames/", "--track", "--video", "frames/"], "000000.png"),
        (["frames/*.png", "--track", "--video", "./frames"], "000000.png"),
        (["solo.png", "--jsonl", "solo.png"], "solo.png"),
        (["solo.png", "mixed", "--jsonl", "mixed/b.png"], "mixed/b.png"),
        (["m.avi", "--video", "new.avi", "--jsonl", "new.avi"], "new.avi"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_read_is_never_written_over(folder, words, named, capsys):
    os.symlink("m.avi", "link.avi")
    os.link("m.avi", "hard.avi")
    before = contents(folder)
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert named in error
    assert words[-1].rstrip("/").removeprefix("./") in error
    assert "choose another" in error
    assert contents(folder) == before


def test_a_json_of_boxes_is_not_written_over(folder, capsys):
    (folder / "out").mkdir()
    Path("boxes.json").rename("out/predictions.json")
    before = contents(folder)
    words = ["predict", "w.safetensors", "solo.png", "--device", "cpu", "--boxes", "out/predictions.json"]
    assert main([*words, "--out", "out"]) == 2
    assert "out/predictions.json: is what is read" in capsys.readouterr().err
    assert main([*words, "--jsonl", "out/predictions.json"]) == 2
    assert contents(folder) == before


def test_no_drawing_takes_the_place_of_a_file_beside_the_pictures(folder):
    """Neither of a picture that is read, nor of another that happens to have the name."""
    pics = folder / "pics"
    pics.mkdir()
    for name in ("a.png", "b.jpg", "b.png"):
        picture(pics / name)
    before = contents(pics)
    assert run("pics/a.png", "pics/b.jpg", "--out", "pics") == 0
    after = contents(pics)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["a-2.png", "b-2.png", "predictions.json"]
    rows = json.loads(after["predictions.json"])
    assert [row["drawn"] for row in rows] == ["a-2.png", "b-2.png"]


def test_a_folder_without_pictures_that_are_read_is_drawn_into_again(folder):
    for _ in range(2):
        assert run("solo.png", "--out", "out") == 0
    assert sorted(contents(folder / "out")) == ["predictions.json", "solo.png"]


def test_pictures_of_one_name_have_ids_of_their_own(folder, caplog):
    for name in ("a/x.jpg", "a/x.png", "b/x.png", "b/7.png", "b/007.png", "b/000012.png"):
        Path(name).parent.mkdir(exist_ok=True)
        picture(name)
    assert run("a", "b", "--out", "out") == 0
    rows = {row["file_name"]: row for row in json.loads(Path("out/predictions.json").read_text())}
    shared = {name: name for name in ("a/x.jpg", "a/x.png", "b/x.png", "b/7.png", "b/007.png")}
    assert {name: row["image_id"] for name, row in rows.items()} == shared | {"b/000012.png": 12}
    assert caplog.text.count("the image_id of these is the path") == 1
    assert "5 pictures share names" in caplog.text
    sources = {name: cv2.imread(name).astype(float) for name in rows}
    for name, row in rows.items():
        drawn = cv2.imread(f"out/{row['drawn']}").astype(float)
        apart = {other: np.abs(drawn - pixels).mean() for other, pixels in sources.items()}
        assert min(apart, key=apart.get) == name


def test_pictures_of_several_sizes_are_drawn_one_by_one(folder, capsys):
    assert run("mixed", "--track", "--out", "out") == 0
    said = capsys.readouterr().out
    assert "mixed/a.png has 96x64 pixels and mixed/b.png 64x48" in said
    assert sorted(os.listdir("out")) == ["mixed.jsonl", "mixed_drawn"]
    assert [cv2.imread(f"out/mixed_drawn/00000{n}.png").shape for n in range(2)] == [(64, 96, 3), (48, 64, 3)]
    assert len(Path("out/mixed.jsonl").read_text().splitlines()) == 2


def test_a_video_of_several_sizes_is_refused_before_anything_is_written(folder, capsys):
    assert run("mixed", "--rate", "0.5", "--video", "out/x.mp4") == 2
    error = capsys.readouterr().err
    assert "out/x.mp4: mixed/a.png has 96x64 pixels and mixed/b.png 64x48" in error
    assert "--video out/x, " in error
    assert not Path("out").exists()
    assert run("mixed", "--rate", "0.5", "--video", "out/x") == 0
    assert run("mixed", "--smooth", "--no-draw", "--out", "out") == 0


@pytest.mark.parametrize(
    ("words", "files"),
    [(["frames/*.png"], "frames"), (["."], "frames"), (["frames"], "frames"), (["solo.png"], "solo")],
    ids=["glob", "dot", "folder", "file"],
)
def test_names_of_the_files_are_names(folder, words, files):
    assert run(*words, "--track", "--out", "out") == 0
    assert sorted(os.listdir("out")) == [f"{files}.jsonl", f"{files}.mp4"]
