"""Label maps as PNG, against files written byte by byte and against another reader."""

import io

import numpy as np
import pytest
from plain_png import GREY, GREY_ALPHA, INDEX, RGB, RGBA, png

from fastpose.classes import BODY_PARTS, IGNORE, VOC_21, ClassSet, voc_color
from fastpose.data.segmentation_png import decode_labels, encode_labels
from fastpose.errors import DataError, ImageError

PALETTE = [voc_color(label) for label in range(256)]


def some_labels(limit, size=(13, 19), seed=0):
    return np.random.default_rng(seed).integers(0, limit, size).astype(np.uint16)


@pytest.mark.parametrize(("kind", "palette"), [(INDEX, PALETTE), (GREY, None)], ids=["index", "grey"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_values_and_indices_are_labels(kind, palette, depth):
    values = some_labels(1 << depth)
    expected = np.where(values < 21, values, IGNORE)
    labels = decode_labels(png(values, kind, depth, palette and palette[: 1 << depth]), "a.png", VOC_21)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_an_index_is_the_label_whatever_its_colour_is():
    values = some_labels(21)
    shuffled = np.random.default_rng(1).permutation(PALETTE)
    np.testing.assert_array_equal(decode_labels(png(values, INDEX, 8, shuffled), "a", VOC_21), values)


def test_side_information_of_a_palette_changes_nothing():
    values = some_labels(21)
    extra = [(b"sBIT", bytes([8, 8, 8])), (b"gAMA", (45455).to_bytes(4, "big"))]
    data = png(values, INDEX, 8, PALETTE, extra)
    np.testing.assert_array_equal(decode_labels(data, "a", VOC_21), values)


def test_grey_of_sixteen_bits_beyond_the_set_is_ignored():
    values = some_labels(40)
    values[0, 0] = 256  # 0 in its low byte
    labels = decode_labels(png(values, GREY, 16), "a", VOC_21)
    np.testing.assert_array_equal(labels, np.where(values < 21, values, IGNORE))


@pytest.mark.parametrize("kind", [RGB, RGBA], ids=["rgb", "rgba"])
def test_colours_are_looked_up(kind):
    values = some_labels(22)
    values[values == 21] = IGNORE
    pixels = np.array(PALETTE)[values]
    if kind == RGBA:
        pixels = np.concatenate([pixels, np.full((*values.shape, 1), 255)], axis=2)
    np.testing.assert_array_equal(decode_labels(png(pixels, kind), "a", VOC_21), values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xe0" + b"0" * 40, "must be a PNG"),
        (b"\x89PNG\r\n\x1a\n", "must be a PNG"),
        (png(np.zeros((3, 3, 2)), GREY_ALPHA), "alpha"),
        (png(np.full((3, 3, 3), 7), RGB), r"colour \(7, 7, 7\) of 9 pixels"),
        (png(np.zeros((3, 3, 3)), RGB, 16), "16 bits"),
        (png(np.zeros((30, 30)), INDEX, 8, PALETTE)[:-40], "cut short"),
        (png(np.zeros((30, 30)), INDEX, 8, PALETTE).replace(b"IDAT", b"IDAX"), "damaged"),
    ],
    ids=["jpeg", "empty", "alpha", "unknown-colour", "16-bit-colour", "truncated", "no-pixels"],
)
def test_what_is_no_label_map_is_refused_by_name(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        decode_labels(data, "folder/some.png", VOC_21)
    assert "folder/some.png" in str(caught.value)


def test_colours_that_two_classes_share_cannot_be_looked_up():
    twins = ClassSet("twins", ("a", "b"), ((1, 2, 3), (1, 2, 3)))
    with pytest.raises(DataError, match="share a colour"):
        decode_labels(png(np.full((2, 2, 3), [1, 2, 3]), RGB), "a", twins)


@pytest.mark.parametrize("classes", [VOC_21, BODY_PARTS], ids=lambda classes: classes.name)
def test_another_reader_finds_indices_and_colours(classes):
    image = pytest.importorskip("PIL.Image", reason="Pillow is the other reader")
    labels = some_labels(classes.num_classes).astype(np.uint8)
    labels[2, 3:9] = IGNORE
    picture = image.open(io.BytesIO(encode_labels(labels, classes)))
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.array(picture), labels)
    colors = np.array([*classes.colors, (224, 224, 192)])
    expected = colors[np.where(labels == IGNORE, classes.num_classes, labels)]
    np.testing.assert_array_equal(np.array(picture.convert("RGB")), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (29, 1), (64, 48)], ids=lambda shape: f"{shape}")
def test_labels_come_back(shape):
    labels = np.random.default_rng(3).choice(np.array([0, 1, 20, IGNORE], np.uint8), shape)
    np.testing.assert_array_equal(decode_labels(encode_labels(labels, VOC_21), "a", VOC_21), labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((2, 2), 21, np.uint8), "21 is no class of voc21"),
        (np.zeros((2, 2), np.int64), "uint8"),
        (np.zeros((2, 2, 3), np.uint8), r"\(H, W\)"),
        (np.zeros((0, 2), np.uint8), r"\(H, W\)"),
    ],
    ids=["class", "dtype", "colours", "empty"],
)
def test_labels_that_cannot_be_written_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        encode_labels(labels, VOC_21)
