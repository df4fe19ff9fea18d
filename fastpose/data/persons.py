"""The one form in which every reader hands over its annotations: a table of persons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from fastpose.keypoints import KeypointSet


class ImageSource(Protocol):
    """Where pictures come from: a folder, a zip, or a renderer. Must survive pickling into a worker."""

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 in BGR order; ImageError when it cannot be had."""
        ...

    def problem(self, name: str) -> str | None:
        """Why `read` is known to fail for this name without decoding it, or None."""
        ...


@dataclass
class PersonTable:
    """N persons in M images as arrays (never Python lists of dicts: workers would copy them page by page).

    `center` and `scale` (scale x 200 px, padded) describe the crop box for the aspect ratio given to the
    reader; joints and boxes are image pixels, (x, y) and (x, y, width, height).
    """

    keypoints: KeypointSet
    images: ImageSource
    image_ids: np.ndarray  # (M,) int64
    file_names: np.ndarray  # (M,) str
    image_sizes: np.ndarray  # (M, 2) int32, (width, height); 0 where the annotations do not say
    image_index: np.ndarray  # (N,) int64, row of the person's image
    center: np.ndarray  # (N, 2) float32
    scale: np.ndarray  # (N, 2) float32
    box: np.ndarray  # (N, 4) float64
    score: np.ndarray  # (N,) float32, 1 for annotated boxes
    joints: np.ndarray  # (N, K, 2) float64
    visible: np.ndarray  # (N, K) float32, 1 where the joint is labelled
    area: np.ndarray  # (N,) float64, annotated area for OKS, nan where unknown
    annotation_id: np.ndarray  # (N,) int64, -1 for detector boxes
    annotations: Path | dict | None = None  # COCO ground truth for the evaluator
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> persons left out by the reader

    def __len__(self) -> int:
        return len(self.image_index)
