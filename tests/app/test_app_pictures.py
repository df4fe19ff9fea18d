"""Files of visitors become upright BGR pixels or a message; the samples need nothing."""

from __future__ import annotations

import importlib.util
import io
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from fastpose.app import pictures
from fastpose.app.pictures import MAX_FILE_MB, astronaut_file, open_file, samples, shrink
from fastpose.data.figures import read_figures
from fastpose.errors import ImageError

# A smooth picture, so that JPEG changes it little; left is dark, the upper right corner blue.
RAMP = np.dstack([np.tile(np.linspace(0, 250, 40).astype(np.uint8), (24, 1)) for _ in range(3)])


def written(folder: Path, mode: str, kind: str, **options: object) -> Path:
    Image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    Image.fromarray(RAMP).convert(mode).save(data, kind, **options)
    path = folder / "picture.bin"
    path.write_bytes(data.getvalue())
    return path


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGB", "BMP")],
    ids=["jpeg", "grey-png", "alpha-png", "cmyk-jpeg", "webp", "bmp"],
)
def test_every_kind_of_picture_whatever_its_extension(tmp_path: Path, mode: str, kind: str) -> None:
    chosen, pixels = open_file(written(tmp_path, mode, kind))
    assert pixels.shape == (24, 40, 3)
    assert pixels.dtype == np.uint8
    assert chosen.size == (40, 24)
    assert chosen.name == "picture.bin"
    assert np.abs(pixels.astype(int) - RAMP).max() <= 12
    np.testing.assert_array_equal(chosen.load(), pixels)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), RAMP.astype(np.uint16) * 257)
    np.testing.assert_array_equal(open_file(path)[1], RAMP)


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter clockwise puts it right
    chosen, pixels = open_file(written(tmp_path, "RGB", "JPEG", exif=exif, quality=95))
    assert chosen.size == (24, 40)
    assert np.abs(pixels.astype(int) - np.rot90(RAMP, -1)).max() <= 12


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "choose a JPEG, PNG, BMP or WebP file"),
        (b"hello, I am a text", "not a picture"),
        (cv2.imencode(".png", RAMP)[1].tobytes()[:60], "cut short"),
        (cv2.imencode(".jpg", RAMP)[1].tobytes()[:-20], "cut short"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\2\0\0\0",
            "60000x60000 pixels are too many",
        ),
    ],
    ids=["empty", "text", "cut-png", "cut-jpeg", "bomb"],
)
def test_a_bad_file_is_named_without_its_folder(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "mine.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words) as raised:
        open_file(path)
    assert str(raised.value).startswith("mine.jpg: ")
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("name", ["gone.png", "nul\0.png", "x" * 5000], ids=["gone", "nul", "endless"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="choose it again"):
        open_file(tmp_path / name)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.bmp"
    with path.open("wb") as file:
        file.truncate((MAX_FILE_MB << 20) + 1)
    with pytest.raises(ImageError, match=f"at most {MAX_FILE_MB} MB"):
        open_file(path)


def test_samples_have_their_people_in_their_boxes() -> None:
    samples.cache_clear()
    figures = [sample for sample in samples() if sample.name.startswith("figure")]
    assert len(figures) == pictures.FIGURES
    style = pictures.FigureStyle(people=(1, 2), occluders=False, truncation=0, lying=0, facing=(1, 0, 0))
    table = read_figures(4, seed=pictures.FIGURE_SEED, image_size=pictures.FIGURE_SIZE, style=style)
    assert sum(len(sample.boxes) for sample in figures) == len(table) > len(figures)
    for row, sample in enumerate(figures):
        assert sample.load().shape == (*pictures.FIGURE_SIZE, 3)
        for joints, (x, y, width, height) in zip(
            table.joints[table.image_index == row], sample.boxes, strict=True
        ):
            inside = (joints > (x - 1, y - 1)) & (joints < (x + width + 1, y + height + 1))
            assert inside.all(axis=1).sum() >= 12, "of 17 joints"


def test_the_astronaut_only_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModuleSpec("skimage", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "skimage" else None)
    assert astronaut_file() is None, "an installation without its pictures"
    (tmp_path / "data").mkdir()
    cv2.imwrite(str(tmp_path / "data" / "astronaut.png"), RAMP)
    samples.cache_clear()
    last = samples()[-1]
    assert (last.name, last.size, last.boxes) == ("astronaut.png", (40, 24), [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    samples.cache_clear()
    assert {sample.name.split("_")[0] for sample in samples()} == {"figure"}


@pytest.mark.parametrize("broken", ["a module without a spec", "a file cut short"])
def test_a_broken_scikit_image_costs_nothing_but_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "a module without a spec":
        module = ModuleType("skimage")
        module.__spec__ = None
        monkeypatch.setitem(sys.modules, "skimage", module)
    else:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "astronaut.png").write_bytes(cv2.imencode(".png", RAMP)[1].tobytes()[:60])
        monkeypatch.setattr(pictures, "astronaut_file", lambda: tmp_path / "data" / "astronaut.png")
    samples.cache_clear()
    assert [sample.name for sample in samples()] == [f"figure_{n}.png" for n in range(1, 5)]
    samples.cache_clear()


def test_samples_need_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("skimage", "PIL", "matplotlib", "gradio", "pandas", "imageio"):
        monkeypatch.setitem(sys.modules, name, None)
    samples.cache_clear()
    shown = samples()
    assert [sample.load().shape for sample in shown] == [(384, 384, 3)] * pictures.FIGURES
    assert all(sample.boxes for sample in shown)
    samples.cache_clear()


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 200), (300, 200)), ((3000, 1500), (1280, 640)), ((1, 9000), (1, 1280))]
)
def test_shrink_keeps_the_proportions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 7, np.uint8)
    shrunk = shrink(image)
    assert shrunk.shape == (expected[1], expected[0], 3)
    assert (shrunk == 7).all()
