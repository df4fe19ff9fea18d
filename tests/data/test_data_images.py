"""Pictures: every format and every kind of damage ends in pixels or in an ImageError."""

import copy
import os
import struct
import zipfile
import zlib
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest

from fastpose.data.images import FolderImages, ZipImages, decode_image, open_images, read_image
from fastpose.errors import ImageError

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC
)


def encode(extension: str, image: np.ndarray = PICTURE, *options: int) -> bytes:
    return cv2.imencode(extension, image, options)[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def pil_jpeg(mode: str, path: Path, **options: object) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes CMYK and EXIF").fromarray(
        PICTURE[..., ::-1]
    )
    image.convert(mode).save(path, "JPEG", **options)
    return path.read_bytes()


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
def test_decodes_the_usual_formats(extension):
    image = decode_image(encode(extension), "x")
    assert image.shape == PICTURE.shape
    assert np.abs(image.astype(int) - PICTURE).mean() < (8 if extension in (".jpg", ".webp") else 1e-9)


def test_progressive_jpeg_is_complete():
    data = encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert decode_image(data, "x").shape == PICTURE.shape
    with pytest.raises(ImageError, match="cut short"):
        decode_image(data[: len(data) * 2 // 3], "x")


def test_bytes_after_the_end_are_no_damage():
    assert decode_image(encode(".jpg") + b"\0" * 100, "x").shape == PICTURE.shape


def test_grey_sixteen_bit_alpha_and_one_pixel_become_bgr():
    grey = decode_image(encode(".png", PICTURE[..., 0]), "x")
    assert (grey == PICTURE[..., :1]).all()
    deep = decode_image(encode(".png", PICTURE.astype(np.uint16) * 257), "x")
    assert np.array_equal(deep, PICTURE)
    alpha = decode_image(encode(".png", np.dstack([PICTURE, PICTURE[..., 0]])), "x")
    assert np.array_equal(alpha, PICTURE)
    assert decode_image(encode(".png", PICTURE[:1, :1]), "x").shape == (1, 1, 3)


def test_cmyk_is_converted_and_exif_orientation_ignored(tmp_path):
    cmyk = decode_image(pil_jpeg("CMYK", tmp_path / "cmyk.jpg"), "x")
    assert cmyk.shape == PICTURE.shape
    assert np.abs(cmyk.astype(int) - PICTURE).mean() < 15
    exif = pytest.importorskip("PIL.Image").Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    rotated = decode_image(pil_jpeg("RGB", tmp_path / "exif.jpg", exif=exif), "x")
    assert rotated.shape == PICTURE.shape


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
def test_cut_files_are_refused(extension):
    data = encode(extension)
    for length in (0, len(data) // 100, len(data) // 2, len(data) - 20):
        with pytest.raises(ImageError, match=r"^name\.x: "):
            decode_image(data[:length], "name.x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_header(60_000, 60_000), "too many"),
        (png_header(40_000, 10), "too many"),
        (png_header(10_100, 10_000), "too many"),
        (png_header(0, 10), "0x10"),
        (b"GIF89a" + b"\0" * 40, "not an image"),
        (b"", "0 bytes"),
        (encode(".jpg")[:2] + b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00", "too many"),
    ],
    ids=["bomb", "side", "area", "no-width", "format", "empty", "jpeg-bomb"],
)
def test_headers_are_judged_before_decoding(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_image(data, "x")


def test_chunk_that_claims_gigabytes_takes_none():
    data = bytearray(encode(".png"))
    place = data.find(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", 2**31 - 1)
    with pytest.raises(ImageError, match="cut short"):
        decode_image(bytes(data), "x")


def test_thumbnail_in_the_metadata_is_not_the_picture():
    thumbnail = encode(".jpg", PICTURE[:8, :8])
    data = encode(".jpg")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode_image(whole, "x").shape == PICTURE.shape
    with pytest.raises(ImageError, match="cut short"):
        decode_image(whole[: 2 + len(segment) + len(data) // 2], "x")


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
def test_mutated_files_end_in_pixels_or_an_image_error(extension, capfd):
    rng = np.random.default_rng(1)
    original = np.frombuffer(encode(extension), np.uint8)
    outcomes = set()
    for _ in range(150):
        data = original.copy()
        places = rng.integers(0, len(data), rng.integers(1, 20))
        data[places] = rng.integers(0, 256, len(places))
        try:
            outcomes.add(decode_image(data.tobytes(), "x").dtype.name)
        except ImageError:
            outcomes.add("refused")
    assert outcomes <= {"uint8", "refused"}
    assert "refused" in outcomes


REFUSED = [
    "../secret.jpg",
    "/etc/passwd",
    "a/../../b.jpg",
    "",
    "a\0b.jpg",
    "\\\\host\\share",
    "C:/x.jpg",
    "x" * 4096,
]


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: repr(name)[:20])
def test_names_that_leave_the_root_are_refused(name, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.jpg").write_bytes(encode(".jpg"))
    images = FolderImages(tmp_path / "root")
    with pytest.raises(ImageError):
        images.read(name)
    assert images.problem(name) is not None
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ok.jpg", encode(".jpg"))
        if name and "\0" not in name and len(name) < 100:
            file.writestr(name, encode(".jpg"))
    with pytest.raises(ImageError):
        ZipImages(archive).read(name)


def test_links_out_of_the_root_are_refused_and_inside_followed(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(encode(".jpg"))
    (root / "a.jpg").write_bytes(encode(".jpg"))
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "in.jpg").symlink_to(root / "a.jpg")
    (tmp_path / "link").symlink_to(root)
    images = FolderImages(tmp_path / "link")
    assert images.read("in.jpg").shape == PICTURE.shape
    with pytest.raises(ImageError, match="leaves the image root"):
        images.read("out.jpg")


def test_missing_unreadable_and_wrong_files_are_named(tmp_path):
    images = FolderImages(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("gone.jpg", "folder.jpg", "text.jpg"):
        with pytest.raises(ImageError, match=name):
            images.read(name)
        assert name in images.problem(name)
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="no such image folder"):
        FolderImages(tmp_path / "gone")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "val2017.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(4):
            file.writestr(f"val2017/{i}.png", encode(".png", PICTURE[: 10 + i]))
    return path


def test_open_images_finds_folder_zip_and_zip_beside(archive, tmp_path):
    for path in (archive, tmp_path / "val2017"):
        images = open_images(path)
        assert isinstance(images, ZipImages)
        assert np.array_equal(images.read("2.png"), PICTURE[:12])
        assert images.size("2.png") == (80, 12)
        assert images.problem("2.png") is None
        assert "no such image" in images.problem("9.png")
    (tmp_path / "val2017").mkdir()
    assert isinstance(open_images(tmp_path / "val2017"), FolderImages)
    with pytest.raises(ImageError, match=r"gone\.zip"):
        open_images(tmp_path / "gone")


def test_damaged_zip_is_an_image_error(archive):
    data = bytearray(archive.read_bytes())
    data[60:80] = b"\0" * 20
    archive.write_bytes(data)
    with pytest.raises(ImageError, match=r"cannot be read|damaged"):
        open_images(archive).read("0.png")
    archive.write_bytes(b"PK not a zip")
    with pytest.raises(ImageError, match="not a readable zip"):
        open_images(archive)


def _sizes(images: ZipImages) -> list[tuple[int, int]]:
    return [images.read(f"{i % 4}.png").shape[:2] for i in range(40)]


def test_zip_is_opened_anew_in_a_forked_process_and_in_a_copy(archive):
    images = open_images(archive)
    expected = _sizes(images)
    assert _sizes(copy.deepcopy(images)) == expected
    context = get_context("fork")
    answers = context.SimpleQueue()

    def read_in_child() -> None:
        answers.put((_sizes(images), images._open[0] == os.getpid()))

    children = [context.Process(target=read_in_child) for _ in range(2)]
    for child in children:
        child.start()
    assert _sizes(images) == expected
    assert [answers.get() for _ in children] == [(expected, True)] * 2
    for child in children:
        child.join(30)
    assert images._open[0] == os.getpid()
