"""Mutated picture files on the page: shown or refused with a message, and no memory kept."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from app_stubs import spots_predictor

from fastpose.app.desk import BROKEN, KEEP, NO_MEMORY, Desk
from fastpose.infer.detectors import PeopleDetector

NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = cv2.resize(NOISE, (96, 72), interpolation=cv2.INTER_CUBIC)


def seeds() -> list[bytes]:
    """Whole files of every format."""
    kinds = [(".jpg", PICTURE), (".png", PICTURE), (".bmp", PICTURE), (".webp", PICTURE)]
    kinds += [
        (".png", PICTURE[..., 0].astype(np.uint16) * 257),
        (".png", np.dstack([PICTURE, PICTURE[..., 0]])),
    ]
    return [cv2.imencode(suffix, image)[1].tobytes() for suffix, image in kinds]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes set, a piece left out, doubled or moved to the front, or the end cut off."""
    array = np.frombuffer(data, np.uint8)
    for _ in range(rng.integers(1, 3)):
        if len(array) < 8:
            break
        near = min(len(array), 120) if rng.integers(2) else len(array)
        first, last = np.sort(rng.integers(0, near, 2))
        kind = rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1])
        if kind == 0:
            array = array.copy()
            array[rng.integers(0, near, 3)] = rng.integers(0, 256, 3)
        elif kind == 1:
            array = np.delete(array, slice(first, min(last, first + 40)))
        elif kind == 2:
            array = np.insert(array, first, array[first : first + 40])
        elif kind == 3:
            array = np.concatenate([array[first:last], array[:first], array[last:]])
        else:
            array = array[: max(first, 1)]
    return array.tobytes()


def resident() -> float:
    """Megabytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def check(count: int, folder: Path) -> None:
    rng, originals, path = np.random.default_rng(11), seeds(), folder / "upload.jpg"
    desk = Desk(spots_predictor(), PeopleDetector(), "people")
    shown = refused = 0
    start = None
    for number in range(count):
        path.write_bytes(mutate(originals[number % len(originals)], rng))
        view = desk.open_file(str(path))
        if view.opened is KEEP:
            refused += 1
            assert "upload.jpg" in view.status
        else:
            shown += 1
            found = desk.find_joints(view.opened, [])
            assert found.answer is not KEEP
            assert found.skeletons.shape == found.maps.shape
        assert BROKEN not in view.status
        assert NO_MEMORY not in view.status
        start = resident() if number == 100 else start
    growth = resident() - start
    print(f"{shown} shown, {refused} refused, {growth:.1f} MB more")
    assert min(shown, refused) > count / 10, "both outcomes are put to the test"
    assert growth < 50


def test_mutated_uploads(tmp_path: Path) -> None:
    check(300, tmp_path)


@pytest.mark.slow
def test_ten_thousand_mutated_uploads(tmp_path: Path) -> None:
    check(10_000, tmp_path)
