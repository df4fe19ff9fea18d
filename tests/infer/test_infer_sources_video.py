"""Videos and cameras: frames in order, one at a time, and what happens where there are none."""

import logging

import cv2
import numpy as np
import pytest
from pose_stubs import ChannelPeaks

from fastpose.errors import DataError, ImageError
from fastpose.infer import video_in
from fastpose.infer.predictor import Predictor

FRAMES, RATE = 9, 5.0


def spot(number: int) -> tuple[int, int]:
    return 20 + 10 * number, 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A spot that wanders to the right by 10 pixels a frame."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (160, 80))
    assert writer.isOpened()
    for number in range(FRAMES):
        frame = np.zeros((80, 160, 3), np.uint8)
        cv2.circle(frame, spot(number), 6, (255, 255, 255), cv2.FILLED)
        writer.write(frame)
    writer.release()
    return path


def predictor(**more) -> Predictor:
    return Predictor(ChannelPeaks(), flip_test=False, detector="whole", **more)


@pytest.mark.parametrize("stream", [False, True], ids=["list", "stream"])
def test_frames_in_order_with_their_times(clip, stream):
    results = list(predictor()(str(clip), stream=stream))
    assert [result.frame for result in results] == list(range(FRAMES))
    assert [result.time for result in results] == pytest.approx([n / RATE for n in range(FRAMES)])
    assert all(result.path == clip for result in results)
    for number, result in enumerate(results):
        assert np.abs(result.keypoints.xy[0].mean(axis=0) - spot(number)).max() < 8
    if stream:
        assert results[3].plot().shape == (80, 160, 3)
    else:
        with pytest.raises(DataError, match="stream=True"):
            results[3].plot()


def test_a_video_among_pictures(clip, tmp_path):
    gone = tmp_path / "gone.mp4"
    results = predictor()([np.zeros((20, 20, 3), np.uint8), clip, gone])
    assert [result.index for result in results] == list(range(FRAMES + 2))
    assert [result.frame for result in results] == [None, *range(FRAMES), None]
    assert "no such video" in str(results[-1].error)


def test_a_stream_reads_no_further_than_it_must(clip, monkeypatch):
    read = []
    original = video_in._next
    monkeypatch.setattr(video_in, "_next", lambda capture: read.append(1) or original(capture))
    stream = predictor(batch_size=2)(clip, stream=True)
    assert not read
    next(stream)
    assert len(read) <= 2


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no video at all" * 100, b"RIFF\0\0\0\0AVI LIST"],
    ids=["gone", "empty", "text", "head"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_what_is_no_video(tmp_path, content, suffix):
    path = tmp_path / f"clip{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=r"clip\."):
        predictor()(path)


def test_a_cut_video_gives_its_frames_and_a_warning(clip, tmp_path, caplog):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, "fastpose"):
        try:
            results = predictor()(cut)
        except ImageError:
            return
    assert 0 < len(results) < FRAMES
    assert all(result.error is None for result in results)


def test_the_end_that_comes_too_early_is_told(clip, monkeypatch, caplog):
    original, left = video_in._next, [4]

    def four(capture):
        left[0] -= 1
        return original(capture) if left[0] >= 0 else None

    monkeypatch.setattr(video_in, "_next", four)
    with caplog.at_level(logging.WARNING, "fastpose"):
        assert len(predictor()(clip)) == 4
    assert "ends after 4 of 9 frames" in caplog.text


def test_mutated_videos_end_in_frames_or_an_error(clip, tmp_path):
    rng, data = np.random.default_rng(0), np.frombuffer(clip.read_bytes(), np.uint8)
    outcomes = set()
    for number in range(20):
        broken = data.copy()
        places = rng.integers(0, len(data), 40)
        broken[places] = rng.integers(0, 256, 40)
        path = tmp_path / f"{number}.avi"
        path.write_bytes(broken[: rng.integers(1, len(data))].tobytes())
        try:
            outcomes |= {"frames" for result in predictor()(path) if result.error is None}
        except ImageError:
            outcomes.add("refused")
    assert outcomes == {"frames", "refused"}


@pytest.mark.parametrize("number", [-1, 97])
def test_a_camera_that_is_not_there(number):
    with pytest.raises(ImageError, match=f"camera {number}"):
        list(predictor()(number, stream=True))


def test_a_camera_never_ends():
    with pytest.raises(DataError, match="stream=True"):
        predictor()(0)


def test_a_url_is_not_fetched():
    with pytest.raises(ImageError, match=r"a\.b/c\.mp4: URLs are not fetched; download the file"):
        list(predictor()("http://a.b/c.mp4", stream=True))


def test_a_text_of_digits_is_a_camera_unless_it_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="camera 97 never ends: use stream=True"):
        predictor()("97")
    with pytest.raises(ImageError, match="camera 97: cannot be opened"):
        list(predictor()("97", stream=True))
    (tmp_path / "97").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"97: not an image \(10 bytes without a header"):
        predictor()("97")


class Camera:
    """Stands in for cv2.VideoCapture: numbered frames, as many as it has."""

    def __init__(self, source):
        self.number, self.open = 0, True

    def isOpened(self):
        return True

    def set(self, name, value):
        return True

    def get(self, name):
        return 10.0 if name == cv2.CAP_PROP_FPS else 0.0  # no clock, as many cameras

    def read(self):
        self.number += 1
        return (True, np.full((20, 20, 3), self.number, np.uint8)) if self.number < 6 else (False, None)

    def release(self):
        Camera.released = True


def test_a_camera_answers_each_frame_before_the_next(monkeypatch):
    cameras = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: cameras.append(Camera(source)) or cameras[-1])
    stream = predictor()(0, stream=True)
    for expected in range(5):
        result = next(stream)
        assert (result.frame, cameras[0].number) == (expected, expected + 1)
        assert result.time == pytest.approx(expected / 10)
        assert result.path is None
    with pytest.raises(ImageError, match="camera 0: gave no more frame"):
        next(stream)
    assert Camera.released
