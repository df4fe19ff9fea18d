"""Results of one frame after the other, with the people numbered and their joints smoothed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data.images import read_image
from fastpose.errors import ConfigError
from fastpose.infer.cuts import CutDetector
from fastpose.infer.result import Boxes, Keypoints, Result
from fastpose.infer.similarity import box_area
from fastpose.infer.smooth import OneEuro
from fastpose.infer.track import Tracker

RATE = 25.0
"""Frames a second where a source says nothing about time."""
TICK = 1e-3  # seconds between frames that a file gives one time


def follow(
    results: Iterable[Result],
    make_tracker: Callable[[], Tracker],
    make_filter: Callable[[], OneEuro] | None = None,
    *,
    rate: float = RATE,
) -> Iterator[Result]:
    """The results with `boxes.id` set, and with the joints smoothed if there is a filter.

    Every video has a tracker and a filter of its own; all results without a path are one video, and so are
    the pictures of one folder. Results that carry their pictures show where the film cuts: there everyone is
    new. `rate` is how many frames there are a second where results have no time. A frame that could not be
    read is one without people. Absent joints stay absent, scores as they were.
    """
    follower: _Follower | None = None
    of: Path | None = None
    for result in results:
        video = _video_of(result)
        if follower is None or video != of or result.frame == 0:
            follower, of = _Follower(make_tracker(), make_filter and make_filter(), rate), video
        yield follower.next(result)


def _video_of(result: Result) -> Path | None:
    return result.path if result.path is None or result.frame is not None else result.path.parent


class _Follower:
    """The people of one video, as far as they have been seen."""

    def __init__(self, tracker: Tracker, smooth: OneEuro | None, rate: float) -> None:
        self.tracker, self.smooth, self.cuts = tracker, smooth, CutDetector()
        self.step = 1 / rate
        self.time = -self.step

    def next(self, result: Result) -> Result:
        boxes, points = result.boxes, result.keypoints
        if isinstance(result.pixels, np.ndarray) and self.cuts.update(result.pixels):
            self.tracker.cut()
        ids = self.tracker.update(boxes.xyxy, points.xy, points.conf)
        numbered = Boxes(boxes.xywh, boxes.conf, boxes.orig_shape, ids)
        self._advance(result.time)
        if self.smooth is not None and len(ids):
            size = np.sqrt(np.maximum(box_area(boxes.xyxy), 1.0))
            xy = self.smooth.update(points.xy, ids, size, self.time)
            points = Keypoints(xy, points.conf, points.valid, points.orig_shape)
        return replace(result, boxes=numbered, keypoints=points)

    def _advance(self, time: float | None) -> None:
        if time is None:
            self.time += self.step
        else:
            self.time = time if time > self.time else self.time + TICK


@dataclass(frozen=True)
class Following:
    """`follow` as a Predictor does it, with the trackers and filters that it was asked for."""

    make_tracker: Callable[[], Tracker]
    make_filter: Callable[[], OneEuro] | None
    rate: float

    def __call__(self, results: Iterable[Result], *, keep_pixels: bool, upright: bool) -> Iterator[Result]:
        """keep_pixels: whether results go on with the pictures that they came with, in which cuts are seen;
        without it those of files are read again when asked for, and frames are let go."""
        for result in follow(results, self.make_tracker, self.make_filter, rate=self.rate):
            yield result if keep_pixels else _lighter(result, upright)


def check_following(track: Any, smooth: Any, rate: Any) -> None:
    """ConfigError for a `track` or `smooth` that is no switch and no function, and a rate not above 0."""
    for name, value, maker in (("track", track, "Tracker"), ("smooth", smooth, "OneEuro")):
        if not isinstance(value, (bool, np.bool_)) and not callable(value):
            raise ConfigError(
                f"{name}: expected True, False or a function that makes a {maker}, got {value!r}"
            )
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < float(rate) < math.inf:
        raise ConfigError(f"rate: expected a number of frames a second above 0, got {rate!r}")


def pick_following(
    track: bool | Callable[[], Tracker],
    smooth: bool | Callable[[], OneEuro],
    rate: float,
    sigmas: Sequence[float],
) -> Following | None:
    """What a Predictor's arguments ask for, None where nobody is to be followed; `smooth` needs to track.

    Raises ConfigError as `check_following` does.
    """
    check_following(track, smooth, rate)
    if not track and not smooth:
        return None
    make_tracker = track if callable(track) else partial(Tracker, sigmas)
    make_filter = smooth if callable(smooth) else OneEuro
    return Following(make_tracker, make_filter if smooth else None, rate)


def _lighter(result: Result, upright: bool) -> Result:
    if result.frame is not None:
        return replace(result, pixels=None)
    if result.path is not None:
        return replace(result, pixels=partial(read_image, result.path, upright=upright))
    return result
