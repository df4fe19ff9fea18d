"""No crop that the augmentation can draw shows a pixel beyond the reach, and the reach is no larger."""

import numpy as np
import pytest

from fastpose.data import Augmentation
from fastpose.data.affine import get_affine_transform, transform_points
from fastpose.data.augment import augment_person
from fastpose.data.figures import read_figures
from fastpose.data.reach import clip_reach, reach
from fastpose.keypoints import MPII_16

SIZE = (96, 128)
CORNERS = np.array([[x, y] for x in (0, SIZE[0] - 1) for y in (0, SIZE[1] - 1)], np.float64)
COCO = Augmentation()
MPII = Augmentation(scale_factor=0.25, rotation_factor=30, half_body_prob=0)
TILT = Augmentation(
    scale_factor=0, rotation_factor=10, rotation_prob=1, half_body_prob=0.9, half_body_joints=3
)
SPIN = Augmentation(scale_factor=0.5, rotation_factor=180, rotation_prob=1, flip=False)
NONE = Augmentation(scale_factor=0, rotation_prob=0, half_body_prob=0)


@pytest.fixture(scope="module")
def table():
    return read_figures(12, seed=3, aspect_ratio=SIZE[0] / SIZE[1])


def shown(table, augmentation, i, rng):
    """First and last coordinates (x, y) that one drawn crop reads, in the picture as it is stored."""
    width = int(table.image_sizes[table.image_index[i]][0])
    person = augment_person(
        augmentation, table.keypoints, table.joints[i], table.visible[i], table.center[i], table.scale[i],
        aspect_ratio=SIZE[0] / SIZE[1], image_width=width, rng=rng,
    )  # fmt: skip
    inverse = get_affine_transform(person.center, person.scale, person.rotation, SIZE, inverse=True)
    points = transform_points(CORNERS, inverse)
    first, last = np.floor(points.min(0) - 1 / 32), np.floor(points.max(0) + 1 / 32) + 1
    if person.flipped:
        first[0], last[0] = width - 1 - last[0], width - 1 - first[0]
    return first, last


@pytest.mark.parametrize(
    "augmentation", [COCO, MPII, TILT, SPIN, NONE], ids=["coco", "mpii", "tilt", "spin", "none"]
)
def test_no_drawn_crop_leaves_the_reach(table, augmentation):
    box = reach(table, augmentation, SIZE[0] / SIZE[1])
    rng = np.random.default_rng(5)
    slack = np.full((len(table), 4), np.inf)
    for i in range(len(table)):
        for _ in range(300):
            first, last = shown(table, augmentation, i, rng)
            slack[i] = np.minimum(slack[i], np.concatenate([first - box[i, :2], box[i, 2:] - last]))
    assert slack.min() >= 0
    extent = (box[:, 2:] - box[:, :2]).max(1)
    assert (slack.min(1) < 4 + 0.1 * extent).all(), "a reach much larger than what is drawn wastes room"


def test_half_body_reaches_beyond_the_box():
    # An arm far out of the box: only the crop about the upper body shows it.
    table = read_figures(1, seed=3, aspect_ratio=0.75)
    table.visible[:] = 1
    table.joints[:, 9] = table.center + np.array([400, 0])
    with_half = reach(table, Augmentation(rotation_prob=0), 0.75)
    without = reach(table, Augmentation(rotation_prob=0, half_body_prob=0), 0.75)
    assert (with_half[:, 2] > without[:, 2] + 100).all()
    few = Augmentation(rotation_prob=0, half_body_joints=17)
    assert np.array_equal(reach(table, few, 0.75), without)


def test_plain_crops_reach_their_rectangle(table):
    box = reach(table, None, 0.75)
    half = np.stack([table.scale[:, 0] * 100, table.scale[:, 0] * 100 / 0.75], 1)
    assert np.allclose(box, np.concatenate([table.center - half, table.center + half], 1), atol=3)


def test_other_keypoints_have_halves_of_their_own():
    table = read_figures(4, seed=1, aspect_ratio=1.0, keypoint_set=MPII_16)
    assert (reach(table, COCO, 1.0)[:, :2] <= reach(table, None, 1.0)[:, :2]).all()


def test_clipped_to_whole_pixels_of_the_picture():
    size = np.array([[100, 80]] * 4)
    box = np.array([[-5.5, 3.2, 40.0, 50.5], [20, 20, 300, 300], [200, 200, 300, 300], [-9, -9, -3, -2]])
    assert clip_reach(box, size).tolist() == [
        [0, 3, 41, 52], [20, 20, 100, 80], [99, 79, 100, 80], [0, 0, 1, 1],
    ]  # fmt: skip
    assert clip_reach(box, size, 16).tolist() == [
        [0, 0, 48, 64], [16, 16, 100, 80], [96, 64, 100, 80], [0, 0, 16, 16],
    ]  # fmt: skip
