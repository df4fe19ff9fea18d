"""What happens when somebody chooses a picture or presses a button, apart from how the page is drawn."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fastpose.app.answer import Answer, draw_maps, draw_skeletons, find_joints, headline, joint_table
from fastpose.app.pictures import Opened, open_file, samples, shrink
from fastpose.errors import DataError, FastposeError
from fastpose.infer.detectors import Detector, call_detector
from fastpose.infer.predictor import Predictor

logger = logging.getLogger(__name__)

KEEP: Any = object()
"""What a `View` does not change."""

EVERYONE = "everyone"
ALL_JOINTS = "all joints"
NO_PICTURE = "there is no picture yet; choose a file or a sample first"
FORGOTTEN = "the last result is no longer kept; press Find joints again"
BROKEN = "fastpose failed on this; the terminal that runs the page says why. The page goes on working"
NO_MEMORY = "there was not enough memory for this; use a smaller picture or fewer boxes"


@dataclass
class View:
    """What to show from now on, as values of the page's parts; KEEP leaves one as it is.

    `preview` is what boxes are drawn on: a JPEG as data, and the original's width and height; `skeletons` and
    `maps` are (h, w, 3) uint8 RGB or None; `status`, `joints` and `save` are HTML; `people` are the choices
    of whose heatmaps to see.
    """

    opened: Any = KEEP
    answer: Any = KEEP
    preview: Any = KEEP
    boxes: Any = KEEP
    status: Any = KEEP
    skeletons: Any = KEEP
    maps: Any = KEEP
    joints: Any = KEEP
    save: Any = KEEP
    people: Any = KEEP


class Desk:
    """The predictor and the detector behind a page; its methods are what the page's events call.

    predictor: one whose detector is 'whole'. detector, detector_name: of the button that looks for people.
    Bad input becomes a view with a message; nothing is raised.
    """

    def __init__(self, predictor: Predictor, detector: Detector, detector_name: str) -> None:
        self.predictor = predictor
        self.detector, self.detector_name = detector, detector_name

    @property
    def joint_names(self) -> list[str]:
        return [name.replace("_", " ") for name in self.predictor.keypoints.names]

    def warm_up(self) -> None:
        """Runs the network once, so that the first visitor does not wait for what happens only once."""
        self.find_joints(samples()[0], [])

    def open_file(self, path: str | None) -> View:
        """Shows a file of the visitor, with no boxes yet."""
        return guarded(self._open_file, path)

    def open_sample(self, index: Any) -> View:
        """Shows a sample and finds its joints at once."""
        return guarded(self._open_sample, index)

    def find_joints(self, opened: Opened | None, boxes: Any, threshold: float = 0.2) -> View:
        """Runs the network on the boxes, or on the whole picture where there is none."""
        return guarded(self._find_joints, opened, boxes, threshold)

    def find_people(self, opened: Opened | None) -> View:
        """Puts the detector's boxes in the place of those that are there."""
        return guarded(self._find_people, opened)

    def draw_skeletons(self, answer: Answer | None, threshold: float) -> View:
        """Draws the last result once more."""
        return guarded(lambda: View(skeletons=draw_skeletons(_there(answer), float(threshold))))

    def draw_maps(self, answer: Answer | None, joint: Any, person: Any) -> View:
        """Draws the heatmaps of one joint or all, of one person or everyone."""
        return guarded(self._draw_maps, answer, joint, person)

    def _open_file(self, path: str | None) -> View:
        if not path:
            raise DataError(NO_PICTURE)
        opened, pixels = open_file(Path(path))
        width, height = opened.size
        told = (
            f"{opened.name}, {width}x{height}. Draw a box around each person, or press Find joints to take "
            "the whole picture as one."
        )
        return _fresh(opened, pixels, told)

    def _open_sample(self, index: Any) -> View:
        known = samples()
        if not isinstance(index, int) or not 0 <= index < len(known):
            raise DataError(f"sample {str(index)[:40]}: there are {len(known)}; choose one of them")
        view = _fresh(known[index], known[index].load(), "")
        found = self._find_joints(known[index], known[index].boxes)
        found.opened, found.preview, found.boxes = view.opened, view.preview, view.boxes
        return found

    def _find_joints(self, opened: Opened | None, boxes: Any, threshold: float = 0.2) -> View:
        if opened is None:
            raise DataError(NO_PICTURE)
        answer = find_joints(self.predictor, opened, boxes)
        people = [EVERYONE, *(f"person {number + 1}" for number in range(len(answer.result)))]
        return View(
            answer=answer,
            status=note(headline(answer, str(self.predictor.device))),
            skeletons=draw_skeletons(answer, threshold),
            maps=draw_maps(answer),
            joints=joint_table(answer),
            save=json_link(answer),
            people=people,
        )

    def _find_people(self, opened: Opened | None) -> View:
        if opened is None:
            raise DataError(NO_PICTURE)
        found = call_detector(self.detector, self.detector_name, opened.load())
        if not len(found.boxes):
            raise DataError(
                f"the detector ({self.detector_name}) finds nobody in {opened.name}; draw boxes by hand"
            )
        told = (
            f"{len(found.boxes)} boxes by the detector ({self.detector_name}). Correct them, then find joints"
        )
        return View(boxes=found.boxes.round(1).tolist(), status=note(told))

    def _draw_maps(self, answer: Answer | None, joint: Any, person: Any) -> View:
        names = self.joint_names
        chosen = names.index(joint) if joint in names else None
        number = str(person).removeprefix("person ")
        row = int(number) - 1 if number.isascii() and number.isdecimal() and len(number) < 4 else None
        return View(maps=draw_maps(_there(answer), chosen, row))


def guarded(handler: Callable[..., View], *values: Any) -> View:
    """The handler's view, or one with a message that a person understands."""
    try:
        return handler(*values)
    except FastposeError as error:
        return View(status=note(str(error), bad=True))
    except (MemoryError, torch.OutOfMemoryError):
        logger.exception("the page ran out of memory")
        return View(status=note(NO_MEMORY, bad=True))
    except Exception:  # one visitor's picture must not end the page for the others
        logger.exception("the page failed")
        return View(status=note(BROKEN, bad=True))


def note(text: str, *, bad: bool = False) -> str:
    """A line of HTML that screen readers speak."""
    text = text if text.endswith(".") else f"{text}."
    kind = 'class="error" role="alert"' if bad else 'role="status"'
    return f"<p {kind}>{escape(text)}</p>"


def json_link(answer: Answer) -> str:
    """HTML of a link that saves `Result.to_json()`; the file travels in the page itself."""
    data = base64.b64encode(answer.result.to_json().encode()).decode()
    name = escape(f"{Path(answer.result.name).stem}_pose.json", quote=True)
    return (
        f'<a class="download" download="{name}" href="data:application/json;base64,{data}">Download JSON</a>'
    )


def data_uri(image: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 BGR as the address of a JPEG that holds it."""
    data = cv2.imencode(".jpg", image)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _fresh(opened: Opened, pixels: np.ndarray, told: str) -> View:
    """A new picture, and nothing found in it yet."""
    width, height = opened.size
    preview = {"src": data_uri(shrink(pixels)), "width": width, "height": height}
    return View(
        opened, None, preview, opened.boxes, note(told or opened.name), None, None, "", "", [EVERYONE]
    )


def _there(answer: Answer | None) -> Answer:
    if answer is None:
        raise DataError(FORGOTTEN)
    return answer
