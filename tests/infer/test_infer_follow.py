"""Results with numbers and smooth joints: one tracker a video, cuts, and times that are wrong."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from video_truth import detect, identity, sequence

from fastpose.data.figures.sequence import compose_sequence
from fastpose.errors import ImageError
from fastpose.infer.cuts import CutDetector
from fastpose.infer.follow import RATE, follow
from fastpose.infer.result import Boxes, Keypoints, Result
from fastpose.infer.smooth import OneEuro
from fastpose.infer.track import Tracker
from fastpose.keypoints import COCO_17

SHAPE = (240, 320)


def result(found=None, **more):
    boxes = np.zeros((0, 4)) if found is None else found.boxes
    points = np.zeros((0, 17, 2)) if found is None else found.keypoints
    scores = np.zeros((0, 17)) if found is None else found.scores
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return Result(
        name="frame",
        orig_shape=SHAPE,
        boxes=Boxes(xywh, np.ones(len(boxes)), SHAPE),
        keypoints=Keypoints(points, scores, np.isfinite(points).all(axis=2), SHAPE),
        keypoint_set=COCO_17,
        **more,
    )


def film(seed=0, frames=12, path="a.mp4", people=3, **more):
    """Results as a video of that name would give them, and whose their rows are."""
    found = list(detect(sequence(seed, frames, people, 25.0, False), seed, missed=0.0))
    results = [result(f, path=Path(path), frame=t, time=t / 25, **more) for t, f in enumerate(found)]
    return results, [f.who.tolist() for f in found]


def numbers(results):
    return [result.boxes.id.tolist() for result in results]


def everyone(frames):
    return {number for frame in frames for number in frame}


def test_numbers_are_those_of_a_tracker():
    results, who = film()
    found = list(follow(results, Tracker))
    score = identity(who, numbers(found))
    assert score.switches == 0
    tracker = Tracker()
    expected = [tracker.update(r.boxes.xyxy, r.keypoints.xy, r.keypoints.conf).tolist() for r in results]
    assert numbers(found) == expected
    for before, after in zip(results, found, strict=True):
        assert before.boxes.id is None
        np.testing.assert_array_equal(after.boxes.xywh, before.boxes.xywh)
        np.testing.assert_array_equal(after.keypoints.xy, before.keypoints.xy)
        assert after.summary()[0]["id"] == after.boxes.id[0]


def test_joints_are_those_of_a_filter():
    results, _ = film()
    smooth = OneEuro(beta=2.0)
    for before, after in zip(results, follow(results, Tracker, partial(OneEuro, beta=2.0)), strict=True):
        size = np.sqrt(before.boxes.xywh[:, 2:].prod(axis=1))
        expected = smooth.update(before.keypoints.xy, after.boxes.id, size, before.time)
        np.testing.assert_array_equal(after.keypoints.xy, expected.astype(np.float32))
        np.testing.assert_array_equal(after.keypoints.valid, before.keypoints.valid)
        np.testing.assert_array_equal(after.keypoints.conf, before.keypoints.conf)
    assert np.nanmax(np.abs(after.keypoints.xy - before.keypoints.xy)) > 0.1


def test_results_come_one_by_one():
    asked = []

    def source():
        for r in film()[0]:
            asked.append(r.frame)
            yield r

    stream = follow(source(), Tracker)
    next(stream)
    next(stream)
    assert asked == [0, 1]


def test_every_video_begins_anew():
    first, second = ([film(seed, path="a.mp4")[0], film(seed, path="b.mp4")[0]] for seed in (0, 1))
    alone = [numbers(follow(films[0], Tracker)) for films in (first, second)]
    assert numbers(follow(first[0] + second[1], Tracker)) == alone[0] + alone[1]
    again = first[0] + second[0]  # another film of the same name, which starts again at frame 0
    assert numbers(follow(again, Tracker)) == alone[0] + alone[1]
    for result in second[1]:
        result.frame += 1
    assert numbers(follow(first[0] + second[1], Tracker)) == alone[0] + alone[1]


def test_pictures_of_a_folder_and_arrays_are_one_video_each():
    found = list(detect(sequence(0, 8, 3, 25.0, False), 0, missed=0.0))
    folder = [result(f, path=Path(f"folder/{t:03d}.png")) for t, f in enumerate(found)]
    other = [result(f, path=Path(f"other/{t:03d}.png")) for t, f in enumerate(found)]
    arrays = [result(f) for f in found]
    expected = numbers(follow(film(frames=8)[0], Tracker))
    assert numbers(follow(folder, Tracker)) == expected
    assert numbers(follow(arrays, Tracker)) == expected
    assert numbers(follow(folder + other, Tracker)) == 2 * expected


def test_without_times_frames_are_a_usual_distance_apart():
    found = list(detect(sequence(0, 8, 3, 25.0, False), 0, missed=0.0))
    timed = [result(f, time=t / RATE) for t, f in enumerate(found)]
    untimed = [result(f) for f in found]
    for a, b in zip(follow(timed, Tracker, OneEuro), follow(untimed, Tracker, OneEuro), strict=True):
        np.testing.assert_allclose(a.keypoints.xy, b.keypoints.xy, rtol=1e-5)


def test_times_that_stand_or_go_back_do_not_stop_the_film():
    results, _ = film()
    for r, time in zip(results, [0, 0, 0, 0.04, 0.02, 0.08, 0.12, 0.12, 0.16, 0.2, 0.24, 0.28], strict=True):
        r.time = time
    found = list(follow(results, Tracker, OneEuro))
    assert all(np.isfinite(r.keypoints.xy[r.keypoints.valid]).all() for r in found)


def test_a_frame_that_cannot_be_read_is_one_without_people():
    results, who = film()
    lost = result(path=Path("a.mp4"), frame=5, time=0.2, error=ImageError("damaged"))
    found = list(follow([*results[:5], lost, *results[6:]], Tracker))
    assert found[5].error is not None
    assert found[5].boxes.id.shape == (0,)
    del who[5]
    ids = numbers(found)
    del ids[5]
    assert identity(who, ids).switches == 0


def test_nobody_inherits_a_number_over_a_cut():
    films = [compose_sequence(seed, 5, 3) for seed in (0, 1)]
    results = []
    for shot, truth in enumerate(films):
        found = detect(truth, 0, missed=0.0)
        for t, (f, picture) in enumerate(zip(found, truth.pictures(), strict=True)):
            number = 5 * shot + t
            results.append(result(f, path=Path("a.mp4"), frame=number, time=number / 25, pixels=picture))
    ids = numbers(follow(results, Tracker))
    assert everyone(ids[:5]).isdisjoint(everyone(ids[5:]))
    # What it is for: without the pictures somebody stands where another stood.
    for r in results:
        r.pixels = None
    blind = numbers(follow(results, Tracker))
    assert not everyone(blind[:5]).isdisjoint(everyone(blind[5:]))


@pytest.mark.parametrize("seeds", [(0, 1), (2, 3), (4, 5), (6, 7)], ids=str)
def test_cuts_are_found_where_they_are(seeds):
    pictures = [p for seed in seeds for p in compose_sequence(seed, 6, 4, rate=6.0).pictures()]
    cuts = CutDetector()
    assert [t for t, picture in enumerate(pictures) if cuts.update(picture)] == [6]


def test_pans_and_steps_of_the_exposure_are_no_cuts():
    wide = compose_sequence(0, 1, 4, image_size=(640, 240)).picture(0)
    stripes = np.zeros((240, 640, 3), np.uint8)
    stripes[:, (np.arange(640) // 40) % 2 == 0] = 255  # a pan by a stripe turns every pixel, but no colour
    grey = np.full((240, 320, 3), 130, np.uint8)  # a tenth less falls into another bin of the colours
    for pictures in (
        [wide[:, x : x + 320] for x in range(0, 320, 32)],
        [stripes[:, x : x + 320] for x in (0, 40, 80)],
        [(wide[:, :320] * gain).astype(np.uint8) for gain in (1.0, 0.9, 1.0, 0.9)],
        [(grey * gain).astype(np.uint8) for gain in (1.0, 0.9, 1.0)],
    ):
        cuts = CutDetector()
        assert not any(cuts.update(picture) for picture in pictures)
