"""Pictures of which each tells its number, packed in the ways that many pictures are kept."""

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np

SIZE = 48


def png(number: int) -> bytes:
    """A dark picture with a bright spot whose place is `spot(number)`."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    cv2.circle(image, spot(number), 3, (255, 255, 255), cv2.FILLED)
    return cv2.imencode(".png", image)[1].tobytes()


def spot(number: int) -> tuple[int, int]:
    return 8 + (number * 7) % 32, 8 + (number * 3) % 32


def boxes(number: int) -> list[list[float]]:
    """Of 0, 1 or 2 people, who all see the whole picture."""
    return [[0.0, 0.0, SIZE, SIZE]] * (number % 3)


def write_folder(root: Path, count: int) -> Path:
    for number in range(count):
        path = root / f"{number // 4:02d}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return root


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_tar(path: Path, numbers: range) -> Path:
    """As WebDataset has it: 0007.png and 0007.json with its boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            add(archive, f"{number:04d}.png", png(number))
            add(archive, f"{number:04d}.json", json.dumps({"boxes": boxes(number), "caption": "x"}).encode())
    return path


def write_table(path: Path, numbers: range) -> Path:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "key": [f"{number:04d}" for number in numbers],
        "bytes": [png(number) for number in numbers],
        "boxes": [boxes(number) for number in numbers],
        "other": list(numbers),
    }
    parquet.write_table(pyarrow.table(columns), path)
    return path
