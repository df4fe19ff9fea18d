"""Where a film cuts to another view, so that nobody's number is handed to whoever stands there next."""

from __future__ import annotations

import cv2
import numpy as np

COLOURS_MOVED = 0.25
"""Share of the pixels whose colour has to change. A pan by a tenth of the width moves 0.1 at most and a turn
of the figures 0.1; of pairs of COCO photographs none changes less than 0.29 (docs/video.md)."""
LEVELS_MOVED = 20.0
"""Grey levels by which the coarse picture has to change; a step of the exposure by a tenth stays below."""


class CutDetector:
    """Tells the first frame of each new view from the frame before.

    A cut is a frame whose colours and whose coarse picture both differ: a pan changes only the picture, a
    step of the exposure mostly the colours. Dissolves are not found.
    """

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, picture: np.ndarray) -> bool:
        """Whether (H, W, 3) uint8 BGR begins another view; False for the first frame."""
        small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        colours = cv2.calcHist([small], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3) / small[..., 0].size
        coarse = cv2.resize(small, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, (colours, coarse)
        if before is None:
            return False
        return bool(
            np.abs(colours - before[0]).sum() / 2 > COLOURS_MOVED
            and np.abs(coarse - before[1]).mean() > LEVELS_MOVED
        )
