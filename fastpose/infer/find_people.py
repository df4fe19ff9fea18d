"""Whose boxes a picture's people have: the caller's, a detector's, or the whole picture's."""

from __future__ import annotations

import logging

import numpy as np

from fastpose.infer.boxes_in import Found, usable_boxes
from fastpose.infer.detectors import Detector, call_detector, pick_detector
from fastpose.infer.items import Item
from fastpose.infer.results import FileBoxes

logger = logging.getLogger(__name__)

NO_BOXES = (
    "no boxes and no detector: each picture is taken as one person, cut out to its edges. For pictures with "
    "more around the person give boxes=, or detector='ultralytics:yolo11n.pt' and the like, or "
    "detector='people', which is built in and misses most people; detector='whole' silences this"
)


class PeopleFinder:
    """`PeopleFinder(detector)(item, image)`: the boxes of a picture (H, W, 3) uint8 BGR.

    detector: as in `Predictor`. With None the whole picture is one person, which is said once. ConfigError
    for one that is not known, DataError from the call for boxes and detections of another form.
    """

    def __init__(self, detector: str | Detector | None) -> None:
        self.detector, self.name = pick_detector(detector)
        self._told = detector is not None

    def __call__(self, item: Item, image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        own = item.boxes
        if isinstance(own, FileBoxes):
            found = usable_boxes(own.boxes, own.scores, width, height)
            found.image_id = own.image_id
            return found
        if own is not None:
            boxes, scores = own
            return usable_boxes(boxes, scores, width, height)
        if self.detector is not None:
            return call_detector(self.detector, self.name, image)
        if not self._told:
            logger.warning(NO_BOXES)
            self._told = True
        return usable_boxes([[0, 0, width, height]], None, width, height, by=self.name)
