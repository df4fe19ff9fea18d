"""Where people are: detectors that find boxes in a picture.

A detector is any callable that takes a picture (H, W, 3) uint8 BGR and returns boxes (N, 4) (x, y, width,
height) in its pixels, or boxes with scores, as (N, 5) or as a pair of (N, 4) and (N,).
"""

from fastpose.infer.detectors.choice import Detector, call_detector, pick_detector
from fastpose.infer.detectors.people import PeopleDetector
from fastpose.infer.detectors.rtmlib import RtmlibDetector
from fastpose.infer.detectors.torchvision import TorchvisionDetector
from fastpose.infer.detectors.transformers import TransformersDetector
from fastpose.infer.detectors.ultralytics import UltralyticsDetector

__all__ = [
    "Detector",
    "PeopleDetector",
    "RtmlibDetector",
    "TorchvisionDetector",
    "TransformersDetector",
    "UltralyticsDetector",
    "call_detector",
    "pick_detector",
]
