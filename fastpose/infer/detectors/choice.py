"""From what a user calls a detector to a callable, and from what it returns to boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastpose.errors import ConfigError, DataError
from fastpose.infer.boxes_in import Found, number_rows, usable_boxes
from fastpose.infer.detectors.people import PeopleDetector
from fastpose.infer.detectors.rtmlib import RtmlibDetector
from fastpose.infer.detectors.torchvision import TorchvisionDetector
from fastpose.infer.detectors.transformers import TransformersDetector
from fastpose.infer.detectors.ultralytics import UltralyticsDetector

Detector = Callable[[np.ndarray], Any]
WHOLE = "whole"
PEOPLE = "people"
LIBRARIES: dict[str, Callable[[str], Detector]] = {
    "rtmlib": RtmlibDetector,
    "torchvision": TorchvisionDetector,
    "transformers": TransformersDetector,
    "ultralytics": UltralyticsDetector,
}
KNOWN = f"'whole', 'people', a callable, or LIBRARY:MODEL with one of {', '.join(LIBRARIES)}"


def pick_detector(choice: str | Detector | None) -> tuple[Detector | None, str]:
    """The detector and its name; None, 'whole' for the whole picture as the box of one person.

    choice: None or 'whole'; 'people', OpenCV's built-in detector; 'LIBRARY:MODEL', such as
    'ultralytics:yolo11n.pt'; or a callable as `fastpose.infer.detectors` says. Raises ConfigError.
    """
    if choice is None or choice == WHOLE:
        return None, WHOLE
    if choice == PEOPLE:
        return PeopleDetector(), PEOPLE
    if isinstance(choice, str):
        library, _, model = choice.partition(":")
        if library not in LIBRARIES or not model:
            raise ConfigError(f"detector {choice!r}: unknown; expected {KNOWN}")
        return LIBRARIES[library](model), choice
    if not callable(choice):
        raise ConfigError(f"detector: expected {KNOWN}; got {type(choice).__name__}")
    return choice, getattr(choice, "__name__", type(choice).__name__)


def call_detector(detector: Detector, name: str, image: np.ndarray) -> Found:
    """What the detector finds in a picture (H, W, 3) uint8 BGR; DataError where it returns no boxes."""
    try:
        boxes, scores = _split(detector(image))
        return usable_boxes(boxes, scores, image.shape[1], image.shape[0], by=name)
    except DataError as error:
        raise DataError(
            f"detector {name}: {error}; it must return boxes (N, 4) x, y, width, height, or (N, 5) with the "
            "score, or both as a pair"
        ) from error


def _split(answer: Any) -> tuple[Any, Any]:
    if isinstance(answer, tuple) and len(answer) == 2:
        return answer
    try:
        array = np.asarray(answer, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"returned {type(answer).__name__}") from error
    if array.ndim == 2 and array.shape[1] == 5:
        return array[:, :4], array[:, 4]
    return number_rows("boxes", array, 4), None
