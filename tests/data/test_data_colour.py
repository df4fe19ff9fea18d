"""Colours: the numbers drawn, the grey levels they give, the same bytes from the loader and the device."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny_coco import write_coco

from fastpose.data import Augmentation, CropDataset, EpochSampler, make_loader, read_coco
from fastpose.data.colour import PLAIN, Colour, apply_colour, draw_colour
from fastpose.data.warp_batch import WarpFeed
from fastpose.errors import ConfigError
from fastpose.ops import warp_crops

SIZE = (48, 64)
COLOURS = {"brightness": 0.2, "contrast": 0.3, "tint": 0.1}


@pytest.fixture
def table(tmp_path):
    return read_coco(*write_coco(tmp_path), aspect_ratio=0.75)


def draws(options, count=4000):
    rng = np.random.default_rng(0)
    return [draw_colour(options, rng) for _ in range(count)]


def levels(colour, grey):
    """By float64 and one channel at a time."""
    return [float(g) * grey + float(s) for g, s in zip(*colour, strict=True)]


def test_official_recipes_have_none():
    assert not Augmentation().recolours
    for name, value in COLOURS.items():
        assert Augmentation(**{name: value}).recolours


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "a"])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"augmentation: {name} must be a number from 0 to 1"):
        Augmentation(**{name: value})


def test_brightness_adds_the_same_everywhere():
    found = draws(Augmentation(brightness=0.2))
    added = np.array([levels(colour, 100.0) for colour in found]) - 100
    assert (added.min(1) == added.max(1)).all()
    assert -51 <= added.min() < -50
    assert 50 < added.max() <= 51
    assert abs(added.mean()) < 1.5
    np.testing.assert_allclose([levels(c, 10.0)[0] - 10 for c in found], added[:, 0], atol=1e-5)


def test_contrast_turns_about_the_middle():
    found = draws(Augmentation(contrast=0.3))
    np.testing.assert_allclose([levels(colour, 127.5) for colour in found], 127.5, atol=1e-4)
    gains = np.array([colour.gain for colour in found])
    assert (gains.min(1) == gains.max(1)).all()
    assert 0.7 <= gains.min() < 0.71
    assert 1.29 < gains.max() <= 1.301


def test_tint_multiplies_each_channel_on_its_own():
    found = draws(Augmentation(tint=0.1))
    gains = np.array([colour.gain for colour in found])
    assert not np.array([colour.shift for colour in found]).any()
    assert 0.9 <= gains.min() < 0.901
    assert 1.099 < gains.max() <= 1.1001
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.06


def test_all_three_are_the_formula():
    """tint_c * (contrast * (grey - middle) + middle + 255 brightness), with the draws taken apart."""
    options = Augmentation(**COLOURS)
    u = np.random.default_rng(5).uniform(-1, 1, 5)
    colour = draw_colour(options, np.random.default_rng(5))
    for grey in (0.0, 30.0, 255.0):
        wanted = (1 + 0.3 * u[0]) * (grey - 127.5) + 127.5 + 255 * 0.2 * u[1]
        np.testing.assert_allclose(levels(colour, grey), (1 + 0.1 * u[2:]) * wanted, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_crops_are_those_of_the_device(seed):
    """The warp operation colours its crop with the same numbers: equal bytes, ties included."""
    rng = np.random.default_rng(seed)
    crops = rng.integers(0, 256, (8, 64, 48, 3), np.uint8)
    colours = [draw_colour(Augmentation(brightness=1, contrast=1, tint=1), rng) for _ in range(6)]
    half = Colour(np.full(3, 0.5, np.float32), np.full(3, 1.0, np.float32))
    colours += [half, PLAIN]
    got = warp_crops(
        torch.from_numpy(crops),
        torch.eye(2, 3).expand(8, 2, 3),
        output_size=SIZE,
        gain=torch.from_numpy(np.stack([colour.gain for colour in colours])),
        shift=torch.from_numpy(np.stack([colour.shift for colour in colours])),
        dtype=torch.uint8,
    )
    found = np.stack([apply_colour(crop.copy(), c) for crop, c in zip(crops, colours, strict=True)])
    np.testing.assert_array_equal(got, found)
    np.testing.assert_array_equal(found[7], crops[7])
    assert (found[:6] != crops[:6]).any((1, 2, 3)).all()
    assert set(found[6].ravel().tolist()) <= {*range(1, 129)}


def test_grey_levels_are_rounded_and_cut():
    crop = np.array([[[0, 1, 2], [3, 254, 255]]], np.uint8)
    colour = Colour(np.float32([0.5, 2, 1]), np.float32([0, -300, 10]))
    assert apply_colour(crop, colour).tolist() == [[[0, 0, 12], [2, 208, 255]]]  # 1.5 becomes 2


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_parts_warped_on_the_device_give_the_loader_s_crops(table, channel_order):
    make = partial(
        CropDataset, table, input_size=SIZE, augmentation=Augmentation(**COLOURS), channel_order=channel_order
    )
    feed = WarpFeed(SIZE, device=torch.device("cpu"), channel_order=channel_order)
    crops, parts = (
        list(make_loader(make(parts=parts), EpochSampler(4, 2, shuffle=True, seed=1)))
        for parts in (False, True)
    )
    for a, b in zip(crops, map(feed, parts), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_other_draws_are_those_without_colours(table):
    plain = CropDataset(table, input_size=SIZE, augmentation=Augmentation(), seed=2)
    options = Augmentation(**COLOURS)
    coloured = CropDataset(table, input_size=SIZE, augmentation=options, seed=2)
    for key in [(epoch, i) for epoch in range(3) for i in range(4)]:
        a, b = plain[key], coloured[key]
        changed = {name for name in a if not np.array_equal(a[name], b[name])}
        assert changed == {"crop"}
        assert np.array_equal(b["crop"], apply_colour(a["crop"].copy(), coloured._colour(*key)))


def test_colours_depend_on_seed_epoch_and_index_only(table):
    make = partial(CropDataset, table, input_size=SIZE, augmentation=Augmentation(**COLOURS))
    keys = [(epoch, i) for epoch in range(4) for i in range(4)]
    first, second = make(seed=1), make(seed=1)
    gains = {key: tuple(first._colour(*key).gain.tolist()) for key in keys}
    assert len(set(gains.values())) == len(keys)
    for key in reversed(keys):
        assert np.array_equal(second[key]["crop"], first[key]["crop"])
        assert tuple(second._colour(*key).gain.tolist()) == gains[key]
    assert tuple(make(seed=2)._colour(0, 0).gain.tolist()) != gains[0, 0]
    with_others = draw_colour(first.augmentation, first._generator(0, 0))
    assert tuple(with_others.gain.tolist()) != gains[0, 0], "a stream of their own"


def test_colour_draws_are_no_other_draws(table):
    dataset = CropDataset(table, augmentation=Augmentation(**COLOURS), seed=3)
    streams = [dataset._generator(e, i, s).random(50) for e in range(8) for i in range(8) for s in (0, 1)]
    assert len(np.unique(streams)) == 128 * 50


@pytest.mark.parametrize("seed", range(4))
def test_unreadable_samples_join_the_batch_in_any_order(tmp_path, seed):
    paths = write_coco(tmp_path)
    (paths[1] / "0.jpg").write_bytes(b"\xff\xd8 broken")
    table = read_coco(*paths, aspect_ratio=0.75)
    options = {"input_size": SIZE, "augmentation": Augmentation(**COLOURS)}
    order = EpochSampler(4, 4, shuffle=True, seed=seed)
    crops, parts = (
        next(iter(make_loader(CropDataset(table, parts=parts, **options), order))) for parts in (False, True)
    )
    assert crops["usable"].tolist().count(False) == 2
    assert not crops["crop"][~crops["usable"]].any()
    warped = WarpFeed(SIZE, device=torch.device("cpu"))(parts)
    assert torch.equal(warped["crop"], crops["crop"])


def test_evaluation_has_none(table):
    assert CropDataset(table, input_size=SIZE)._colour(0, 0) is None
    assert replace(Augmentation(), tint=0.1).recolours
