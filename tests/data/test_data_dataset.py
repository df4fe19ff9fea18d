"""Samples: the right pixels, joints and weights, reproducible by (seed, epoch, i)."""

import copy
import logging
from functools import partial

import cv2
import numpy as np
import pytest
from tiny_coco import write_coco

from fastpose.data import Augmentation, CropDataset, read_coco
from fastpose.data.affine import get_affine_transform, transform_points, warp_crop
from fastpose.data.cache import ImageCache
from fastpose.errors import ConfigError, ImageError

SIZE = (48, 64)


@pytest.fixture
def coco(tmp_path):
    return partial(write_coco, tmp_path)


@pytest.fixture
def table(coco):
    def hide(content):
        content["annotations"][1]["keypoints"][5] = 0

    return read_coco(*coco(hide), aspect_ratio=0.75)


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a)


def test_sample_is_the_official_crop(table):
    dataset = CropDataset(table, input_size=SIZE)
    for i in range(len(dataset)):
        sample = dataset[i]
        image = table.images.read(str(table.file_names[table.image_index[i]]))
        matrix = get_affine_transform(table.center[i], table.scale[i], 0, SIZE)
        assert np.array_equal(sample["crop"], warp_crop(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), matrix, SIZE))
        shown = table.visible[i] > 0
        assert np.allclose(
            sample["joints"][shown], transform_points(table.joints[i], matrix)[shown], atol=1e-4
        )
        assert np.array_equal(sample["joints"][~shown], table.joints[i][~shown].astype(np.float32))
        assert np.array_equal(sample["visible"], table.visible[i])


def test_forms_are_as_documented(table):
    sample = CropDataset(table, input_size=SIZE)[1]
    forms = {key: (value.shape, value.dtype.name) for key, value in sample.items()}
    assert forms == {
        "crop": ((64, 48, 3), "uint8"),
        "joints": ((17, 2), "float32"),
        "visible": ((17,), "float32"),
        "weight": ((17,), "float32"),
        "center": ((2,), "float32"),
        "scale": ((2,), "float32"),
        "index": ((), "int64"),
        "usable": ((), "bool"),
    }
    assert sample["index"] == 1
    assert sample["usable"]


def test_samples_do_not_share_memory_with_the_table(table):
    dataset = CropDataset(table, input_size=SIZE)
    for value in dataset[0].values():
        value[...] = 0
    assert same(dataset[0], CropDataset(table, input_size=SIZE)[0])
    assert dataset[0]["visible"].any()


def test_channel_order(table):
    rgb = CropDataset(table, input_size=SIZE)[0]["crop"]
    bgr = CropDataset(table, input_size=SIZE, channel_order="bgr")[0]["crop"]
    assert np.array_equal(rgb, bgr[..., ::-1])
    assert not np.array_equal(rgb, bgr)


def test_joint_weights(table):
    sample = CropDataset(table, input_size=SIZE, joint_weights=True)[0]
    assert np.array_equal(sample["weight"], sample["visible"] * np.float32(table.keypoints.joint_weights))
    assert np.array_equal(CropDataset(table, input_size=SIZE)[0]["weight"], sample["visible"])


