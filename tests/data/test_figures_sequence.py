"""Rendered sequences: identity, boxes and joints that are true to the pictures, and motion like people's."""

import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from fastpose.data.figures import PARTS, FigureStyle
from fastpose.data.figures.motion import ease, move_people
from fastpose.data.figures.poses import JOINT_LIMITS, JOINTS
from fastpose.data.figures.sequence import compose_sequence, render_sequence
from fastpose.errors import DataError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet

PLAIN = FigureStyle(occluders=False, noise=0.0)


@pytest.fixture(scope="module")
def film():
    return compose_sequence(3, 80, 3)


def test_shapes_and_identity(film):
    assert len(film) == 80
    assert film.boxes.shape == (80, 3, 4)
    assert film.joints.shape == (80, 3, 17, 2)
    assert film.visible.shape == (80, 3, 17)
    np.testing.assert_allclose(film.times[:3], [0, 0.04, 0.08])
    drawn = render_sequence(3, 2, 3)
    assert drawn.frames.shape == (2, 240, 320, 3)
    assert drawn.frames.dtype == np.uint8
    assert drawn.ids.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(drawn.boxes, film.boxes[:2])
    np.testing.assert_array_equal(drawn.joints, film.joints[:2])
    np.testing.assert_array_equal(drawn.frames[1], film.picture(1))


def test_boxes_bound_the_pixels_of_their_person(film):
    """The mask numbers people from far to near; whose number it is follows from the joints in sight."""
    for frame in range(0, 80, 7):
        mask = film.scenes[frame].instance_mask()
        for person in film.present(frame):
            seen = film.visible[frame, person] == 2
            if not seen.any():
                continue
            x, y = np.rint(film.joints[frame, person, seen]).astype(int).T
            owners, counts = np.unique(mask[y, x], return_counts=True)
            rows, columns = np.nonzero(mask == owners[counts.argmax()])
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert film.boxes[frame, person].tolist() == corners


def test_a_person_keeps_their_clothes():
    """The colour of a shirt is that of its person in every frame, whoever stands in front."""
    film = compose_sequence(0, 60, 3, style=PLAIN, leave=False)
    shirts = np.full((60, 3, 3), np.nan)
    for frame in range(0, 60, 4):
        picture, scene = film.picture(frame), film.scenes[frame]
        torso, owner = scene.part_mask() == PARTS.index("torso"), scene.instance_mask()
        for person in range(3):
            box = film.boxes[frame, person]
            (rank,) = [k for k, figure in enumerate(scene.figures) if _corners(figure) == box.tolist()]
            seen = torso & (owner == rank + 1)
            if seen.sum() > 100:
                shirts[frame, person] = np.median(picture[seen], axis=0)
    usual = np.nanmedian(shirts, axis=0)
    apart = np.linalg.norm(shirts[:, :, None] - usual, axis=3)  # (F, person, whose shirt)
    seen = np.isfinite(apart[..., 0])
    assert seen.sum() > 30
    nearest = np.where(seen, np.nanargmin(np.where(np.isnan(apart), np.inf, apart), axis=2), -1)
    right = nearest == np.arange(3)
    assert right[seen].mean() > 0.9


def _corners(figure):
    x, y, width, height = figure.box
    return [x, y, x + width, y + height]


def test_nothing_moves_but_people():
    film = compose_sequence(1, 30, 2, style=FigureStyle(noise=0.0))
    frames = (0, 10, 29)
    pictures = np.stack([film.picture(t) for t in frames]).astype(int)
    empty = np.logical_and.reduce([film.scenes[t].mask == 0 for t in frames])
    empty[140:] = False  # shadows lie on the floor
    still = cv2.erode(empty.astype(np.uint8), np.ones((21, 21), np.uint8), borderValue=0) > 0
    assert still.sum() > 2000
    assert np.abs(pictures - pictures[0])[:, still].max() <= 1


