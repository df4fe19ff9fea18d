"""Contact sheets: layout, letterboxing, captions."""

import numpy as np
import pytest

from fastpose.errors import DataError, ImageError
from fastpose.infer.sheet import GAP, MAT, PAGE, contact_sheet, letterbox
from fastpose.infer.text import printable, shorten, text_width

RED = (0, 0, 255)


def solid(height, width, color=RED):
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize(
    ("count", "columns", "rows_columns"),
    [(1, 4, (1, 1)), (4, 4, (1, 4)), (5, 4, (2, 4)), (7, 1, (7, 1))],
    ids=["one", "full-row", "ragged", "column"],
)
def test_page_is_as_large_as_its_cells(count, columns, rows_columns):
    page = contact_sheet([solid(30, 20)] * count, columns, (40, 50))
    rows, used = rows_columns
    assert page.shape == (GAP + rows * (50 + GAP), GAP + used * (40 + GAP), 3)
    assert page[0, 0].tolist() == list(PAGE)


def test_reading_order_and_empty_places():
    colors = [(10, 0, 0), (0, 20, 0), (0, 0, 30)]
    page = contact_sheet([solid(8, 8, color) for color in colors], 2, (20, 20))
    first, second = GAP + 10, GAP + 20 + GAP + 10
    assert page[first, first].tolist() == [10, 0, 0]
    assert page[first, second].tolist() == [0, 20, 0]
    assert page[second, first].tolist() == [0, 0, 30]
    assert page[second, second].tolist() == list(PAGE)


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        ((10, 40), (slice(20, 40), slice(0, 80)), (slice(0, 18), slice(0, 80))),
        ((400, 100), (slice(0, 60), slice(33, 47)), (slice(0, 60), slice(0, 31))),
    ],
    ids=["wide-enlarged", "tall-reduced"],
)
def test_letterbox_keeps_proportions(shape, inside, outside):
    framed = letterbox(solid(*shape), (80, 60))
    assert framed.shape == (60, 80, 3)
    assert (framed[inside] == RED).all()
    assert (framed[outside] == MAT).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (30, 20, 1)], ids=str)
def test_letterbox_of_odd_pictures(shape):
    assert letterbox(np.zeros(shape, np.uint8), (33, 17)).shape == (17, 33, 3)


def test_captions_get_their_own_strip():
    plain = contact_sheet([solid(30, 20)], 1, (120, 90))
    captioned = contact_sheet([solid(30, 20)], 1, (120, 90), captions=["a caption"])
    strip = captioned[GAP + 90 : -GAP]
    assert len(captioned) > len(plain)
    assert np.array_equal(captioned[: GAP + 90], plain[: GAP + 90])
    assert strip.min() < 100  # dark ink on the light page
    assert (captioned[:, : GAP // 2] == PAGE).all()


def test_long_caption_keeps_both_ends_within_the_cell():
    text = shorten("000000123456_a_very_long_file_name.jpg", 10, 150)
    assert text_width(text, 10) <= 150
    assert text.startswith("0000")
    assert text.endswith(".jpg")
    assert ".." in text
    assert shorten("short", 10, 150) == "short"
    assert shorten("anything", 10, 1) == ""


def test_caption_in_other_alphabets_stays_printable():
    assert printable("Zoë Müller 3°\n人") == "Zoe Muller 3???"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("images", {"images": []}),
        ("columns", {"columns": 0}),
        ("cell", {"cell": (0, 10)}),
        ("captions", {"captions": ["one", "two"]}),
    ],
    ids=["no-pictures", "no-columns", "empty-cell", "captions"],
)
def test_bad_arguments_are_named(name, changes):
    with pytest.raises(DataError, match=f"^{name}: "):
        contact_sheet(**({"images": [solid(3, 3)], "columns": 1} | changes))


def test_picture_of_another_kind_is_refused():
    with pytest.raises(ImageError, match="float64"):
        contact_sheet([np.zeros((3, 3, 3))], 1)
