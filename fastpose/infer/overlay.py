"""Label maps drawn on pictures, their legend, and sheets that compare prediction and truth."""

from __future__ import annotations

from collections.abc import Container, Sequence

import cv2
import numpy as np

from fastpose.classes import BACKGROUND, IGNORE, ClassSet
from fastpose.errors import DataError
from fastpose.infer.draw import bgr_copy
from fastpose.infer.sheet import GAP, INK, MAT, PAGE, contact_sheet
from fastpose.infer.text import Color, put_text, shorten, text_width

EDGE_SHARE = 0.0035  # width of the lines between classes over the longer side
RIM: Color = (250, 250, 250)
HATCH_STEP = 6  # pixels between the strokes that mark ignored pixels
BORDER = 7  # pixels; what is ignored and narrower is a line between classes


def draw_segmentation(
    image: np.ndarray, labels: np.ndarray, classes: ClassSet, *, alpha: float = 0.5
) -> np.ndarray:
    """A copy of `image` with the classes in their colours, and a light line where two meet.

    image: (H, W, 3) uint8 BGR, or another kind that `draw_poses` takes. labels: (H, W) uint8. alpha: how
    much of the colour shows, from 0 to 1. The background is left as it is, and IGNORE is hatched, but for
    narrow borders such as VOC's, which are drawn as the line that they are.
    Returns (H, W, 3) uint8 BGR. Raises ImageError for an image of another kind, DataError for labels of
    another shape or beyond the set and for an alpha out of range.
    """
    canvas = bgr_copy(image)
    _check(labels, canvas.shape[:2], classes)
    if not 0 <= alpha <= 1:
        raise DataError(f"alpha: must be from 0 to 1, got {alpha!r}")
    painted = np.isin(labels, _painted(classes))
    colored = cv2.addWeighted(canvas, 1 - alpha, _colored(labels, classes), alpha, 0)
    canvas[painted] = colored[painted]
    width = max(1, round(EDGE_SHARE * max(labels.shape)))
    hatched, border = _ignored(labels)
    line = _edges(labels, width) | border
    canvas[line] = cv2.addWeighted(canvas, 0.25, np.full_like(canvas, RIM), 0.75, 0)[line]
    canvas[hatched] = MAT
    return canvas


def draw_legend(classes: ClassSet, width: int, *, shown: Sequence[int] | None = None) -> np.ndarray:
    """A swatch and the name of each class, in as many rows as a strip of `width` pixels takes.

    shown: the labels to name, default all but the background. Returns (H, width, 3) uint8 BGR.
    """
    letter = 10.0
    swatch, pad, row = 14, 8, 24
    places: list[tuple[int, int, int, str]] = []
    x, y = GAP, 0
    for label in _painted(classes) if shown is None else shown:
        name = shorten(classes.names[label], letter, max(1, width - 2 * GAP - swatch - pad))
        wide = swatch + pad + text_width(name, letter) + 2 * pad
        if x > GAP and x + wide > width:
            x, y = GAP, y + row
        places.append((label, x, y, name))
        x += wide
    strip = np.empty((y + row, width, 3), np.uint8)
    strip[:] = PAGE
    for label, left, top, name in places:
        corner = (left, top + (row - swatch) // 2)
        end = (left + swatch - 1, corner[1] + swatch - 1)
        cv2.rectangle(strip, corner, end, classes.colors[label][::-1], cv2.FILLED)
        cv2.rectangle(strip, corner, end, INK, 1)
        put_text(strip, name, left + swatch + pad, top + (row + round(letter)) // 2, letter, INK)
    return strip


def with_legend(image: np.ndarray, classes: ClassSet, occurring: Container[int]) -> np.ndarray:
    """The picture (H, W, 3) uint8 BGR with a legend below it of those labels that occur, but for the
    background; the picture itself where there is none."""
    shown = [label for label in _painted(classes) if label in occurring]
    return np.concatenate([image, draw_legend(classes, image.shape[1], shown=shown)]) if shown else image


def segmentation_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    classes: ClassSet,
    *,
    truth: Sequence[np.ndarray] | None = None,
    columns: int = 3,
    cell: tuple[int, int] = (256, 256),
    alpha: float = 0.5,
) -> np.ndarray:
    """A page of pictures with their labels drawn on and a legend of the classes that occur.

    images, labels, alpha: as `draw_segmentation`, one after the other. truth: the labels that should have
    been found; each picture is then a row of the picture itself, the truth, and the labels, and `columns` is
    how many such groups stand side by side. cell: (width, height) of a picture.
    Returns (H, W, 3) uint8 BGR. Raises DataError for sequences of different lengths or none.
    """
    if not len(images) == len(labels) == (len(images) if truth is None else len(truth)):
        raise DataError(f"labels: expected one for each of {len(images)} pictures, got {len(labels)}")
    cells: list[np.ndarray] = []
    captions: list[str] | None = None
    if truth is not None:
        captions = ["picture", "truth", "prediction"] * len(images)
    for place, image in enumerate(images):
        if truth is not None:
            cells += [image, draw_segmentation(image, truth[place], classes, alpha=alpha)]
        cells.append(draw_segmentation(image, labels[place], classes, alpha=alpha))
    page = contact_sheet(cells, columns * (1 if truth is None else 3), cell, captions)
    occurring = set(np.unique(np.concatenate([m.ravel() for m in (*labels, *(truth or ()))])).tolist())
    return with_legend(page, classes, occurring)


def _painted(classes: ClassSet) -> list[int]:
    return [label for label, name in enumerate(classes.names) if name != BACKGROUND]


def _colored(labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """(H, W, 3) BGR, black for what is no class."""
    table = np.zeros((256, 3), np.uint8)
    table[: classes.num_classes] = np.array(classes.colors, np.uint8)[:, ::-1]
    return table[labels]


def _edges(labels: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: pixels within `width` of two classes; IGNORE is none."""
    square = np.ones((width + 1, width + 1), np.uint8)
    most = cv2.dilate(np.where(labels == IGNORE, 0, labels).astype(np.uint8), square)
    least = cv2.erode(labels, square)  # IGNORE is the largest of all
    return least < most


def _ignored(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool twice: the strokes over wide parts that are ignored, and the narrow ones."""
    ignored = (labels == IGNORE).astype(np.uint8)
    wide = cv2.morphologyEx(ignored, cv2.MORPH_OPEN, np.ones((BORDER, BORDER), np.uint8)) > 0
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    return wide & ((x + y) % HATCH_STEP == 0), (ignored > 0) & ~wide


def _check(labels: np.ndarray, shape: tuple[int, ...], classes: ClassSet) -> None:
    if labels.shape != shape or labels.dtype != np.uint8:
        raise DataError(f"labels: expected {shape} uint8, got {labels.shape} {labels.dtype}")
    wrong = labels[(labels >= classes.num_classes) & (labels != IGNORE)]
    if wrong.size:
        raise DataError(f"labels: {int(wrong[0])} is no class of {classes.name}")
