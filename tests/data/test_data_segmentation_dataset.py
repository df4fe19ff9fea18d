"""Samples for segmentation: the official changes, and the same numbers for every worker."""

import logging
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from coordinate_pictures import Checks, table_of

from fastpose.classes import IGNORE
from fastpose.data import EpochSampler, make_loader
from fastpose.data.segmentation_augment import MEAN_RGB, SegmentationAugmentation
from fastpose.data.segmentation_dataset import SegmentationDataset
from fastpose.errors import ConfigError, ImageError
from fastpose.nn.normalize import MEAN, STD

PLAIN = SegmentationAugmentation(multi_scale=False, flip=False)


def test_evaluation_gives_whole_pictures_in_the_wanted_order():
    table = table_of()
    for order in ("rgb", "bgr"):
        dataset = SegmentationDataset(table, channel_order=order)
        for place, (width, height) in enumerate(table.images.sizes):
            sample = dataset[place]
            assert sample["crop"].shape == (height, width, 3)
            assert sample["crop"][3, 5].tolist() == ([200, 3, 5] if order == "rgb" else [5, 3, 200])
            np.testing.assert_array_equal(sample["label"], table.labels.read(str(place)))
            assert sample["usable"]
            assert sample["index"] == place


def test_crops_are_cut_all_over_the_picture_and_labels_with_them():
    dataset = SegmentationDataset(table_of(), crop_size=(20, 16), augmentation=PLAIN, channel_order="bgr")
    corners = set()
    for epoch in range(400):
        sample = dataset[epoch, 0]
        crop = sample["crop"].astype(int)
        x, y = crop[0, 0, :2].tolist()
        np.testing.assert_array_equal(crop[..., 0], x + np.arange(20)[None] + np.zeros((16, 1)))
        np.testing.assert_array_equal(crop[..., 1], y + np.arange(16)[:, None] + np.zeros((1, 20)))
        np.testing.assert_array_equal(sample["label"], crop[..., 0] // 8 + crop[..., 1] // 8)
        corners.add((x, y))
    assert {x for x, _ in corners} == set(range(48 - 20 + 1))
    assert {y for _, y in corners} == set(range(40 - 16 + 1))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_padding_is_the_mean_and_counts_for_nothing(order):
    dataset = SegmentationDataset(table_of(), crop_size=(40, 72), augmentation=PLAIN, channel_order=order)
    sample = dataset[1]  # 30 x 60
    np.testing.assert_array_equal(sample["label"][:60, :30], dataset.table.labels.read("1"))
    outside = np.ones((72, 40), bool)
    outside[:60, :30] = False
    assert (sample["label"][outside] == IGNORE).all()
    fill = MEAN_RGB if order == "rgb" else MEAN_RGB[::-1]
    assert (sample["crop"][outside] == fill).all()
    normalised = (np.array(MEAN_RGB) / 255 - MEAN) / STD
    assert np.abs(normalised).max() < 0.5 / 255 / min(STD) + 1e-9


def test_only_the_side_that_is_short_is_padded():
    dataset = SegmentationDataset(table_of(), crop_size=(48, 20), augmentation=PLAIN, channel_order="bgr")
    seen = {int(dataset[epoch, 1]["crop"][0, 0, 1]) for epoch in range(200)}
    assert seen == set(range(60 - 20 + 1))
    sample = dataset[0, 1]
    assert (sample["label"][:, 30:] == IGNORE).all()
    assert (sample["label"][:, :30] != IGNORE).all()


def test_scales_are_the_official_seventeen_and_equally_likely():
    sizes = ((1000, 40),)
    dataset = SegmentationDataset(
        table_of(sizes), crop_size=(2200, 20), augmentation=SegmentationAugmentation(flip=False)
    )
    widths = Counter(int((dataset[epoch, 0]["label"][0] != IGNORE).sum()) for epoch in range(340))
    assert sorted(widths) == [500 + 100 * k for k in range(17)]
    assert min(widths.values()) >= 5  # 20 each is expected


@pytest.mark.parametrize(
    ("size", "base_size", "expected"),
    [((48, 40), 0, (48, 40)), ((48, 40), 96, (96, 80)), ((30, 61), 31, (15, 31)), ((1, 90), 30, (1, 30))],
    ids=["own", "twice", "rounded", "thin"],
)
def test_base_size_is_that_of_the_longer_side(size, base_size, expected):
    options = SegmentationAugmentation(multi_scale=False, flip=False, base_size=base_size)
    sample = SegmentationDataset(table_of((size,)), crop_size=(128, 128), augmentation=options)[0]
    inside = sample["label"] != IGNORE
    assert (int(inside[0].sum()), int(inside[:, 0].sum())) == expected


def test_labels_are_never_mixed():
    table = table_of()
    table.labels = Checks()
    dataset = SegmentationDataset(table, crop_size=(140, 140), augmentation=SegmentationAugmentation())
    for epoch in range(20):
        assert set(np.unique(dataset[epoch, 2]["label"]).tolist()) == {0, 20, IGNORE}


def test_labels_follow_their_pixels():
    options = SegmentationAugmentation(flip=False)
    dataset = SegmentationDataset(table_of(), crop_size=(128, 128), augmentation=options, channel_order="bgr")
    for epoch in range(20):
        sample = dataset[epoch, 2]
        known = sample["label"] != IGNORE
        x, y = sample["crop"][..., :2].astype(int).transpose(2, 0, 1)
        label = sample["label"]
        # The nearest pixel of cv2 lies up to half a pixel beside the bilinear place.
        assert (label >= np.maximum(x - 1, 0) // 8 + np.maximum(y - 1, 0) // 8)[known].all()
        assert (label <= (x + 1) // 8 + (y + 1) // 8)[known].all()


def test_half_of_the_samples_are_mirrored_with_their_labels():
    options = SegmentationAugmentation(multi_scale=False)
    dataset = SegmentationDataset(table_of(), crop_size=(64, 64), augmentation=options, channel_order="bgr")
    straight = dataset.table.labels.read("2")
    mirrored = 0
    for epoch in range(300):
        sample = dataset[epoch, 2]
        turned = sample["crop"][0, 0, 0] > sample["crop"][0, 1, 0]
        mirrored += turned
        np.testing.assert_array_equal(sample["label"], cv2.flip(straight, 1) if turned else straight)
    assert 110 < mirrored < 190


def test_samples_depend_on_seed_epoch_and_index_alone():
    sizes = ((96, 80), (90, 120), (128, 128))

    def dataset(seed=3):
        return SegmentationDataset(
            table_of(sizes),
            crop_size=(32, 32),
            augmentation=SegmentationAugmentation(),
            seed=seed,
            cache_mb=1,
        )

    a, b = dataset(), dataset()
    keys = [(epoch, place) for epoch in range(4) for place in range(3)]
    first = {key: a[key] for key in keys}
    for key in reversed(keys):
        assert all(np.array_equal(first[key][name], value) for name, value in b[key].items())
    crops = [first[key]["crop"].tobytes() for key in keys]
    assert len(set(crops)) == len(keys)
    other = dataset(seed=4)
    assert sum(other[key]["crop"].tobytes() in crops for key in keys) == 0
    assert a.decodes == 3


def test_a_sample_that_is_written_to_leaves_the_cache_alone():
    for augmentation in (None, PLAIN):
        dataset = SegmentationDataset(
            table_of(), crop_size=(64, 64), augmentation=augmentation, cache_mb=1, channel_order="bgr"
        )
        sample = dataset[2]
        kept = {name: value.copy() for name, value in sample.items()}
        sample["crop"][:], sample["label"][:] = 0, 0
        assert all(np.array_equal(dataset[2][name], value) for name, value in kept.items())


def test_an_unreadable_picture_is_a_blank_sample_or_stops(caplog):
    table = table_of(broken=1)
    dataset = SegmentationDataset(table, crop_size=(32, 16))
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        sample = [dataset[1], dataset[1]][1]
    assert not sample["usable"]
    assert sample["crop"].shape == (16, 32, 3)
    assert (sample["label"] == IGNORE).all()
    assert [record.getMessage() for record in caplog.records] == [
        "a picture that cannot be read is skipped: 1: broken on purpose"
    ]
    with pytest.raises(ImageError, match="broken on purpose"):
        SegmentationDataset(table, on_bad="stop")[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_takes_them(workers):
    dataset = SegmentationDataset(
        table_of(), crop_size=(32, 24), augmentation=SegmentationAugmentation(), seed=1
    )
    sampler = EpochSampler(3, 3, shuffle=True, seed=2)
    (batch,) = list(make_loader(dataset, sampler, workers=workers))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "crop": ((3, 24, 32, 3), torch.uint8),
        "label": ((3, 24, 32), torch.uint8),
        "index": ((3,), torch.int64),
        "usable": ((3,), torch.bool),
    }
    for row, place in enumerate(batch["index"].tolist()):
        np.testing.assert_array_equal(batch["crop"][row].numpy(), dataset[0, place]["crop"])


@pytest.mark.parametrize(
    "options",
    [
        {"crop_size": (0, 5)},
        {"crop_size": (5,)},
        {"channel_order": "gbr"},
        {"seed": -1},
        {"on_bad": "ignore"},
        {"cache_mb": float("nan")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_arguments_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SegmentationDataset(table_of(), **options)


@pytest.mark.parametrize("options", [{"scale_steps": -1}, {"scale_steps": 1.5}, {"base_size": True}], ids=str)
def test_augmentations_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SegmentationAugmentation(**options)


def test_an_index_beyond_the_table_is_an_index_error():
    with pytest.raises(IndexError, match="picture 3 of 3"):
        SegmentationDataset(table_of())[3]
