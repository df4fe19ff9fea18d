"""Augmentation draws and does what the official training does."""

from dataclasses import replace

import numpy as np
import pytest

from fastpose.data.augment import Augmentation, augment_person, mirror_joints
from fastpose.errors import ConfigError
from fastpose.keypoints import COCO_17, MPII_16

OFF = Augmentation(scale_factor=0, rotation_factor=0, rotation_prob=0, flip=False, half_body_prob=0)
WIDTH = 640


class Script:
    """Stands in for the generator: hands out the given draws and refuses any other."""

    def __init__(self, uniform=(), normal=()):
        self.uniform, self.normal = list(uniform), list(normal)

    def random(self):
        return self.uniform.pop(0)

    def standard_normal(self):
        return self.normal.pop(0)

    def is_used_up(self):
        return not self.uniform and not self.normal


def make_person(visible=17, seed=0):
    rng = np.random.default_rng(seed)
    shown = np.zeros(17, np.float32)
    shown[rng.permutation(17)[:visible]] = 1
    return rng.uniform(0, 400, (17, 2)), shown, np.float32([200, 180]), np.float32([1.5, 2.0])


def augment(options, rng, person, keypoints=COCO_17):
    return augment_person(options, keypoints, *person, aspect_ratio=0.75, image_width=WIDTH, rng=rng)


def official(options, uniform, normal, joints, visible, center, scale):
    """The order of PARITY and the papers, one joint at a time."""
    uniform, normal = iter(uniform), iter(normal)
    joints, visible = [list(joint) for joint in joints], list(visible)
    center, scale = list(center), list(scale)
    if sum(visible) > options.half_body_joints and next(uniform) < options.half_body_prob:
        upper = [joints[k] for k in range(17) if visible[k] > 0 and k <= 10]
        lower = [joints[k] for k in range(17) if visible[k] > 0 and k > 10]
        if next(normal) < 0.5 and len(upper) > 2:
            chosen = upper
        else:
            chosen = lower if len(lower) > 2 else upper
        if len(chosen) >= 2:
            xs, ys = [j[0] for j in chosen], [j[1] for j in chosen]
            width, height = max(xs) - min(xs), max(ys) - min(ys)
            width, height = max(width, height * 0.75), max(height, width / 0.75)
            center = [sum(xs) / len(xs), sum(ys) / len(ys)]
            scale = [width / 200 * 1.5, height / 200 * 1.5]
    factor = min(
        max(next(normal) * options.scale_factor + 1, 1 - options.scale_factor), 1 + options.scale_factor
    )
    scale = [side * factor for side in scale]
    rotation = 0.0
    if next(uniform) <= options.rotation_prob:
        limit = 2 * options.rotation_factor
        rotation = min(max(next(normal) * options.rotation_factor, -limit), limit)
    if options.flip and next(uniform) <= 0.5:
        for k in range(17):
            joints[k][0] = WIDTH - joints[k][0] - 1
        for left, right in COCO_17.flip_pairs:
            joints[left], joints[right] = joints[right], joints[left]
            visible[left], visible[right] = visible[right], visible[left]
        joints = [[v * shown for v in joint] for joint, shown in zip(joints, visible, strict=True)]
        center[0] = WIDTH - center[0] - 1
    return joints, visible, center, scale, rotation


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_official_order_joint_by_joint(seed):
    rng = np.random.default_rng(seed)
    person = make_person(visible=int(rng.integers(0, 18)), seed=seed)
    uniform, normal = rng.random(4).tolist(), rng.standard_normal(4).tolist()
    if seed % 2:
        uniform[0] = 0.1
    options = Augmentation(rotation_factor=40)
    result = augment(options, Script(uniform, normal), person)
    expected = official(options, uniform, normal, *person)
    for got, wanted in zip(result, expected, strict=False):
        assert np.allclose(got, wanted, rtol=1e-6, atol=1e-4)


def test_off_changes_nothing():
    joints, visible, center, scale = person = make_person(12)
    result = augment(OFF, np.random.default_rng(0), person)
    assert np.array_equal(result.joints, joints)
    assert np.array_equal(result.visible, visible)
    assert np.array_equal(result.center, center)
    assert np.array_equal(result.scale, scale)
    assert (result.rotation, result.flipped) == (0.0, False)


