"""The people of one picture: their boxes, their joints, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.errors import FastposeError
from fastpose.infer.pictured import Pictured
from fastpose.keypoints import KeypointSet, Pairs

if TYPE_CHECKING:
    import pandas

FARTHEST = 1e6
"""Pixels from the origin; a joint beyond is no joint of a picture and is flagged."""


@dataclass(frozen=True)
class Boxes:
    """N boxes: `xywh` (N, 4) float64 (x, y, width, height) in pixels of the picture, `conf` (N,) float64,
    `orig_shape` (height, width), and `id` (N,) int64 where somebody tracks them, else None."""

    xywh: np.ndarray
    conf: np.ndarray
    orig_shape: tuple[int, int]
    id: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xywh)

    @property
    def xyxy(self) -> np.ndarray:
        """(N, 4) left, top, right, bottom in pixels."""
        return np.concatenate([self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]], axis=1)

    @property
    def xywhn(self) -> np.ndarray:
        """`xywh` as shares of the picture's width and height."""
        return self.xywh / _size(self.orig_shape, 2)

    @property
    def xyxyn(self) -> np.ndarray:
        """`xyxy` as shares of the picture's width and height."""
        return self.xyxy / _size(self.orig_shape, 2)


class Keypoints:
    """K joints of N people: `xy` (N, K, 2) float32 (x, y) in pixels of the picture, `conf` (N, K) float32
    the heights of the heatmaps' peaks, `valid` (N, K) bool, `orig_shape` (height, width).

    A joint whose heatmap rises nowhere above 0, or that would lie at no finite place within a million pixels,
    is not valid: its `xy` is NaN, never (0, 0), and its `conf` 0. A joint may lie outside the picture.
    """

    def __init__(
        self, xy: np.ndarray, conf: np.ndarray, valid: np.ndarray, orig_shape: tuple[int, int]
    ) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf
            conf = conf.astype(np.float32)
        # Comparisons with NaN are false.
        there = valid & (np.abs(xy) <= FARTHEST).all(axis=2) & (conf > 0) & np.isfinite(conf)
        self.xy = np.where(there[..., None], xy, np.nan).astype(np.float32)
        self.conf = np.where(there, conf, np.float32(0))
        self.valid = there
        self.orig_shape = orig_shape

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def xyn(self) -> np.ndarray:
        """`xy` as shares of the picture's width and height, (N, K, 2) float32."""
        return (self.xy / _size(self.orig_shape, 1)).astype(np.float32)


def _size(shape: tuple[int, int], times: int) -> np.ndarray:
    return np.array([shape[1], shape[0]] * times, dtype=np.float64)


@dataclass
class Result(Pictured):
    """What was found in one picture; everything is NumPy, in pixels of the picture, (x, y).

    `boxes` and `keypoints` have one row a person, none where nobody was found; `skipped` has a line for
    each box that could not be used. `error` is what kept the picture from being read, else None. `name` is
    how messages call the picture, `path` its file, `index` its place in the source; `frame` and `time`
    (seconds) its place in a video. `found_by` says whose the boxes are: 'given', 'whole' (one box, the
    picture), or the detector. `speed` has the milliseconds of each stage. `image_id` is that of a COCO json,
    else made from the name of the file.
    """

    name: str
    orig_shape: tuple[int, int]
    boxes: Boxes
    keypoints: Keypoints
    keypoint_set: KeypointSet
    found_by: str = "given"
    path: Path | None = None
    index: int = 0
    frame: int | None = None
    time: float | None = None
    image_id: int | str | None = None
    skipped: list[str] = field(default_factory=list)
    error: FastposeError | None = None
    speed: dict[str, float] = field(default_factory=dict)
    pixels: np.ndarray | Callable[[], np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        height, width = self.orig_shape
        what = f"error: {self.error}" if self.error else f"{len(self)} people, {width}x{height}"
        return f"Result({self.name}: {what})"

    @property
    def names(self) -> tuple[str, ...]:
        """The K joints' names."""
        return self.keypoint_set.names

    @property
    def skeleton(self) -> Pairs:
        """The limbs: pairs of joints, 0-based."""
        return self.keypoint_set.skeleton

    def plot(
        self, image: np.ndarray | None = None, *, boxes: bool | None = None, threshold: float = 0.2
    ) -> np.ndarray:
        """The picture with its people drawn, a new (H, W, 3) uint8 BGR array.

        image: to draw on in place of the picture itself. boxes: whether to draw boxes and their scores; None
        leaves them out where the box is the whole picture. threshold: joints below it are not drawn, absent
        ones never. Raises as `image` and `draw_poses`, and ConfigError for a threshold outside 0 to 1.
        """
        from fastpose.infer.draw import check_threshold, draw_poses

        check_threshold(threshold)
        framed = self.found_by != "whole" if boxes is None else boxes
        return draw_poses(
            self.image if image is None else image,
            self.keypoints.xy,
            self.keypoints.conf,
            self.keypoint_set,
            boxes=self.boxes.xywh if framed else None,
            person_score=self.boxes.conf if framed else None,
            threshold=threshold,
        )

    def show(self, **options: Any) -> None:
        """Opens `plot(**options)` in a window, or in the notebook; OutputError where there is neither."""
        from fastpose.infer.result_pictures import show_picture

        show_picture(self.plot(**options), self.name)

    def save(self, path: str | Path | None = None, **options: Any) -> Path:
        """Writes `plot(**options)`, by default as STEM_pose.png into the working folder; returns the path.

        The extension says the format. OutputError where it cannot be written, or is the picture itself.
        """
        from fastpose.infer.result_pictures import save_picture

        return save_picture(self, Path(path) if path else Path(f"{self.stem}_pose.png"), self.plot(**options))

    def save_crop(self, folder: str | Path) -> list[Path]:
        """Writes what lies in each box as STEM_NUMBER.png into the folder; boxes that end at the picture's
        border are cut there. Returns the paths, in the order of the people."""
        from fastpose.infer.result_pictures import save_crops

        return save_crops(self, Path(folder))

    def summary(self) -> list[dict[str, Any]]:
        """One dict a person, ready for JSON: `box` [x, y, width, height], `box_score`, `score`, `id` where
        tracked, and `keypoints`, name to {x, y, score}, or to None for an absent joint.

        `score` is the box's score times the mean of the joint scores above 0.2 (hrnet lib/dataset/coco.py).
        """
        from fastpose.infer.result_text import summary

        return summary(self)

    def to_json(self) -> str:
        """The picture and `summary()` as one JSON object."""
        from fastpose.infer.result_text import to_json

        return to_json(self)

    def to_coco(self, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO keypoint results, one row a person; see `fastpose.infer.results.pose_rows`."""
        from fastpose.infer.results import pose_rows

        return pose_rows(self, category_id=category_id)

    def to_df(self) -> pandas.DataFrame:
        """One row for each joint of each person; ConfigError where pandas is not installed."""
        from fastpose.infer.result_text import to_df

        return to_df(self)

    def cpu(self) -> Result:
        """The result itself: its arrays are in host memory already."""
        return self

    def numpy(self) -> Result:
        """The result itself: its arrays are NumPy already."""
        return self
