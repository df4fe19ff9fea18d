"""Label maps drawn on pictures."""

import numpy as np
import pytest

from fastpose.classes import BODY_PARTS, CITYSCAPES_19, IGNORE, VOC_21
from fastpose.errors import DataError, ImageError
from fastpose.infer.overlay import RIM, draw_legend, draw_segmentation, segmentation_sheet
from fastpose.infer.sheet import GAP, MAT, PAGE, contact_sheet

GREY = np.full((60, 80, 3), 100, np.uint8)


def halves(left, right):
    labels = np.full((60, 80), left, np.uint8)
    labels[:, 40:] = right
    return labels


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_a_class_takes_its_colour_and_the_background_keeps_its_own(alpha):
    drawn = draw_segmentation(GREY, halves(0, 15), VOC_21, alpha=alpha)
    red, green, blue = VOC_21.colors[15]
    expected = 100 + alpha * (np.array([blue, green, red]) - 100)
    assert np.abs(drawn[:, 60].astype(float) - expected).max() <= 0.5 + 1e-6
    assert (drawn[:, :35] == 100).all()
    assert (GREY == 100).all()


def test_a_light_line_runs_where_classes_meet_and_nowhere_else():
    drawn = draw_segmentation(GREY, halves(1, 2), VOC_21).astype(int)
    light = (drawn > 150).all(axis=2)
    assert light[:, 38:42].any(axis=1).all()
    assert not light[:, :38].any()
    assert not light[:, 42:].any()
    assert drawn[30, 38:42].max() <= max(RIM)


def test_a_set_without_background_paints_its_first_class():
    drawn = draw_segmentation(GREY, halves(0, 0), CITYSCAPES_19, alpha=1.0)
    assert (drawn == np.array(CITYSCAPES_19.colors[0])[::-1]).all()


def test_what_is_ignored_is_hatched_and_a_narrow_border_is_a_line():
    wide = draw_segmentation(GREY, halves(0, IGNORE), VOC_21)
    strokes = (wide == MAT).all(axis=2)
    assert not strokes[:, :40].any()
    assert 0.1 < strokes[:, 40:].mean() < 0.3
    assert (wide[:, 44:][~strokes[:, 44:]] == 100).all()
    labels = halves(0, 0)
    labels[:, 40:43] = IGNORE
    narrow = draw_segmentation(GREY, labels, VOC_21)
    assert (narrow[:, 40:43] > 200).all()
    assert (narrow[:, :40] == 100).all()


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1), (60, 80, 4)], ids=["grey", "one", "alpha"])
def test_other_kinds_of_pictures_are_converted(shape):
    drawn = draw_segmentation(np.full(shape, 100, np.uint8), halves(0, 3), VOC_21)
    np.testing.assert_array_equal(drawn, draw_segmentation(GREY, halves(0, 3), VOC_21))


@pytest.mark.parametrize(
    ("image", "labels", "alpha", "error", "message"),
    [
        (GREY, halves(0, 21), 0.5, DataError, "21 is no class of voc21"),
        (GREY, halves(0, 1)[1:], 0.5, DataError, r"expected \(60, 80\) uint8"),
        (GREY, halves(0, 1).astype(int), 0.5, DataError, "int64"),
        (GREY, halves(0, 1), 1.5, DataError, "alpha"),
        (GREY.astype(float), halves(0, 1), 0.5, ImageError, "uint8"),
    ],
    ids=["class", "shape", "dtype", "alpha", "image"],
)
def test_what_cannot_be_drawn_is_refused(image, labels, alpha, error, message):
    with pytest.raises(error, match=message):
        draw_segmentation(image, labels, VOC_21, alpha=alpha)


def colours_in(picture):
    codes = np.unique(picture.astype(np.int64) @ [1 << 16, 1 << 8, 1])
    return {(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()}


@pytest.mark.parametrize("width", [40, 120, 500, 3000])
def test_the_legend_shows_every_class_at_any_width(width):
    legend = draw_legend(VOC_21, width)
    assert legend.shape[1] == width
    assert {color[::-1] for color in VOC_21.colors[1:]} <= colours_in(legend)
    assert VOC_21.colors[0] not in colours_in(legend)
    assert (legend[:, -4:] == PAGE).all()  # nothing runs over the edge
    assert legend[0].tolist() == [list(PAGE)] * width


def test_the_legend_names_what_is_shown():
    legend = draw_legend(BODY_PARTS, 300, shown=[2])
    assert BODY_PARTS.colors[2][::-1] in colours_in(legend)
    assert BODY_PARTS.colors[3][::-1] not in colours_in(legend)


def test_a_sheet_has_picture_truth_and_prediction_side_by_side():
    truth, found = halves(0, 1), halves(0, 2)
    page = segmentation_sheet([GREY], [found], BODY_PARTS, truth=[truth], columns=1, cell=(80, 60), alpha=1.0)
    cells = [page[GAP : GAP + 60, GAP + i * (80 + GAP) : GAP + i * (80 + GAP) + 80] for i in range(3)]
    np.testing.assert_array_equal(cells[0], GREY)
    for cell, labels in ((cells[1], truth), (cells[2], found)):
        np.testing.assert_array_equal(cell, draw_segmentation(GREY, labels, BODY_PARTS, alpha=1.0))
    legend = draw_legend(BODY_PARTS, page.shape[1], shown=[1, 2])
    np.testing.assert_array_equal(page[-len(legend) :], legend)


def test_a_sheet_of_predictions_alone_has_one_cell_a_picture():
    page = segmentation_sheet([GREY] * 4, [halves(0, 0)] * 4, BODY_PARTS, columns=2, cell=(80, 60))
    np.testing.assert_array_equal(page, contact_sheet([GREY] * 4, 2, (80, 60)))


@pytest.mark.parametrize("counts", [(1, 2, 1), (1, 1, 2), (0, 0, 0)], ids=["labels", "truth", "none"])
def test_sheets_that_cannot_be_are_refused(counts):
    images, labels, truth = counts
    with pytest.raises(DataError):
        segmentation_sheet([GREY] * images, [halves(0, 1)] * labels, VOC_21, truth=[halves(0, 1)] * truth)
