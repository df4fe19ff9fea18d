"""A result as pictures: on the screen, in a file, one cut out for each person."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fastpose.errors import OutputError
from fastpose.files import make_folder, write_atomic
from fastpose.infer.results import write_png

if TYPE_CHECKING:
    from fastpose.infer.result import Result
    from fastpose.infer.segmentation_result import SegmentationResult

FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
REMEDY = "save the picture with .save(path) and open the file"


def save_picture(result: Result | SegmentationResult, path: Path, drawn: np.ndarray) -> Path:
    """See `Result.save`."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: name a picture of the kinds {', '.join(FORMATS)}")
    if result.path is not None and path.resolve() == result.path.resolve():
        raise OutputError(f"{path}: is the picture that was read; choose another name")
    data = cv2.imencode(path.suffix.lower(), drawn)[1].tobytes()
    make_folder(path.parent)
    write_atomic(path, lambda temporary: temporary.write_bytes(data))
    return path


def save_crops(result: Result, folder: Path) -> list[Path]:
    """See `Result.save_crop`."""
    if not len(result):
        return []
    make_folder(folder)
    image = result.image
    paths = []
    for person, box in enumerate(result.boxes.xyxy):
        left, top, right, bottom = _inside(box, result.orig_shape)
        paths.append(folder / f"{result.stem}_{person}.png")
        write_png(paths[-1], image[top:bottom, left:right])
    return paths


def _inside(box: np.ndarray, shape: tuple[int, int]) -> list[int]:
    """Whole pixels of the picture that the box covers, at least one each way."""
    height, width = shape
    first = np.clip(np.floor(box[:2]), 0, (width - 1, height - 1)).astype(int)
    last = np.clip(np.ceil(box[2:]), first + 1, (width, height)).astype(int)
    return [*first.tolist(), *last.tolist()]


def show_picture(image: np.ndarray, title: str) -> None:
    """Shows a BGR picture in a notebook, else in the desktop's viewer; OutputError where there is neither."""
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(data=cv2.imencode(".png", image)[1].tobytes()))
        return
    desktop = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not desktop:
        raise OutputError(f"{title}: there is no display to show it on; {REMEDY}")
    try:
        from PIL import Image as Picture
        from PIL import ImageShow
    except ImportError as error:
        raise OutputError(
            f"{title}: showing pictures needs Pillow (pip install pillow); or {REMEDY}"
        ) from error
    if not ImageShow.show(Picture.fromarray(np.ascontiguousarray(image[..., ::-1])), title):
        raise OutputError(f"{title}: no program to show pictures was found; {REMEDY}")
