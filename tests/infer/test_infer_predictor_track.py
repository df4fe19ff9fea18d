"""A predictor that tracks and smooths: the same numbers from a list and a stream, and its options."""

from contextlib import closing

import cv2
import numpy as np
import pytest
from pose_stubs import ChannelPeaks

from fastpose.data.figures.sequence import compose_sequence
from fastpose.errors import ConfigError, DataError
from fastpose.infer.predictor import Predictor
from fastpose.infer.smooth import OneEuro
from fastpose.infer.track import Tracker
from fastpose.infer.video_out import VideoWriter

FRAMES = 8


@pytest.fixture(scope="module")
def shots():
    return [compose_sequence(seed, FRAMES, 2, image_size=(160, 120), leave=False) for seed in (1, 2)]


@pytest.fixture(scope="module")
def clip(shots, tmp_path_factory):
    """Two shots with a cut between them."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    with closing(VideoWriter(path, 25)) as writer:
        for shot in shots:
            for picture in shot.pictures():
                writer.write(picture)
    return path


class TrueBoxes:
    """A detector that knows, and turns its rows around with every picture."""

    def __init__(self, shots):
        self.rows = [shot.boxes[t, :: 1 if t % 2 else -1] for shot in shots for t in range(len(shot))]
        self.calls = 0

    def __call__(self, image):
        boxes = self.rows[self.calls]
        self.calls += 1
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def predictor(shots, **more):
    return Predictor(ChannelPeaks(), flip_test=False, detector=TrueBoxes(shots), **more)


def by_person(results):
    """Numbers of the two people, frame by frame, in the order of the truth."""
    return [r.boxes.id[:: 1 if t % 2 else -1].tolist() for t, r in enumerate(results)]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_numbers_follow_people_and_end_at_a_cut(shots, clip, batch_size):
    expected = [[2, 1]] * FRAMES + [[4, 3]] * FRAMES
    assert by_person(predictor(shots, track=True, batch_size=batch_size)(clip)) == expected
    assert by_person(predictor(shots, track=True, batch_size=batch_size)(clip, stream=True)) == expected


def test_results_carry_pictures_as_without_tracking(shots, clip, tmp_path):
    assert predictor(shots, track=True)(clip)[3].pixels is None
    streamed = list(predictor(shots, track=True)(clip, stream=True))
    assert streamed[3].image.shape == (120, 160, 3)
    picture = shots[0].picture(0)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (of_file,) = predictor(shots, track=True)(tmp_path)
    assert callable(of_file.pixels)
    np.testing.assert_array_equal(of_file.image, picture)
    (of_array,) = predictor(shots, track=True)([picture])
    np.testing.assert_array_equal(of_array.image, picture)


def test_every_call_is_a_video_of_its_own(shots):
    pictures = [shots[0].picture(t) for t in range(3)]
    following = predictor([shots[0]], track=True)
    first = by_person(following(pictures))
    following.detector.calls = 0
    assert by_person(following(pictures)) == first == [[2, 1]] * 3


def test_without_it_nobody_has_a_number(shots, clip):
    assert all(r.boxes.id is None for r in predictor(shots)(clip))


def test_smoothing_numbers_people_and_calms_joints(shots, clip):
    plain = predictor(shots, track=True)(clip)
    calm = predictor(shots, smooth=True)(clip)
    assert by_person(calm) == by_person(plain)
    smooth = OneEuro()
    for before, after in zip(plain, calm, strict=True):
        size = np.sqrt(before.boxes.xywh[:, 2:].prod(axis=1))
        expected = smooth.update(before.keypoints.xy, before.boxes.id, size, before.time)
        np.testing.assert_array_equal(after.keypoints.xy, expected.astype(np.float32))


def test_own_trackers_and_filters_are_used(shots, clip):
    made = []

    class Late(Tracker):
        def update(self, *rows):
            return super().update(*rows) + 100

    def track():
        made.append(Late((0.05, 0.05)))
        return made[-1]

    assert by_person(predictor(shots, track=track)(clip))[0] == [102, 101]
    assert len(made) == 1
    calm = predictor(shots, track=True, smooth=lambda: OneEuro(min_cutoff=1e-6, beta=0.0))(clip)
    xy = calm[0].keypoints.xy[::-1]
    for t, result in enumerate(calm[:FRAMES]):
        np.testing.assert_allclose(result.keypoints.xy[:: 1 if t % 2 else -1], xy, atol=0.01)


def test_the_rate_is_that_of_pictures_without_time(shots):
    pictures = [shots[0].picture(t) for t in range(6)]
    slow, fast = (
        np.stack([r.keypoints.xy[:: 1 if t % 2 else -1] for t, r in enumerate(found)])
        for found in (predictor(shots, smooth=True, rate=rate)(pictures) for rate in (1.0, 250.0))
    )
    raw = np.stack([r.keypoints.xy[:: 1 if t % 2 else -1] for t, r in enumerate(predictor(shots)(pictures))])
    # A second between frames leaves little to smooth.
    assert np.abs(slow - raw).mean() < 0.2 * np.abs(fast - raw).mean()
    with pytest.raises(ConfigError, match="rate"):
        predictor(shots, rate=0.0)


def test_errors_come_through(shots, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        predictor(shots, track=True)(tmp_path / "gone.png")