def test_inputs_are_not_written_to():
    person = make_person()
    copies = [array.copy() for array in person]
    for seed in range(20):
        augment(Augmentation(half_body_prob=1), np.random.default_rng(seed), person)
    assert all(np.array_equal(array, copy) for array, copy in zip(person, copies, strict=True))


@pytest.mark.parametrize(("draw", "factor"), [(10, 1.35), (-10, 0.65), (0, 1.0)], ids=["high", "low", "mean"])
def test_scale_is_clipped(draw, factor):
    person = make_person()
    options = replace(OFF, scale_factor=0.35)
    result = augment(options, Script([0.9, 0.9], [draw]), person)
    assert np.allclose(result.scale, person[3] * factor)
    assert result.scale.dtype == np.float32


@pytest.mark.parametrize(("draw", "degrees"), [(1, 30), (5, 60), (-5, -60)])
def test_rotation_is_clipped_at_twice_the_factor(draw, degrees):
    options = replace(OFF, rotation_factor=30, rotation_prob=0.6)
    assert augment(options, Script([0.9, 0.6], [0, draw]), make_person()).rotation == degrees
    assert augment(options, Script([0.9, 0.61], [0]), make_person()).rotation == 0


def test_half_body_needs_more_than_eight_joints():
    options = replace(OFF, half_body_prob=1)
    eight, nine = make_person(8), make_person(9)
    assert np.array_equal(augment(options, Script([0.5], [0]), eight).center, eight[2])
    script = Script([0.0, 0.5], [0, 0])
    assert not np.array_equal(augment(options, script, nine).center, nine[2])
    assert script.is_used_up()


@pytest.mark.parametrize(
    ("draw", "rows"), [(0.49, slice(0, 11)), (0.5, slice(11, 17))], ids=["upper", "lower"]
)
def test_half_body_takes_the_upper_body_below_a_normal_draw_of_half(draw, rows):
    person = make_person(17)
    result = augment(replace(OFF, half_body_prob=1), Script([0.0, 0.5], [draw, 0]), person)
    chosen = person[0][rows]
    assert np.allclose(result.center, chosen.mean(0), atol=1e-4)
    assert (result.scale * 200 >= np.ptp(chosen, axis=0) * 1.5 - 1e-3).all()
    assert np.isclose(result.scale[0] / result.scale[1], 0.75, atol=1e-5)


def test_half_body_on_one_spot_keeps_the_crop():
    joints, visible, center, scale = make_person(17)
    person = (np.full_like(joints, 7.0), visible, center, scale)
    result = augment(replace(OFF, half_body_prob=1), Script([0.0, 0.5], [0, 0]), person)
    assert np.array_equal(result.center, center)
    assert np.array_equal(result.scale, scale)


@pytest.mark.parametrize("keypoints", [COCO_17, MPII_16], ids=lambda k: k.name)
def test_mirror_swaps_sides_and_zeroes_what_is_not_visible(keypoints):
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 300, (keypoints.num_joints, 2))
    visible = (rng.random(keypoints.num_joints) < 0.5).astype(np.float32)
    mirrored, shown = mirror_joints(joints, visible, keypoints, WIDTH)
    for k, other in enumerate(keypoints.flip_index):
        assert shown[k] == visible[other]
        expected = (WIDTH - 1 - joints[other, 0], joints[other, 1]) if visible[other] else (0, 0)
        assert np.allclose(mirrored[k], expected)
    back, shown = mirror_joints(mirrored, shown, keypoints, WIDTH)
    assert np.allclose(back[visible > 0], joints[visible > 0])


def test_frequencies_are_the_official_ones():
    rng = np.random.default_rng(0)
    person = make_person(17)
    results = [augment(Augmentation(), rng, person) for _ in range(4000)]
    assert abs(np.mean([r.flipped for r in results]) - 0.5) < 0.03
    assert abs(np.mean([r.rotation != 0 for r in results]) - 0.6) < 0.03
    assert abs(np.mean([abs(r.rotation) == 90 for r in results]) - 0.6 * 0.0455) < 0.01
    whole = [r.scale[0] / person[3][0] for r in results if r.center[1] == person[2][1]]
    assert abs(len(whole) / len(results) - 0.7) < 0.03
    on_edge = np.isclose(whole, 1.35) | np.isclose(whole, 0.65)
    assert abs(np.mean(on_edge) - 0.317) < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale_factor": 1.0},
        {"rotation_prob": -0.1},
        {"half_body_prob": float("nan")},
        {"rotation_factor": "x"},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)
