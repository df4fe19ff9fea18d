"""Videos, PNGs and lines of JSON: whole when they are there, and errors that say why they are not."""

import os
import shutil
from contextlib import closing
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from video_out_cases import limited, result

from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.infer import video_out
from fastpose.infer.result import Boxes
from fastpose.infer.video_out import PngWriter, VideoWriter, annotate, id_color, open_writer


def picture(number, size=(64, 48)):
    """A bright disc that wanders over a gradient; codecs keep it."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.linspace(0, 120, width)[None, :, None]
    cv2.circle(image, (8 + 3 * number, height // 2), 7, (60, 255, 90), cv2.FILLED)
    return image


def read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, rate


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)], ids=["even", "odd"])
def test_a_video_holds_its_frames_at_their_rate(tmp_path, suffix, size):
    path = tmp_path / f"new/folder/out{suffix}"
    with closing(open_writer(path, 12.5)) as writer:
        for number in range(15):
            writer.write(picture(number, size))
        assert not path.exists()
    frames, rate = read(path)
    assert rate == 12.5
    assert [frame.shape for frame in frames] == [(48 + size[1] % 2 * 2, 64 + size[0] % 2 * 2, 3)] * 15
    for number, frame in enumerate(frames):
        off = np.abs(frame[: size[1], : size[0]].astype(int) - picture(number, size))
        assert off.mean() < 6
    assert os.listdir(path.parent) == [path.name]


def test_an_older_video_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.avi"
    path.write_text("older")
    writer = VideoWriter(path, 25)
    writer.write(picture(0))
    assert path.read_text() == "older"
    writer.close()
    writer.close()
    assert len(read(path)[0]) == 1


def test_no_frame_makes_no_video(tmp_path):
    VideoWriter(tmp_path / "out.mp4", 25).close()
    assert not os.listdir(tmp_path)


def test_pngs_are_exact_and_in_order(tmp_path):
    writer = open_writer(tmp_path / "frames", 25)
    assert isinstance(writer, PngWriter)
    for number in range(3):
        writer.write(picture(number))
    writer.close()
    assert sorted(os.listdir(tmp_path / "frames")) == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "frames/000002.png")), picture(2))


@pytest.mark.parametrize(
    ("name", "rate", "error", "message"),
    [
        ("out.gif", 25, ConfigError, ".mp4, .avi, or a folder"),
        ("out.mp4", 0, ConfigError, "frames a second"),
        ("out.mp4", float("nan"), ConfigError, "frames a second"),
        ("out.mp4", 70000, ConfigError, "frames a second"),
        ("folder.mp4", 25, OutputError, "is a folder"),
        ("file/out.mp4", 25, OutputError, "cannot be created"),
    ],
    ids=str,
)
def test_what_cannot_be_a_video_is_said_before_the_first_frame(tmp_path, name, rate, error, message):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=message):
        open_writer(tmp_path / name, rate)


@pytest.mark.parametrize(
    "bad",
    [picture(0, (66, 48)), picture(0)[..., 0], picture(0).astype(np.float32), picture(0)[:0]],
    ids=["size", "grey", "floats", "empty"],
)
def test_frames_of_another_kind_are_refused_and_the_rest_is_kept(tmp_path, bad):
    path = tmp_path / "out.mp4"
    with closing(VideoWriter(path, 25)) as writer:
        writer.write(picture(0))
        with pytest.raises(DataError, match=r"out\.mp4"):
            writer.write(bad)
        writer.write(picture(1))
    assert len(read(path)[0]) == 2


def test_a_missing_codec_names_what_to_take_instead(tmp_path, monkeypatch):
    monkeypatch.setitem(video_out.CODECS, ".mp4", "XYZW")
    writer = VideoWriter(tmp_path / "out.mp4", 25)
    with pytest.raises(OutputError, match=r"cannot write XYZW video of 64x48; take .avi, or a folder"):
        writer.write(picture(0))
    writer.close()
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_told_at_the_frame_that_no_longer_fits(tmp_path, monkeypatch):
    class Usage(NamedTuple):
        free: int

    writer = VideoWriter(tmp_path / "out.mp4", 25)
    writer.write(picture(0))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000))
    with pytest.raises(OutputError, match="disk is full after 1 frames"):
        writer.write(picture(1))
    writer.close()
    assert len(read(tmp_path / "out.mp4")[0]) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_frames_that_were_lost_on_the_way_to_the_disk_are_an_error(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    code = (
        "    with closing(VideoWriter(path, 25)) as writer:\n"
        "        for i in range(40):\n"
        "            writer.write(np.random.default_rng(i).integers(0, 256, (240, 320, 3), dtype=np.uint8))"
    )
    said = limited(code, path, 100_000)
    assert "OutputError" in said
    assert "of 40 frames" in said
    assert not os.listdir(tmp_path)


def test_tracked_people_carry_their_number_in_their_colour():
    tracked, plain = result(), result()
    plain.boxes = Boxes(plain.boxes.xywh, plain.boxes.conf, plain.boxes.orig_shape)
    drawn, without = annotate(tracked), annotate(plain)
    np.testing.assert_array_equal(without, plain.plot())
    for number, (left, bottom) in zip((7, 12), ((20, 150), (150, 160)), strict=True):
        changed = (drawn != without).any(axis=2)[bottom - 30 : bottom + 2, left : left + 40]
        assert changed.any()
        tag = drawn[bottom - 30 : bottom + 2, left : left + 40].reshape(-1, 3)
        assert (tag == id_color(number)).all(axis=1).sum() > 50
    assert not (drawn != without)[:, 230:].any()


def test_colours_of_neighbouring_numbers_are_far_apart():
    colours = np.array([id_color(number) for number in range(1, 9)], float)
    apart = np.linalg.norm(colours[:, None] - colours, axis=2)[~np.eye(8, dtype=bool)]
    assert apart.min() > 40
    assert id_color(3) == id_color(3)
