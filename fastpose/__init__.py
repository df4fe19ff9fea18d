"""Human-pose networks, trained and run fast, with the official implementations' numbers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.backend import backend_status, set_backend, use_backend
    from fastpose.infer.predictor import Predictor
    from fastpose.infer.result import Result
    from fastpose.infer.segmentation_predictor import Segmenter
    from fastpose.infer.segmentation_result import SegmentationResult
    from fastpose.train.engine.graph_step import GraphStep as graph_step

__version__ = "0.1.0"
__all__ = [
    "Predictor",
    "Result",
    "SegmentationResult",
    "Segmenter",
    "__version__",
    "backend_status",
    "graph_step",
    "set_backend",
    "use_backend",
]

_PLACES = {
    "Predictor": ("fastpose.infer.predictor", "Predictor"),
    "Result": ("fastpose.infer.result", "Result"),
    "SegmentationResult": ("fastpose.infer.segmentation_result", "SegmentationResult"),
    "Segmenter": ("fastpose.infer.segmentation_predictor", "Segmenter"),
    "backend_status": ("fastpose.backend", "backend_status"),
    "graph_step": ("fastpose.train.engine.graph_step", "GraphStep"),
    "set_backend": ("fastpose.backend", "set_backend"),
    "use_backend": ("fastpose.backend", "use_backend"),
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        module, attribute = _PLACES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'fastpose' has no attribute {name!r}")
