"""Sizes of picture files as a reader will find them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fastpose.data.images import read_image
from fastpose.infer.picture_sizes import other_size

Image = pytest.importorskip("PIL.Image")


def write(path: Path, width: int, height: int, orientation: int | None = None) -> Path:
    image = Image.new("RGB", (width, height))
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("upright", [True, False], ids=["upright", "as-stored"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_pictures_that_are_read(tmp_path, suffix, upright, orientation):
    plain = write(tmp_path / "plain.png", 40, 30)
    turned = write(tmp_path / f"turned{suffix}", 40, 30, orientation)
    shapes = [read_image(path, upright=upright).shape[:2] for path in (plain, turned)]
    found = other_size([plain, turned], upright=upright)
    assert (found is None) == (shapes[0] == shapes[1])
    if found is not None:
        assert (found.first, found.first_size, found.other) == (plain, (40, 30), turned)
        assert found.other_size == shapes[1][::-1]


def test_files_that_cannot_be_read_are_passed_over(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [write(tmp_path / f"{n}.bmp", 20, 10) for n in range(2)]
    broken = [tmp_path / "broken.png", tmp_path / "gone.png"]
    assert other_size([broken[0], files[0], broken[1], files[1]]) is None
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((11, 20, 3), np.uint8))
    assert other_size([*files, *broken, tmp_path / "2.png"]).other == tmp_path / "2.png"
