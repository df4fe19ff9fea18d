"""Arrays, PIL images, tensors, lists and generators of them become the same pixels."""

import cv2
import numpy as np
import pytest
import torch

from fastpose.data.images import MAX_SIDE
from fastpose.errors import DataError, ImageError
from fastpose.infer.images_in import to_bgr
from fastpose.infer.items import open_source

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC
)
RGB = np.ascontiguousarray(PICTURE[..., ::-1])
GREY = PICTURE[..., 0]


def pil(array: np.ndarray, mode: str | None = None):
    return pytest.importorskip("PIL.Image").fromarray(array, mode)


def read(source, **more) -> list[np.ndarray]:
    return [item.load() for item in open_source(source, **more).items]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(PICTURE, PICTURE, id="bgr"),
        pytest.param(np.asfortranarray(PICTURE), PICTURE, id="other-strides"),
        pytest.param(GREY, np.dstack([GREY] * 3), id="grey"),
        pytest.param(GREY[..., None], np.dstack([GREY] * 3), id="grey-with-channel"),
        pytest.param(np.dstack([PICTURE, GREY]), PICTURE, id="alpha"),
        pytest.param(PICTURE.astype(np.uint16) * 256 + 255, PICTURE, id="16-bit"),
        pytest.param(PICTURE[:1, :1], PICTURE[:1, :1], id="one-pixel"),
        pytest.param(torch.from_numpy(RGB).permute(2, 0, 1), PICTURE, id="tensor"),
        pytest.param(torch.from_numpy(RGB).permute(2, 0, 1) / 255, PICTURE, id="float-tensor"),
        pytest.param(
            (torch.from_numpy(RGB).permute(2, 0, 1) / 255).double().requires_grad_(), PICTURE, id="with-grad"
        ),
        pytest.param(torch.from_numpy(GREY.copy())[None], np.dstack([GREY] * 3), id="grey-tensor"),
    ],
)
def test_one_form_for_all(value, expected):
    image = to_bgr(value, "x")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


def test_an_array_of_the_right_form_is_not_copied():
    assert to_bgr(PICTURE, "x") is PICTURE or np.shares_memory(to_bgr(PICTURE, "x"), PICTURE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr", "I;16"])
def test_pil_modes(mode):
    if mode == "I;16":
        image, expected = pil(GREY.astype(np.uint16) * 256), np.dstack([GREY] * 3)
    else:
        image = pil(RGB).convert(mode)
        expected = np.asarray(image.convert("RGB"))[..., ::-1]
    np.testing.assert_array_equal(to_bgr(image, "x"), expected)
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(to_bgr(image, "x"), PICTURE)


def test_pil_file_that_is_cut_short(tmp_path):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), PICTURE)
    path.write_bytes(path.read_bytes()[:-200])
    image = pytest.importorskip("PIL.Image").open(path)
    with pytest.raises(ImageError, match="PIL cannot read"):
        to_bgr(image, "x")


@pytest.mark.parametrize("kind", ["file", "pil"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, kind, orientation):
    """Upright, the bright half is on top, whatever way up the pixels are stored."""
    Image, ImageOps = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20], upright[20:, :20] = 255, 90
    for stored in (upright, upright[::-1], upright[:, ::-1], upright[::-1, ::-1]):
        for turned in (stored, stored.transpose(1, 0, 2)):
            image = Image.fromarray(np.ascontiguousarray(turned))
            exif = image.getexif()
            exif[0x0112] = orientation
            path = tmp_path / "a.jpg"
            image.save(path, quality=95, exif=exif)
            with Image.open(path) as opened:
                expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[..., ::-1]
                source = path if kind == "file" else opened
                (found,) = read(source)
                (as_stored,) = read(source, upright=False)
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).mean() < 2
            assert np.abs(as_stored.astype(int) - turned).mean() < 4