def test_another_process_draws_the_same_frames(film):
    code = (
        "import zlib; from fastpose.data.figures.sequence import compose_sequence\n"
        "film = compose_sequence(3, 6, 3); print(zlib.crc32(film.picture(5).tobytes()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == zlib.crc32(film.picture(5).tobytes())


def test_a_longer_sequence_begins_with_the_shorter_one(film):
    long = compose_sequence(3, 300, 3)
    np.testing.assert_array_equal(long.joints[:80], film.joints)
    np.testing.assert_array_equal(long.boxes[:80], film.boxes)
    np.testing.assert_array_equal(long.picture(7), film.picture(7))


def test_another_rate_shows_the_same_motion(film):
    fast = compose_sequence(3, 159, 3, rate=50.0)
    np.testing.assert_array_equal(fast.joints[::2], film.joints)


@pytest.mark.parametrize("other", [{"seed": 4}, {"people": 2}], ids=str)
def test_seed_and_people_make_another_sequence(film, other):
    made = compose_sequence(**{"seed": 3, "frames": 2, "people": 3} | other)
    assert not np.array_equal(made.joints[0, 0], film.joints[0, 0])
    assert not np.array_equal(made.picture(0), film.picture(0))


@pytest.mark.parametrize("people", [1, 2, 5])
def test_people_change_places_leave_and_come_back(people):
    film = compose_sequence(2, 125, people)
    middle = film.joints.mean(axis=2)[..., 0]  # (F, P)
    away = np.isnan(film.boxes[..., 0])
    (one,) = np.flatnonzero(away.sum(axis=0) > 20)
    gone = np.flatnonzero(away[:, one])
    assert gone[0] > 15
    assert gone[-1] < 100
    assert (np.diff(gone) == 1).all()
    assert middle[50, one] < 0 or middle[50, one] > 320
    if people > 1:
        order = np.argsort(middle, axis=1)
        assert len({tuple(row) for row in order.tolist()}) > 1
    stays = compose_sequence(2, 100, people, leave=False).joints[:, :, 11:13].mean(axis=2)[..., 0]
    assert (stays > 0).all()
    assert (stays < 320).all()


def test_people_hide_one_another():
    film = compose_sequence(2, 120, 4, leave=False, style=PLAIN)
    hidden = (film.visible < 2).mean(axis=2)  # (F, P)
    assert (hidden.max(axis=0) - hidden.min(axis=0) > 0.4).any()
    prop = compose_sequence(2, 120, 4, leave=False, style=FigureStyle(noise=0.0))
    assert (prop.visible == 2).sum() < (film.visible == 2).sum()
    np.testing.assert_array_equal(prop.joints, film.joints)


def test_nearer_people_are_larger_and_in_front(film):
    for scene in film.scenes[::20]:
        assert (np.diff(scene.view.scale) > 0).all()  # figures are painted far to near


def test_motion_is_smooth_and_no_faster_than_people():
    rate = 200.0
    film = compose_sequence(5, 1000, 3, rate=rate, leave=False)
    size = film.joints.max(axis=(0, 2))[..., 1] - film.joints.min(axis=(0, 2))[..., 1]
    speed = np.linalg.norm(np.diff(film.joints, axis=0), axis=3) * rate / size[None, :, None]
    # A hand is swung at up to some 4 m/s on a body that runs; a body is 1.75 m.
    assert 1.0 < speed.max() < 5.0
    # No jump: twice the frames, half the step (joints lie on sixteenths of a pixel).
    assert np.abs(np.diff(film.joints, axis=0)).max() < 8


def test_angles_stay_within_joint_limits():
    angles = move_people(0, 4, np.linspace(0, 30, 400), leave=True).angles
    for k, name in enumerate(JOINTS[1:], start=1):
        limits = JOINT_LIMITS[name.removeprefix("left_").removeprefix("right_")]
        low, high = np.array(limits).T
        assert (angles[:, :, k] >= low - 1e-9).all(), name
        assert (angles[:, :, k] <= high + 1e-9).all(), name


def test_ease_starts_and_ends_without_a_jerk():
    s = np.linspace(-0.5, 1.5, 4001)
    y = ease(s)
    assert y[0] == 0
    assert y[-1] == 1
    assert ease(np.array([0.5])) == 0.5
    assert np.abs(np.diff(y, 2)).max() / (s[1] - s[0]) ** 2 < 6
    assert np.abs(np.diff(y, 3)).max() < 1e-6


def test_other_keypoint_sets_name_the_same_places(film):
    mpii = compose_sequence(3, 2, 3, keypoint_set=MPII_16)
    np.testing.assert_array_equal(
        mpii.joints[:, :, MPII_16.names.index("left_wrist")],
        film.joints[:2, :, COCO_17.names.index("left_wrist")],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "frames"),
        ({"people": 0}, "people"),
        ({"people": 9}, "people"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"seed": -1}, "seed"),
        ({"image_size": (16, 240)}, "image_size"),
        ({"keypoint_set": KeypointSet("x", ("tail",), (), (), (0.1,), (), (1.0,))}, "tail"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else next(iter(value)),
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(DataError, match=message):
        compose_sequence(**{"seed": 0, "frames": 2, "people": 2} | arguments)
