"""What `Segmenter` returns for one picture, and what can be made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.classes import ClassSet
from fastpose.errors import FastposeError
from fastpose.infer.pictured import Pictured


@dataclass
class SegmentationResult(Pictured):
    """The class of every pixel of one picture; everything is NumPy, at the size of the picture.

    `labels` (H, W) uint8 are indices into `classes.names`; `probabilities` (C, H, W) float32, the classes of
    a pixel summing to 1, where they were asked for, else None. `error` is what kept the picture from being
    read, else None; its labels are then (0, 0). `name` is how messages call the picture, `path` its file,
    `index` its place in the source; `frame` and `time` (seconds) its place in a video. `speed` has the
    milliseconds of each stage.
    """

    name: str
    labels: np.ndarray
    classes: ClassSet
    probabilities: np.ndarray | None = field(default=None, repr=False)
    path: Path | None = None
    index: int = 0
    frame: int | None = None
    time: float | None = None
    error: FastposeError | None = None
    speed: dict[str, float] = field(default_factory=dict)
    pixels: np.ndarray | Callable[[], np.ndarray] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        height, width = self.orig_shape
        found = ", ".join(row["name"] for row in self.summary())
        what = f"error: {self.error}" if self.error else f"{found}, {width}x{height}"
        return f"SegmentationResult({self.name}: {what})"

    @property
    def orig_shape(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The C classes' names."""
        return self.classes.names

    @property
    def counts(self) -> np.ndarray:
        """(C,) int64: how many pixels each class has."""
        return np.bincount(self.labels.ravel(), minlength=self.classes.num_classes)

    def plot(self, image: np.ndarray | None = None, *, alpha: float = 0.5, legend: bool = True) -> np.ndarray:
        """The picture with its classes in their colours, a new (H, W, 3) uint8 BGR array.

        image: to draw on in place of the picture itself. alpha: how much of the colour shows, from 0 to 1.
        legend: a strip below, which makes the array higher, names the classes that occur but for the
        background. Raises as `image` and `draw_segmentation`.
        """
        from fastpose.infer.overlay import draw_segmentation, with_legend

        drawn = draw_segmentation(
            self.image if image is None else image, self.labels, self.classes, alpha=alpha
        )
        return with_legend(drawn, self.classes, np.flatnonzero(self.counts).tolist()) if legend else drawn

    def show(self, **options: Any) -> None:
        """Opens `plot(**options)` in a window, or in the notebook; OutputError where there is neither."""
        from fastpose.infer.result_pictures import show_picture

        show_picture(self.plot(**options), self.name)

    def save(self, path: str | Path | None = None, **options: Any) -> Path:
        """Writes `plot(**options)`, by default as STEM_classes.png into the working folder; returns the path.

        The extension says the format. OutputError where it cannot be written, or is the picture itself.
        """
        from fastpose.infer.result_pictures import save_picture

        file = Path(path) if path else Path(f"{self.stem}_classes.png")
        return save_picture(self, file, self.plot(**options))

    def save_labels(self, path: str | Path | None = None) -> Path:
        """Writes the labels as a PNG with the palette of the classes, as PASCAL VOC's are; returns the path.

        By default as STEM_labels.png into the working folder. `fastpose.data.voc` reads it. Raises the
        picture's own error, OutputError where the file cannot be written, is the picture itself or is not
        called .png.
        """
        from fastpose.infer.segmentation_files import write_labels

        if self.error is not None:
            raise self.error
        return write_labels(self, Path(path) if path else Path(f"{self.stem}_labels.png"))

    def summary(self) -> list[dict[str, Any]]:
        """One dict a class that occurs, the largest first, ready for JSON: `label`, `name`, `pixels`, and
        `share` of the picture."""
        return class_shares(self.counts, self.classes)

    def to_json(self) -> str:
        """The picture and `summary()` as one JSON object."""
        record: dict[str, Any] = {
            "name": self.name,
            "width": self.orig_shape[1],
            "height": self.orig_shape[0],
            "classes": self.summary(),
            "error": None if self.error is None else str(self.error),
        }
        if self.frame is not None:
            record |= {"frame": self.frame, "time": self.time}
        return json.dumps(record, allow_nan=False)

    def cpu(self) -> SegmentationResult:
        """The result itself: its arrays are in host memory already."""
        return self

    def numpy(self) -> SegmentationResult:
        """The result itself: its arrays are NumPy already."""
        return self


def class_shares(counts: np.ndarray, classes: ClassSet) -> list[dict[str, Any]]:
    """One dict a class of which `counts` (C,) has pixels, the largest first, the lower label where two are
    equal: `label`, `name`, `pixels`, and `share` of them all."""
    order = np.argsort(-counts, kind="stable")
    whole = int(counts.sum())
    return [
        {
            "label": int(label),
            "name": classes.names[label],
            "pixels": int(counts[label]),
            "share": int(counts[label]) / whole,
        }
        for label in order
        if counts[label]
    ]