def test_files_of_every_depth(tmp_path):
    """As `decode_image` documents: grey, alpha, 16 bits and CMYK."""
    for name, array in {
        "grey": GREY, "alpha": np.dstack([PICTURE, GREY]), "deep": PICTURE.astype(np.uint16) * 257,
    }.items():  # fmt: skip
        cv2.imwrite(str(tmp_path / f"{name}.png"), array)
    pil(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    alpha, cmyk, deep, grey = read(tmp_path)
    np.testing.assert_array_equal(grey, np.dstack([GREY] * 3))
    np.testing.assert_array_equal(alpha, PICTURE)
    np.testing.assert_array_equal(deep, PICTURE)
    assert np.abs(cmyk.astype(int) - PICTURE).mean() < 15


@pytest.mark.parametrize(
    "source",
    [
        pytest.param([PICTURE, torch.from_numpy(RGB).permute(2, 0, 1)], id="list"),
        pytest.param((picture for picture in (PICTURE, PICTURE)), id="generator"),
        pytest.param(np.stack([PICTURE, PICTURE]), id="array"),
        pytest.param(torch.from_numpy(np.stack([RGB, RGB])).permute(0, 3, 1, 2), id="tensor"),
    ],
)
def test_several_pictures(source):
    opened = open_source(source)
    assert not opened.single
    items = list(opened.items)
    assert [item.index for item in items] == [0, 1]
    for item in items:
        np.testing.assert_array_equal(item.load(), PICTURE)


def test_lists_of_files_folders_and_globs(tmp_path):
    for name in ("b.png", "a.png", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), PICTURE)
    source = [tmp_path / "b.png", str(tmp_path), PICTURE, str(tmp_path / "**" / "c*"), tmp_path / "gone"]
    items = list(open_source(source).items)
    names = [item.path.name if item.path else None for item in items]
    assert names == ["b.png", "a.png", "b.png", None, "c.png", "gone"]
    assert [item.index for item in items] == list(range(6))
    with pytest.raises(ImageError, match="gone"):
        items[-1].load()


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")

    def never():
        raise AssertionError("the generator was asked")
        yield

    assert len(list(open_source(tmp_path).items)) == 1
    open_source(never())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(None, "cv2.imread", id="none"),
        pytest.param(PICTURE.astype(np.float32), "float32", id="float"),
        pytest.param(PICTURE > 3, "bool", id="bool"),
        pytest.param(PICTURE[:0], "80x0 pixels", id="empty"),
        pytest.param(PICTURE[..., :2], r"\(60, 80, 2\)", id="two-channels"),
        pytest.param(np.zeros(4, np.uint8), r"\(4,\)", id="one-dimension"),
        pytest.param(np.zeros((1, MAX_SIDE + 1, 3), np.uint8), "32768x1 pixels", id="too-wide"),
        pytest.param(
            np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10_001, 10_000, 3)), "at most", id="too-large"
        ),
        pytest.param(np.array([[object()]]), "object", id="objects"),
        pytest.param(torch.from_numpy(RGB), r"a tensor is \(3, H, W\)", id="tensor-hwc"),
        pytest.param(torch.zeros(3, 4), "expected a tensor", id="flat-tensor"),
        pytest.param(torch.full((3, 4, 4), 1.5), "0 to 1", id="tensor-beyond-one"),
        pytest.param(torch.full((3, 4, 4), torch.nan), "0 to 1", id="tensor-nan"),
        pytest.param(torch.zeros(3, 4, 4, dtype=torch.int64), "int64", id="tensor-int64"),
        pytest.param(torch.zeros(3, 0, 4), "4x0 pixels", id="tensor-empty"),
        pytest.param("photo.jpg", "got str", id="text"),
    ],
)
def test_refused(value, message):
    with pytest.raises(ImageError, match=message) as caught:
        to_bgr(value, "the third")
    assert "the third" in str(caught.value)


def test_pil_size_is_judged_before_pixels(monkeypatch):
    image = pytest.importorskip("PIL.Image").new("1", (MAX_SIDE + 1, 2))
    monkeypatch.setattr(type(image), "convert", lambda *more: pytest.fail("pixels were asked for"))
    with pytest.raises(ImageError, match="32768x2 pixels"):
        to_bgr(image, "x")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_without_a_range(mode):
    with pytest.raises(ImageError, match=f"mode {mode}"):
        to_bgr(pil(GREY).convert(mode), "x")


NO_SOURCES = [3.5, b"bytes", {"a": 1}, {1, 2}, True, object()]


@pytest.mark.parametrize("source", NO_SOURCES, ids=[type(source).__name__ for source in NO_SOURCES])
def test_no_source(source):
    with pytest.raises(DataError, match="source: expected"):
        open_source(source)
