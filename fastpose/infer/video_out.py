"""What comes out of a video: annotated pictures as a video or as PNGs, and a line of JSON a frame."""

from __future__ import annotations

import colorsys
import contextlib
import logging
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np

from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.files import flush, make_folder
from fastpose.infer.result import Result
from fastpose.infer.results import write_png
from fastpose.infer.text import Color, put_tag

logger = logging.getLogger(__name__)

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
RATES = (0.01, 1000.0)
LEAST_FREE = 1 << 20  # bytes of the disk; cv2 loses frames without a word when there are none


class PictureWriter(Protocol):
    """Takes pictures (H, W, 3) uint8 BGR of one size, one after the other, and is told when they end."""

    def write(self, picture: np.ndarray) -> None: ...
    def close(self) -> None: ...


def open_writer(path: str | Path, rate: float) -> PictureWriter:
    """A VideoWriter for .mp4 and .avi, a PngWriter for a name without extension; ConfigError for others."""
    path = Path(path)
    if path.suffix.lower() in CODECS:
        return VideoWriter(path, rate)
    if not path.suffix:
        return PngWriter(path)
    raise ConfigError(f"{path}: name a video of the kinds {', '.join(CODECS)}, or a folder for PNG files")


class VideoWriter:
    """A video that is there when it is whole: written beside `path`, looked at, then renamed.

    .mp4 has MPEG-4 part 2 pictures, .avi Motion JPEG: what opencv-python writes everywhere. Both need even
    sides, so that an odd one gets its last row or column twice. rate: frames a second, 0.01 to 1000.
    Raises ConfigError for another rate or extension; OutputError where the folder cannot be written to, the
    codec is missing, the disk is full, or the file does not hold every frame in the end.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise ConfigError(f"{path}: a video's name ends in {' or '.join(CODECS)}")
        if not RATES[0] <= rate <= RATES[1]:
            raise ConfigError(f"{path}: frames a second are within {RATES[0]:g}..{RATES[1]:g}, got {rate}")
        make_folder(self.path.parent)
        if self.path.is_dir():
            raise OutputError(f"{path}: is a folder")
        self.rate, self.count = float(rate), 0
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp{suffix}")
        self._codec = CODECS[suffix]
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, picture: np.ndarray) -> None:
        """Appends a picture; DataError for one of another size or kind than the first."""
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise DataError(f"{self.path}: expected uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
        if self._writer is None:
            self._shape = picture.shape
            self._writer = self._open()
        if picture.shape != self._shape:
            sizes = [f"{width}x{height}" for height, width, _ in (self._shape, picture.shape)]
            raise DataError(
                f"{self.path}: frames are {sizes[0]}, got one of {sizes[1]}; a video has one size, so name a "
                "folder, which gets PNG files of any"
            )
        if shutil.disk_usage(self.path.parent).free < LEAST_FREE + picture.nbytes:
            raise OutputError(f"{self.path}: the disk is full after {self.count} frames")
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        self._writer.write(picture)
        self.count += 1

    def close(self) -> None:
        """Gives the video its name; without a picture there is none. OutputError where a frame is missing."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            found = _frame_count(self._temporary)
            if found != self.count:
                raise OutputError(f"{self.path}: holds {found} of {self.count} frames; is the disk full?")
            flush(self._temporary)
            os.replace(self._temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def _open(self) -> cv2.VideoWriter:
        height, width = (side + side % 2 for side in self._shape[:2])
        code = cv2.VideoWriter.fourcc(*self._codec)
        writer = cv2.VideoWriter(str(self._temporary), code, self.rate, (width, height))
        if not writer.isOpened():
            self._temporary.unlink(missing_ok=True)
            other = " or ".join(kind for kind in CODECS if kind != self.path.suffix.lower())
            raise OutputError(
                f"{self.path}: this OpenCV cannot write {self._codec} video of {width}x{height}; "
                f"take {other}, or a folder for PNG files"
            )
        return writer


def _frame_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


class PngWriter:
    """A folder with 000000.png, 000001.png and so on, each there when it is whole."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.count = make_folder(Path(folder)), 0

    def write(self, picture: np.ndarray) -> None:
        """Writes the next file; OutputError where it cannot."""
        write_png(self.folder / f"{self.count:06d}.png", picture)
        self.count += 1

    def close(self) -> None:
        """Nothing: every file is closed."""


class JsonLines:
    """A text file to which `write` adds one JSON object a line, at once, so that it can be followed.

    A kill leaves whole lines, and a full disk too: what did not fit is taken back before the OutputError.
    An older file of the name is emptied.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._failed(error) from error
        self._size = 0

    def write(self, result: Result) -> None:
        """Adds `result.to_json()`."""
        line = (result.to_json() + "\n").encode()
        try:
            done = 0
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise self._failed(error) from error
        self._size += len(line)

    def close(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(self._file)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written: {error.strerror or error}")


def annotate(result: Result, picture: np.ndarray | None = None, *, threshold: float = 0.2) -> np.ndarray:
    """`result.plot`, with each person's number in a colour of its own where they are tracked."""
    canvas = result.plot(picture, threshold=threshold)
    if result.boxes.id is None:
        return canvas
    for number, (left, top, _, bottom) in zip(result.boxes.id.tolist(), result.boxes.xyxy, strict=True):
        height = float(np.clip((bottom - top) / 20, 9, 30))
        put_tag(canvas, f"#{number}", round(left), round(bottom), height, id_color(number))
    return canvas


def id_color(number: int) -> Color:
    """A bright BGR colour for a person's number; neighbours differ by the golden angle of hue."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.65, 0.95)
    return round(255 * blue), round(255 * green), round(255 * red)
