"""`fastpose predict` on a rendered video and on its frames: what is written and what is said."""

import json
import os
from contextlib import closing

import cv2
import pytest
import torch
from pose_stubs import Small, small

from fastpose.cli import main
from fastpose.data.figures.sequence import compose_sequence
from fastpose.infer.video_out import PngWriter, VideoWriter
from fastpose.models import ModelMeta, registry, save_weights

FRAMES, SIZE = 6, (96, 64)


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._factories, "small", small)
        patch.setitem(registry._tasks, "small", ModelMeta.task)
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Weights, the rendered film as a video and as PNGs, and a json with the true boxes of the PNGs."""
    folder = tmp_path_factory.mktemp("film")
    torch.manual_seed(0)
    save_weights(Small(ModelMeta("small", 17, (64, 64))), folder / "w.safetensors")
    truth = compose_sequence(1, FRAMES, 2, image_size=SIZE, rate=10.0, leave=False)
    with (
        closing(VideoWriter(folder / "film.avi", 10.0)) as video,
        closing(PngWriter(folder / "frames")) as pictures,
    ):
        for picture in truth.pictures():
            video.write(picture)
            pictures.write(picture)
    rows = []
    for frame in range(FRAMES):
        for person in truth.present(frame)[:: 1 if frame % 2 else -1]:
            left, top, right, bottom = truth.boxes[frame, person].tolist()
            row = {"file_name": f"{frame:06d}.png", "bbox": [left, top, right - left, bottom - top]}
            rows.append({**row, "score": 0.5 + person / 4})
    (folder / "boxes.json").write_text(json.dumps(rows))
    return folder


def run(material, *argv):
    return main(["predict", str(material / "w.safetensors"), *map(str, argv), "--device", "cpu", "--no-flip"])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def count(path):
    capture = cv2.VideoCapture(str(path))
    found = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return found


def test_a_video_gets_an_annotated_copy_and_lines(material, tmp_path, capsys):
    assert run(material, material / "film.avi", "--track", "--smooth", "--out", tmp_path) == 0
    said = capsys.readouterr().out
    assert "6 persons in 6 frames, 1 number, 0 skipped" in said
    assert str(tmp_path / "film.mp4") in said
    assert sorted(os.listdir(tmp_path)) == ["film.jsonl", "film.mp4"]
    assert count(tmp_path / "film.mp4") == (FRAMES, 10.0)
    rows = lines(tmp_path / "film.jsonl")
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert [row["time"] for row in rows] == pytest.approx([n / 10 for n in range(FRAMES)])
    assert [[person["id"] for person in row["people"]] for row in rows] == [[1]] * FRAMES
    assert len(rows[0]["people"][0]["keypoints"]) == 17


def test_only_what_is_asked_for_is_written(material, tmp_path):
    assert run(material, material / "film.avi", "--jsonl", tmp_path / "a.jsonl") == 0
    assert os.listdir(tmp_path) == ["a.jsonl"]
    assert "id" not in lines(tmp_path / "a.jsonl")[0]["people"][0]
    assert run(material, material / "film.avi", "--video", tmp_path / "pngs", "--rate", "5") == 0
    assert len(os.listdir(tmp_path / "pngs")) == FRAMES


def test_without_drawing_only_the_lines_are_written(material, tmp_path, capsys):
    assert run(material, material / "film.avi", "--no-draw", "--out", tmp_path / "plain") == 0
    assert capsys.readouterr().out.endswith(f"results: {tmp_path / 'plain' / 'film.jsonl'}\n")
    assert os.listdir(tmp_path / "plain") == ["film.jsonl"]
    assert run(material, material / "film.avi", "--out", tmp_path / "drawn") == 0
    assert lines(tmp_path / "plain" / "film.jsonl") == lines(tmp_path / "drawn" / "film.jsonl")


def test_frames_in_a_folder_are_a_video_too(material, tmp_path):
    """The boxes come in another order in every other frame, so that rows alone do not tell who is who."""
    argv = ["--boxes", material / "boxes.json", "--track", "--rate", "10", "--out", tmp_path]
    assert run(material, material / "frames", *argv) == 0
    assert count(tmp_path / "frames.mp4") == (FRAMES, 10.0)
    for row in lines(tmp_path / "frames.jsonl"):
        who = {person["box_score"]: person["id"] for person in row["people"]}
        assert who == {0.5: 2, 0.75: 1}


def test_smoothing_moves_joints_and_not_the_first_ones(material, tmp_path):
    found = []
    for smooth in ([], ["--smooth"]):
        path = tmp_path / f"{len(smooth)}.jsonl"
        assert run(material, material / "film.avi", "--track", *smooth, "--jsonl", path) == 0
        found.append([row["people"][0]["keypoints"] for row in lines(path)])
    plain, calm = found
    assert plain[0] == calm[0]
    assert plain[1:] != calm[1:]


def test_pictures_without_a_video_option_are_as_before(material, tmp_path):
    assert run(material, material / "frames", "--out", tmp_path) == 0
    assert "predictions.json" in os.listdir(tmp_path)
    assert len(os.listdir(tmp_path)) == FRAMES + 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gone.mp4"], "no such video"),
        (["film.avi", "film.avi"], "one video or camera at a time"),
        (["film.avi", "--boxes", "boxes.json"], "use --detector"),
        (["film.avi", "--video", "film.avi"], "is what is read"),
        (["film.avi", "--video", "out.gif"], "name a video of the kinds"),
        (["film.avi", "--video", "out.mp4", "--rate", "0"], "frames a second"),
        (["film.avi", "--jsonl", "frames"], "cannot be written"),
        (["film.avi", "--video", "out.mp4", "--no-draw"], "--no-draw and --video: give one of the two"),
        (["broken.mp4", "--jsonl", "a.jsonl"], "damaged, or no video"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_end_with_exit_code_2(material, capsys, monkeypatch, argv, message):
    monkeypatch.chdir(material)
    (material / "broken.mp4").write_bytes(b"no video at all")
    assert run(material, *argv) == 2
    error = capsys.readouterr().err
    assert "fastpose: error: " in error
    assert message in error
    assert "Traceback" not in error
    assert not (material / "out.mp4").exists()