def test_mirrored_sample_is_the_crop_of_the_mirrored_picture(table):
    flip_always = Augmentation(scale_factor=0, rotation_prob=0, rotation_factor=0, half_body_prob=0)
    dataset = CropDataset(table, input_size=SIZE, augmentation=flip_always)
    plain = CropDataset(table, input_size=SIZE)[0]
    mirrored = next(
        s for s in (dataset[epoch, 0] for epoch in range(50)) if s["center"][0] != table.center[0, 0]
    )
    image = cv2.flip(table.images.read("0.jpg"), 1)
    center = np.float32([image.shape[1] - 1 - table.center[0, 0], table.center[0, 1]])
    matrix = get_affine_transform(center, table.scale[0], 0, SIZE)
    expected = cv2.cvtColor(warp_crop(image, matrix, SIZE), cv2.COLOR_BGR2RGB)
    assert np.array_equal(mirrored["crop"], expected)
    flip = list(table.keypoints.flip_index)
    assert np.array_equal(mirrored["visible"], plain["visible"][flip])
    shown = mirrored["visible"] > 0
    pixel = SIZE[0] / (table.scale[0, 0] * 200)  # crops centre on W / 2, pictures mirror about (W - 1) / 2
    assert np.allclose(mirrored["joints"][shown, 0], SIZE[0] - plain["joints"][flip][shown, 0], atol=pixel)
    assert np.allclose(mirrored["joints"][shown, 1], plain["joints"][flip][shown, 1], atol=1e-3)
    assert not mirrored["joints"][~shown].any()


def test_randomness_depends_on_seed_epoch_and_index_only(table):
    make = partial(CropDataset, table, input_size=SIZE, augmentation=Augmentation())
    dataset, other = make(seed=7), make(seed=7)
    first = {key: dataset[key] for key in [(0, 0), (0, 1), (1, 0), (3, 2)]}
    for key in reversed(first):
        assert same(other[key], first[key])
        assert same(copy.deepcopy(dataset)[key], first[key])
    scales = {float(make(seed=seed)[epoch, 0]["scale"][0]) for seed in range(5) for epoch in range(5)}
    assert len(scales) >= 15
    assert same(dataset[0], dataset[0, 0])


def test_neighbouring_samples_do_not_share_draws(table):
    dataset = CropDataset(table, seed=3)
    draws = [dataset._generator(epoch, i).random(100) for epoch in range(20) for i in range(20)]
    assert len(np.unique(draws)) == 40_000


def test_unreadable_picture_is_skipped_and_logged_once(coco, caplog):
    paths = coco()
    (paths[1] / "0.jpg").write_bytes(b"\xff\xd8 broken")
    table = read_coco(*paths, aspect_ratio=0.75)
    dataset = CropDataset(table, input_size=SIZE)
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        samples = [dataset[i] for i in range(4)] + [dataset[0]]
    assert [bool(s["usable"]) for s in samples] == [False, False, True, True, False]
    assert not samples[0]["crop"].any()
    assert not samples[0]["weight"].any()
    assert samples[0]["crop"].shape == samples[2]["crop"].shape
    assert [r.getMessage().count("0.jpg") for r in caplog.records] == [1]
    with pytest.raises(ImageError, match=r"0\.jpg"):
        CropDataset(table, input_size=SIZE, on_bad="stop")[1]


def test_index_out_of_range(table):
    dataset = CropDataset(table)
    for index in (4, -1):
        with pytest.raises(IndexError):
            dataset[index]


@pytest.mark.parametrize(
    "wrong",
    [{"input_size": (0, 4)}, {"channel_order": "RGB"}, {"seed": -1}, {"on_bad": "x"}, {"cache_mb": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_arguments_are_named(table, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CropDataset(table, **wrong)


def test_cache_keeps_the_recent_pictures_within_its_bytes():
    loads = []

    def load(key):
        loads.append(key)
        return np.full(100, key, np.uint8)

    cache = ImageCache(250)
    for key in (1, 2, 1, 3, 1, 2):
        assert cache.get(key, partial(load, key))[0] == key
    assert loads == [1, 2, 3, 2]
    last_only = ImageCache(0)
    loads.clear()
    for key in (1, 1, 2, 2, 1):
        last_only.get(key, partial(load, key))
    assert loads == [1, 2, 1]


def test_cache_changes_no_sample(table):
    plain = CropDataset(table, input_size=SIZE, augmentation=Augmentation())
    cached = CropDataset(table, input_size=SIZE, augmentation=Augmentation(), cache_mb=1)
    for epoch in range(3):
        for i in range(len(table)):
            assert same(plain[epoch, i], cached[epoch, i])
