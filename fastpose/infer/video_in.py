"""Frames of a video file or a camera."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fastpose.errors import ImageError
from fastpose.infer.sources import NOT_FETCHED, is_address

logger = logging.getLogger(__name__)

VIDEO_EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


class Frame(NamedTuple):
    """`pixels` (H, W, 3) uint8 BGR of frame `number`, from 0, `time` seconds after the first."""

    pixels: np.ndarray
    number: int
    time: float


class VideoFacts(NamedTuple):
    """What a file's header says: the number of frames and the frames a second, 0 where it does not."""

    frames: int
    rate: float


def video_facts(path: Path) -> VideoFacts:
    """The header of a video file; ImageError where it is missing or no video."""
    capture = _open(path)
    try:
        frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return VideoFacts(int(frames) if 0 < frames < 1e9 else 0, rate if 0 < rate < np.inf else 0.0)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a video file; the file need not be there."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def is_camera(name: object) -> bool:
    """Whether a text is the number of a camera: digits that are the name of no file."""
    return isinstance(name, str) and name.isascii() and name.isdigit() and not os.path.exists(name)


def video_frames(source: Path | int, *, upright: bool = True) -> Iterator[Frame]:
    """Frames in order, one in memory at a time; an int is a camera, whose frames never end.

    A file's frames are turned as its metadata says if `upright`. One that ends before the number of frames
    that it promises is told in a log line. Raises ImageError for a file that is missing or holds no frame
    that can be decoded, and for a camera that cannot be opened or stops.
    """
    capture = _open(source)
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, float(upright))
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = capture.get(cv2.CAP_PROP_FPS)
        number = 0
        while (pixels := _next(capture)) is not None:
            moment = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield Frame(pixels, number, moment if moment > 0 or rate <= 0 else number / rate)
            number += 1
        if number == 0 or isinstance(source, int):
            raise ImageError(f"{_name(source)}: gave no{' more' if number else ''} frame that can be decoded")
        if number < promised - max(2, promised // 20):  # counts in headers are not exact
            logger.warning("%s: ends after %d of %d frames; is it cut short?", source, number, promised)
    finally:
        capture.release()


def _open(source: Path | int) -> cv2.VideoCapture:
    if isinstance(source, int):
        if source < 0:
            raise ImageError(f"camera {source}: cameras are numbered from 0")
    elif not os.path.isfile(source):
        raise ImageError(f"{source}: {NOT_FETCHED if is_address(source) else 'no such video file'}")
    try:
        capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    except cv2.error as error:
        raise ImageError(f"{_name(source)}: cannot be opened ({error.err})") from None
    if not capture.isOpened():
        capture.release()
        remedy = "is it plugged in and free?" if isinstance(source, int) else "damaged, or no video"
        raise ImageError(f"{_name(source)}: cannot be opened; {remedy}")
    return capture


def _next(capture: cv2.VideoCapture) -> np.ndarray | None:
    try:
        return capture.read()[1]
    except cv2.error:
        return None


def _name(source: Path | int) -> str:
    return f"camera {source}" if isinstance(source, int) else str(source)
