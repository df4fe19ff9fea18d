"""The pictures that the page can be given: files of a visitor, and samples that need no download."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from fastpose.data.figures import FigureStyle, read_figures
from fastpose.data.headers import FORMATS, image_size
from fastpose.data.images import decode_pixels
from fastpose.errors import ImageError

MAX_FILE_MB = 32
"""Of an uploaded file; what a picture may measure is the image reader's to say."""

SHOWN = 1280
"""Pixels of the longer side of what is sent to the browser."""

FIGURES = 4
FIGURE_SIZE = (384, 384)
FIGURE_SEED = 2
ASTRONAUT = "astronaut.png"


@dataclass(frozen=True)
class Opened:
    """A picture that somebody chose: what to call it, how to read its pixels (H, W, 3) uint8 BGR (again),
    its (width, height), and the boxes (x, y, width, height) that are known of it."""

    name: str
    load: Callable[[], np.ndarray]
    size: tuple[int, int]
    boxes: list[list[float]] = field(default_factory=list)


def open_file(path: Path) -> tuple[Opened, np.ndarray]:
    """A file of a visitor, and its pixels, turned as its EXIF data says.

    The content decides, not the extension. Raises ImageError, which names the file without its folder.
    """
    pixels = _read(path)
    height, width = pixels.shape[:2]
    return Opened(path.name, partial(_read, path), (width, height)), pixels


def _read(path: Path) -> np.ndarray:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_MB << 20 else None
    except (OSError, ValueError):
        raise ImageError(f"{path.name}: the file is no longer here; choose it again") from None
    if data is None:
        raise ImageError(f"{path.name}: {size >> 20} MB; at most {MAX_FILE_MB} MB, make it smaller first")
    if image_size(data) is None:
        raise ImageError(f"{path.name}: not a picture; choose a {FORMATS} file")
    return decode_pixels(data, path.name, cv2.IMREAD_COLOR)


@cache
def samples() -> tuple[Opened, ...]:
    """Rendered figures with their boxes, and skimage's astronaut (public domain) where that is installed."""
    style = FigureStyle(people=(1, 2), occluders=False, truncation=0.0, lying=0.0, facing=(1.0, 0.0, 0.0))
    table = read_figures(FIGURES, seed=FIGURE_SEED, image_size=FIGURE_SIZE, style=style)
    made = []
    for row, file_name in enumerate(table.file_names):
        boxes = table.box[table.image_index == row].round(1).tolist()
        load = partial(table.images.read, str(file_name))
        made.append(Opened(f"figure_{row + 1}.png", load, FIGURE_SIZE, boxes))
    path = astronaut_file()
    if path is not None:
        with suppress(ImageError):  # a damaged installation costs the sample, not the page
            made.append(open_file(path)[0])
    return tuple(made)


def astronaut_file() -> Path | None:
    """The photograph in the folder of scikit-image, which is not imported for it; None without one."""
    try:
        spec = importlib.util.find_spec("skimage")
    except ValueError:  # something else goes by that name
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / ASTRONAUT
        if path.is_file():
            return path
    return None


def shrink(image: np.ndarray, longest: int = SHOWN) -> np.ndarray:
    """The picture with its longer side at most `longest` pixels; itself where it is no larger."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
