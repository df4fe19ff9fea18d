"""Many pictures on one: a grid of letterboxed cells with captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fastpose.errors import DataError
from fastpose.infer.draw import bgr_copy
from fastpose.infer.text import printable, put_text, shorten, text_width

PAGE = (244, 244, 244)
MAT = (224, 224, 224)
INK = (45, 45, 45)
GAP = 10


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    cell: tuple[int, int] = (256, 256),
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Pictures in reading order on a light grey page, each scaled to fit its cell without distortion.

    images: uint8 BGR (H, W, 3) of any sizes (grey ones are converted). cell: (width, height) in pixels.
    captions: one line each, written below the cell and shortened in the middle when too long.
    Returns (H, W, 3) uint8 BGR; with fewer pictures than columns the page is only as wide as they need.
    Raises DataError for no pictures, no columns, an empty cell or another number of captions.
    """
    _check(len(images), columns, cell, captions)
    columns = min(columns, len(images))
    letter = max(8.0, min(11.0, cell[0] / 20))
    strip = round(2.4 * letter) if captions else 0
    width, height = cell[0] + GAP, cell[1] + strip + GAP
    rows = -(-len(images) // columns)
    page = np.empty((rows * height + GAP, columns * width + GAP, 3), np.uint8)
    page[:] = PAGE
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left, top = GAP + column * width, GAP + row * height
        page[top : top + cell[1], left : left + cell[0]] = letterbox(image, cell)
        if captions:
            text = shorten(printable(captions[index]), letter, cell[0])
            start = left + (cell[0] - text_width(text, letter)) // 2
            put_text(page, text, start, top + cell[1] + round(1.7 * letter), letter, INK)
    return page


def letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture scaled to fit `size` (width, height) and centred on grey; ImageError as in `draw_poses`."""
    picture = bgr_copy(image)
    height, width = picture.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    framed = np.empty((size[1], size[0], 3), np.uint8)
    framed[:] = MAT
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    framed[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=method)
    return framed


def _check(count: int, columns: int, cell: tuple[int, int], captions: Sequence[str] | None) -> None:
    if count == 0:
        raise DataError("images: a contact sheet needs at least one picture, got none")
    if columns < 1:
        raise DataError(f"columns: expected at least 1, got {columns}")
    if min(cell) < 1:
        raise DataError(f"cell: expected a positive (width, height), got {cell}")
    if captions is not None and len(captions) != count:
        raise DataError(f"captions: expected one per picture ({count}), got {len(captions)}")
