"""Evaluation over a table: the same counts however the pictures travel."""

import logging

import numpy as np
import pytest
import torch

from fastpose.classes import BODY_PARTS, IGNORE, ClassSet
from fastpose.data.segmentation import SegmentationTable
from fastpose.data.sharding import share_of
from fastpose.errors import ConfigError, ImageError
from fastpose.infer.segmentation_evaluation import SegmentationOptions, evaluate_segmentation, predict_labels
from fastpose.metrics.segmentation import confusion_matrix, segmentation_scores
from fastpose.models import SegmentationModel
from fastpose.models.meta import SegmentationMeta

CPU = torch.device("cpu")
SIZES = ((48, 40), (48, 40), (48, 40), (64, 32), (48, 40), (30, 50))


class ByRed(SegmentationModel):
    """A network whose class is the place of the pixel's red among levels 40 apart; no memory of others."""

    def __init__(self, **options):
        super().__init__(SegmentationMeta("by_red", 7, mean=(0, 0, 0), std=(1, 1, 1), **options))
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        red = x[:, 0 if self.meta.channel_order == "rgb" else 2] * 255
        levels = torch.arange(7, device=x.device) * 40.0
        return -((red[:, None] - levels.view(1, -1, 1, 1)) ** 2)


class Pictures:
    """Pictures of a red that says the class, and labels that agree in most places."""

    def __init__(self, labels=False, broken=()):
        self.labels, self.broken = labels, broken

    def read(self, name):
        place = int(name)
        if place in self.broken:
            raise ImageError(f"{name}: broken on purpose")
        width, height = SIZES[place]
        rng = np.random.default_rng(place)
        labels = rng.integers(0, 7, (height, width)).astype(np.uint8)
        if not self.labels:
            red = 40 * labels
            return np.stack([np.full_like(red, 90), np.full_like(red, 33), red], 2)
        wrong = rng.random(labels.shape)
        labels[wrong < 0.2] = (labels[wrong < 0.2] + 1) % 7
        labels[wrong > 0.9] = IGNORE
        return labels

    def problem(self, name):
        return None


def table_of(classes=BODY_PARTS, broken=()):
    names = np.array([str(place) for place in range(len(SIZES))])
    return SegmentationTable(classes, Pictures(broken=broken), Pictures(labels=True), names, names)


def truth(places=(0, 1, 2, 3, 4, 5)):
    total = np.zeros((7, 7), np.int64)
    for place in places:
        found = Pictures().read(str(place))[..., 2] // 40
        total += confusion_matrix(found, Pictures(labels=True).read(str(place)), 7)
    return total


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 4}, {"workers": 2}, {"flip": True}, {"window": (16, 24)}],
    ids=["one", "batched", "workers", "flip", "windows"],
)
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_counts_are_those_of_the_pictures(options, order):
    seen = []
    model = ByRed(channel_order=order).train()
    got = evaluate_segmentation(model, table_of(), SegmentationOptions(CPU, **options), on_batch=seen.append)
    np.testing.assert_array_equal(got, truth())
    assert sum(seen) == len(SIZES)
    assert not model.training
    assert 0.7 < segmentation_scores(got, BODY_PARTS)["pixel accuracy"] < 0.85


def test_pictures_of_one_size_go_together():
    model = ByRed()
    evaluate_segmentation(model, table_of(), SegmentationOptions(CPU, batch_size=2))
    assert [shape[0] for shape in model.shapes] == [2, 1, 1, 1, 1]
    assert model.shapes[2][2:] == (32, 64)


@pytest.mark.parametrize("world", [1, 2, 4, 9])
def test_shares_of_several_processes_add_up(world):
    shares = [share_of(len(SIZES), rank, world) for rank in range(world)]
    model, options = ByRed(), SegmentationOptions(CPU, batch_size=2)
    parts = [evaluate_segmentation(model, table_of(), options, rows) for rows in shares]
    np.testing.assert_array_equal(sum(parts), truth())


def test_unreadable_pictures_do_not_count(caplog):
    options = SegmentationOptions(CPU, batch_size=3)
    with caplog.at_level(logging.WARNING, "fastpose"):
        got = evaluate_segmentation(ByRed(), table_of(broken=(1, 3)), options)
    np.testing.assert_array_equal(got, truth((0, 2, 4, 5)))
    assert "2 of 6 pictures could not be read" in caplog.text
    with pytest.raises(ImageError, match="broken on purpose"):
        evaluate_segmentation(ByRed(), table_of(broken=(1,)), SegmentationOptions(CPU, on_bad="stop"))


def test_labels_of_pictures_of_the_users_own():
    for order in ("rgb", "bgr"):
        images = [Pictures().read(str(place)) for place in range(4)]
        found = list(predict_labels(ByRed(channel_order=order), images, SegmentationOptions(CPU)))
        for image, labels in zip(images, found, strict=True):
            assert labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, image[..., 2] // 40)


TWO = ClassSet("two", ("background", "it"), ((0, 0, 0), (1, 1, 1)))
SEVEN = ClassSet("seven", tuple("abcdefg"), tuple((place,) * 3 for place in range(7)))


@pytest.mark.parametrize(
    ("model", "table", "options", "message"),
    [
        ({}, {"classes": TWO}, {}, "knows 7 classes.*the data 2"),
        ({"classes": SEVEN}, {}, {}, r"knows 7 classes \(seven\)"),
        ({}, {}, {"batch_size": 0}, "batch_size"),
    ],
    ids=["number", "names", "batch"],
)
def test_what_does_not_go_together_is_refused(model, table, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_segmentation(ByRed(**model), table_of(**table), SegmentationOptions(CPU, **options))
