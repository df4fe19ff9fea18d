"""Prediction over a video: what is there when it ends early, and what is refused before it begins."""

import json

import cv2
import numpy as np
import pytest
from video_out_cases import result

from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.infer.outputs import source_files
from fastpose.infer.video_run import predict_video


def stub(shapes):
    """A predictor that finds the same people in pictures of these shapes (H, W)."""

    def predict(source, boxes, stream):
        for number, shape in enumerate(shapes):
            found = result(frame=number)
            found.pixels = np.full((*shape, 3), 40, np.uint8)
            yield found

    return predict


def never(*arguments, **options):
    raise AssertionError("the predictor was asked")


def frame_count(path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_what_was_done_is_left_when_a_picture_has_another_size(tmp_path):
    video, jsonl = tmp_path / "a.mp4", tmp_path / "a.jsonl"
    with pytest.raises(DataError, match=r"frames are 90x60, got one of 64x60; .* name a folder"):
        predict_video(stub([(60, 90)] * 3 + [(60, 64)]), None, video=video, jsonl=jsonl)
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    assert frame_count(video) == 3
    summary = predict_video(stub([(60, 90), (60, 64)]), None, video=tmp_path / "folder")
    assert (summary.frames, len(list((tmp_path / "folder").iterdir()))) == (2, 2)


def test_older_lines_are_kept_where_the_video_cannot_be(tmp_path):
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text("older")
    for video, more in ((tmp_path / "a.gif", {}), (tmp_path / "a.mp4", {"rate": 0.0}), (jsonl, {})):
        with pytest.raises(ConfigError):
            predict_video(never, None, video=video, jsonl=jsonl, **more)
    with pytest.raises(ConfigError, match="threshold"):
        predict_video(never, None, jsonl=jsonl, threshold=float("nan"))
    assert jsonl.read_text() == "older"


@pytest.mark.parametrize("form", [str, lambda path: path, lambda path: [str(path)], lambda path: path.parent])
def test_pictures_of_any_source_are_kept(tmp_path, form):
    picture = tmp_path / "000000.png"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    before = picture.read_bytes()
    assert source_files(form(picture)) == [picture]
    for output in ({"jsonl": picture}, {"video": tmp_path}):
        with pytest.raises(OutputError, match="choose another"):
            predict_video(never, form(picture), **output)
    assert picture.read_bytes() == before


def test_sources_without_files_have_none():
    assert source_files(0) == source_files(np.zeros((4, 4, 3))) == source_files(["gone.jpg", None]) == []
    assert [str(path) for path in source_files(["gone.mp4"])] == ["gone.mp4"]
