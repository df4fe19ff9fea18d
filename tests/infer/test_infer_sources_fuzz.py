"""Mutated picture files and hostile paths: pixels or an ImageError, and no memory kept."""

import resource
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pose_stubs import ChannelPeaks

from fastpose.errors import FastposeError, ImageError
from fastpose.infer.predictor import Predictor
from fastpose.infer.sources import find_images

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (96, 72), interpolation=cv2.INTER_CUBIC
)
GROUP = 100  # files that share a list


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Whole files of every format and kind, with their extensions."""
    Image = pytest.importorskip("PIL.Image")
    made = [
        (".jpg", cv2.imencode(".jpg", PICTURE)[1]),
        (".jpg", cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]),
        (".png", cv2.imencode(".png", PICTURE)[1]),
        (".png", cv2.imencode(".png", PICTURE[..., 0].astype(np.uint16) * 257)[1]),
        (".png", cv2.imencode(".png", np.dstack([PICTURE, PICTURE[..., 0]]))[1]),
        (".bmp", cv2.imencode(".bmp", PICTURE)[1]),
        (".webp", cv2.imencode(".webp", PICTURE)[1]),
        (".webp", cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1]),
    ]
    image = Image.fromarray(PICTURE[..., ::-1])
    exif = image.getexif()
    exif[0x0112] = 6
    for mode, more in (("RGB", {"exif": exif}), ("CMYK", {}), ("L", {})):
        image.convert(mode).save(folder / "seed.jpg", **more)
        made.append((".jpg", np.frombuffer((folder / "seed.jpg").read_bytes(), np.uint8)))
    (folder / "seed.jpg").unlink()
    return [(suffix, data.tobytes()) for suffix, data in made]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut off, left out, doubled, or set to an extreme, most of them near the header."""
    array = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        kind, length = rng.integers(6), len(array)
        if length < 4:
            break
        place = int(rng.integers(length) if rng.integers(2) else rng.integers(min(length, 200)))
        span = int(rng.integers(1, 60))
        if kind == 0:
            array[place] = int(rng.integers(256))
        elif kind == 1:
            array[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del array[place:]
        elif kind == 3:
            del array[place : place + span]
        elif kind == 4:
            array[place:place] = array[place : place + span]
        else:
            array[place : place + 4] = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")[
                rng.integers(3)
            ]
    return bytes(array)


def resident() -> float:
    """Megabytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Forgetful(ChannelPeaks):
    """Keeps no inputs: memory is measured here."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = super().forward(x)
        self.inputs.clear()
        return found


def run(count: int, folder: Path) -> tuple[int, int, float, float]:
    """Files read and refused, growth in MB after the first group, and the seconds of the slowest group."""
    rng, originals = np.random.default_rng(5), seeds(folder)
    predict = Predictor(Forgetful(), flip_test=False, detector="whole", batch_size=16)
    read = refused = 0
    slowest, start = 0.0, None
    for group in range(0, count, GROUP):
        files = []
        for number in range(group, min(group + GROUP, count)):
            suffix, data = originals[number % len(originals)]
            files.append(folder / f"{number % GROUP}{suffix}")
            files[-1].write_bytes(mutate(data, rng))
        begun = time.perf_counter()
        for result in predict(files, stream=True):
            assert (result.error is None) == (len(result) == 1)
            assert result.error is None or isinstance(result.error, ImageError)
            assert result.error is None or str(result.path) in str(result.error)
            read, refused = read + (result.error is None), refused + (result.error is not None)
        slowest = max(slowest, time.perf_counter() - begun)
        for file in files:
            file.unlink()
        start = resident() if group == GROUP else start
    return read, refused, resident() - (start or resident()), slowest


def check(count: int, folder: Path) -> None:
    read, refused, growth, slowest = run(count, folder)
    print(f"{read} read, {refused} refused, {growth:.1f} MB more, slowest {GROUP} files {slowest:.2f} s")
    assert read + refused == count
    assert min(read, refused) > count / 10, "both outcomes are put to the test"
    assert growth < 50


def test_mutated_files(tmp_path):
    check(600, tmp_path)


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path):
    check(10_000, tmp_path)


HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "a\0b.jpg", "\\\\host\\share.jpg", "x" * 4096, "x" * 300 + ".jpg",
    "", " ", "[", "**", "*.jpg", "~", "file:///etc/passwd.jpg", "https://example.org/a.jpg", "\udcff.jpg",
    "a.mp4", "/dev/zero", "/dev/stdin.jpg", "con.png", "\n.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict = Predictor(ChannelPeaks(), detector="whole")
    with pytest.raises(FastposeError):
        predict(name)
    (result, good) = predict([name, PICTURE]) if name != "" else (predict([name + "x", PICTURE]))
    assert result.error is not None
    assert good.error is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_pictures_or_an_error(text):
    try:
        found = find_images(text)
    except ImageError:
        return
    assert all(path.is_file() for path in found)


def test_links_that_lead_elsewhere_or_nowhere(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (inside / "b.png").symlink_to(tmp_path / "a.png")
    (inside / "c.png").symlink_to(inside / "c.png")
    (inside / "d.png").symlink_to(tmp_path / "gone.png")
    results = Predictor(ChannelPeaks(), detector="whole")(inside)
    assert [result.path.name for result in results] == ["b.png"], "as the user's own folder says"


def test_unreadable_folder_and_file(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)

    def forbidden(*args, **more):
        raise PermissionError(13, "Permission denied")

    predict = Predictor(ChannelPeaks(), detector="whole")
    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(ImageError, match="Permission denied"):
        predict(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(ImageError, match="Permission denied"):
        predict(tmp_path)
