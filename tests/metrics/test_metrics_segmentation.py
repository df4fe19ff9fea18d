"""Scores of label maps, against counting pixel by pixel."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from fastpose.classes import BODY_PARTS, IGNORE, PERSON_2, VOC_21, ClassSet
from fastpose.errors import DataError
from fastpose.metrics.segmentation import (
    class_scores,
    class_table,
    confusion_matrix,
    segmentation_scores,
)

FOUR = ClassSet("four", ("a", "b", "c", "d"), tuple((place,) * 3 for place in range(4)))


def made_up(shape=(3, 11, 17), classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.6, labels, rng.integers(0, classes, shape)).astype(np.uint8)
    labels[rng.random(shape) < 0.15] = IGNORE
    labels[rng.random(shape) < 0.05] = classes  # beyond the set
    return predicted, labels


def counted_one_by_one(predicted, labels, classes):
    counts = np.zeros((classes, classes), np.int64)
    for found, truth in zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if truth < classes:
            counts[truth, found] += 1
    return counts


@pytest.mark.parametrize("kind", ["arrays", "tensors", "int64", "not-contiguous"])
def test_counts_are_those_of_counting(kind):
    predicted, labels = made_up()
    expected = counted_one_by_one(predicted, labels, 4)
    if kind == "tensors":
        predicted, labels = torch.from_numpy(predicted), torch.from_numpy(labels)
    elif kind == "int64":
        predicted, labels = torch.from_numpy(predicted).long(), labels.astype(np.int64)
    elif kind == "not-contiguous":
        predicted, labels = predicted.transpose(2, 0, 1).copy().transpose(1, 2, 0), labels
    got = confusion_matrix(predicted, labels, 4)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)


def test_pictures_add_up_in_any_grouping():
    predicted, labels = made_up((6, 5, 7))
    whole = confusion_matrix(predicted, labels, 4)
    for places in ((0, 1, 2, 3, 4, 5, 6), (0, 2, 6), (0, 5, 6)):
        parts = [confusion_matrix(predicted[a:b], labels[a:b], 4) for a, b in pairwise(places)]
        np.testing.assert_array_equal(sum(parts), whole)


def test_a_prediction_counts_nowhere_but_on_labelled_pixels():
    labels = np.full((4, 4), IGNORE, np.uint8)
    assert confusion_matrix(np.ones((4, 4), np.uint8), labels, 2).sum() == 0
    labels[0, 0] = 1
    assert confusion_matrix(np.zeros((4, 4), np.uint8), labels, 2).tolist() == [[0, 0], [1, 0]]
    assert confusion_matrix(labels[:0], labels[:0], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        (np.full((2, 2), 4), np.zeros((2, 2), int), "4 is none of the classes 0 to 3"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "-1 is none"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "predicted: expected integers"),
        (np.zeros((2, 2), int), np.zeros((2, 2)), "labels: expected integers"),
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"expected shape \(2, 2\), got \(2, 3\)"),
    ],
    ids=["beyond", "negative", "scores", "float-labels", "shapes"],
)
def test_what_cannot_be_counted_is_refused(predicted, labels, message):
    with pytest.raises(DataError, match=message):
        confusion_matrix(predicted, labels, 4)


def test_scores_are_those_of_sets_of_pixels():
    predicted, labels = made_up()
    scores = segmentation_scores(confusion_matrix(predicted, labels, 4), FOUR)
    counted = labels < 4
    found, truth = predicted[counted], labels[counted]
    pixels = np.arange(found.size)
    overlaps, recalls = [], []
    for label, name in enumerate(FOUR.names):
        said, true = set(pixels[found == label]), set(pixels[truth == label])
        overlaps.append(len(said & true) / len(said | true))
        recalls.append(len(said & true) / len(true))
        assert scores[f"IoU {name}"] == pytest.approx(overlaps[-1], abs=1e-12)
    assert scores["mIoU"] == pytest.approx(np.mean(overlaps), abs=1e-12)
    assert scores["mean accuracy"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert scores["pixel accuracy"] == pytest.approx((found == truth).mean(), abs=1e-12)


def test_perfect_labels_score_one():
    _, labels = made_up()
    predicted = np.where(labels < 4, labels, 0)
    scores = segmentation_scores(confusion_matrix(predicted, labels, 4), FOUR)
    assert set(scores.values()) == {1.0}


def test_absent_classes_are_left_out_or_count_as_zero():
    # a: 6 of 8 found; b: 2 labelled, 4 predicted; c: predicted once and nowhere labelled; d: nowhere.
    confusion = np.array([[6, 2, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    skip = segmentation_scores(confusion, FOUR)
    assert np.isnan(skip["IoU d"])
    assert skip["IoU c"] == 0
    assert skip["mIoU"] == pytest.approx((6 / 9 + 2 / 4 + 0) / 3)
    assert skip["mean accuracy"] == pytest.approx((6 / 9 + 1) / 2)
    zero = segmentation_scores(confusion, FOUR, absent="zero")
    labelled, predicted, hits = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    official = hits / np.maximum(1.0, labelled + predicted - hits)
    assert zero["mIoU"] == pytest.approx(official.mean())
    assert zero["mean accuracy"] == pytest.approx((hits / np.maximum(1.0, labelled)).mean())
    assert zero["IoU d"] == 0
    assert zero["pixel accuracy"] == skip["pixel accuracy"] == pytest.approx(8 / 11)


def test_the_table_has_a_row_a_class():
    confusion = np.array([[90, 10], [5, 45]])
    first, second = class_scores(confusion, PERSON_2)
    assert second == ("person", 45 / 60, 45 / 50, 50, 55)
    assert first == ("background", 90 / 105, 0.9, 100, 95)
    assert class_table(confusion, PERSON_2).splitlines() == [
        "class         IoU  accuracy  pixels",
        "background   85.7      90.0    66.7",
        "person       75.0      90.0    33.3",
    ]
    lines = class_table(np.zeros((7, 7), np.int64), BODY_PARTS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[3].split() == ["torso", "n/a", "n/a", "0.0"]


@pytest.mark.parametrize(
    ("confusion", "options", "message"),
    [
        (np.zeros((21, 21), np.int64), {}, "no labelled pixel"),
        (np.ones((4, 4), np.int64), {}, "expected 21x21 for voc21"),
        (np.ones((21, 21), np.int64), {"absent": "one"}, "absent"),
    ],
    ids=["empty", "classes", "absent"],
)
def test_matrices_that_cannot_be_scored_are_refused(confusion, options, message):
    with pytest.raises(DataError, match=message):
        segmentation_scores(confusion, VOC_21, **options)
