"""People by a YOLO network of ultralytics."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpose.infer.detectors.library import corners_to_boxes, import_library, person_label


class UltralyticsDetector:
    """model: an `ultralytics.YOLO`, or what its constructor takes, such as 'yolo11n.pt', which ultralytics
    fetches if it is not there. min_score: of boxes kept. label: the network's number for people, None for
    that of the class called person. device: as ultralytics has it, None for its choice. ultralytics is under
    AGPL-3.0."""

    def __init__(
        self,
        model: Any = "yolo11n.pt",
        *,
        min_score: float = 0.25,
        label: int | None = None,
        device: str | None = None,
    ) -> None:
        self.model = import_library("ultralytics").YOLO(model) if isinstance(model, str) else model
        self.label = person_label(self.model.names, "the ultralytics model") if label is None else label
        self.min_score, self.device = min_score, device

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR -> boxes (N, 4) xywh, scores (N,)."""
        (result,) = self.model.predict(
            image, classes=[self.label], conf=self.min_score, device=self.device, verbose=False
        )
        found = result.boxes.cpu().numpy()
        return corners_to_boxes(found.xyxy), np.asarray(found.conf, np.float64)
