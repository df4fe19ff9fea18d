"""The detector that needs nothing fetched: OpenCV's people detector of 2005."""

from __future__ import annotations

import cv2
import numpy as np

SHARE = (0.8, 0.9)
"""Of a window's width and height that the person fills; the detector was trained with a margin."""

LONGEST = 1280
"""Pixels of the longer side above which a picture is made smaller first: time grows with its area."""

SMALLEST = (64, 128)
"""(width, height) of the window; no person fits into a smaller picture."""


class PeopleDetector:
    """Whole, upright people at least 100 pixels high: histograms of gradients and a linear SVM (Dalal and
    Triggs, CVPR 2005), as cv2.HOGDescriptor ships them.

    It is weak, and only good for trying things out: on the 28 photographs of coco_mini it finds 6 of 142
    people at IoU 0.5 (6 of the 57 who are 100 pixels high), and 7 of its 13 boxes hold nobody; on skimage's
    astronaut it misses the person and finds a rocket. A picture of 640x480 takes 0.1 s of one core.
    min_score: least distance from the SVM's plane. Not for several threads at once.
    """

    def __init__(self, min_score: float = 0.3) -> None:
        self.min_score = min_score
        self._hog: cv2.HOGDescriptor | None = None

    def __reduce__(self) -> tuple[type[PeopleDetector], tuple[float]]:
        return PeopleDetector, (self.min_score,)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR -> boxes (N, 4) float64 xywh and scores (N,) above `min_score`."""
        height, width = image.shape[:2]
        factor = min(1.0, LONGEST / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if size[0] < SMALLEST[0] or size[1] < SMALLEST[1]:
            return np.zeros((0, 4)), np.zeros(0)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
        windows, weights = self._detector().detectMultiScale(
            small, hitThreshold=0.0, winStride=(8, 8), padding=(8, 8), scale=1.05
        )
        scores = np.asarray(weights, np.float64).reshape(-1)
        boxes = np.asarray(windows, np.float64).reshape(-1, 4) / factor
        inner = boxes[:, 2:] * SHARE
        boxes = np.concatenate([boxes[:, :2] + (boxes[:, 2:] - inner) / 2, inner], axis=1)
        keep = scores > self.min_score
        return boxes[keep], scores[keep]

    def _detector(self) -> cv2.HOGDescriptor:
        if self._hog is None:
            self._hog = cv2.HOGDescriptor()
            weights = np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32)
            self._hog.setSVMDetector(weights)
        return self._hog
