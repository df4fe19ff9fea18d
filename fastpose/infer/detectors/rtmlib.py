"""People by a detector of rtmlib, in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpose.infer.detectors.library import corners_to_boxes, import_library

PERSON = 0


class RtmlibDetector:
    """model: a detector of rtmlib, such as `rtmlib.YOLOX(...)` or `rtmlib.Body().det_model`, or the path or
    address of an ONNX file of YOLOX for people, which rtmlib fetches. min_score and device are for a file;
    rtmlib gives boxes without scores, so that each counts 1."""

    def __init__(self, model: Any, *, min_score: float = 0.5, device: str = "cpu") -> None:
        if isinstance(model, str):
            model = import_library("rtmlib").YOLOX(model, score_thr=min_score, device=device)
        self.model = model

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image (H, W, 3) uint8 BGR -> boxes (N, 4) xywh."""
        found = self.model(image)
        if isinstance(found, tuple):  # of all classes, with the classes' numbers
            corners, labels = found
            found = np.reshape(corners, (-1, 4))[np.reshape(labels, -1) == PERSON]
        return corners_to_boxes(found)
