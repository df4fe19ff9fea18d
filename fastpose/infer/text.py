"""Short lines of text on a picture, in OpenCV's own font."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
UNIT_HEIGHT = 21.0  # pixels from the baseline to the top of a capital at scale 1
DESCENT = 0.4  # of the letter height, below the baseline
Color = tuple[int, int, int]


def printable(text: str) -> str:
    """The text with what the font lacks written without accents, or as `?`."""
    plain = unicodedata.normalize("NFKD", text)
    kept = "".join(char for char in plain if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else "?" for char in kept)


def text_width(text: str, height: float) -> int:
    """Width in pixels of a line whose capitals are `height` pixels high."""
    return cv2.getTextSize(text, FONT, height / UNIT_HEIGHT, _stroke(height))[0][0]


def shorten(text: str, height: float, width: int) -> str:
    """The text, or its two ends around `..`, so that it is at most `width` pixels wide ("" if none fits)."""
    if text_width(text, height) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = (kept + 1) // 2
        short = f"{text[:head]}..{text[len(text) - kept + head :]}"
        if text_width(short, height) <= width:
            return short
    return ""


def put_text(canvas: np.ndarray, text: str, left: int, baseline: int, height: float, color: Color) -> None:
    """Writes one line into a (H, W, 3) uint8 BGR canvas, in place; capitals are `height` pixels high."""
    scale = height / UNIT_HEIGHT
    cv2.putText(canvas, text, (left, baseline), FONT, scale, color, _stroke(height), cv2.LINE_AA)


def put_tag(canvas: np.ndarray, text: str, left: int, bottom: int, height: float, color: Color) -> None:
    """Text on a filled tag that ends at `bottom`, moved as little as needed to stay inside the canvas."""
    pad = max(2, round(height * 0.35))
    size_x = text_width(text, height) + 2 * pad
    size_y = round(height) + 2 * pad
    left = max(0, min(left, canvas.shape[1] - size_x))
    top = max(0, min(bottom - size_y, canvas.shape[0] - size_y))
    cv2.rectangle(canvas, (left, top), (left + size_x, top + size_y), color, cv2.FILLED)
    ink = (25, 25, 25) if sum(color) > 380 else (245, 245, 245)
    put_text(canvas, text, left + pad, top + size_y - pad, height, ink)


def _stroke(height: float) -> int:
    return max(1, round(height / 11))
