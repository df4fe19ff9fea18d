"""From a picture and boxes to everything that the page shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from fastpose.app.heatmaps import Heatmaps, draw_heatmaps, person_heatmaps
from fastpose.app.pictures import Opened, shrink
from fastpose.errors import DataError
from fastpose.infer.draw import draw_poses
from fastpose.infer.predictor import Predictor
from fastpose.infer.result import Result

MAX_PEOPLE = 32
COLUMNS = {"x": 1, "y": 1, "score": 2}
"""Of the table, and their decimals."""

STAGES = {"read": "reading", "crop": "cropping", "forward": "network", "heatmaps": "heatmaps"}


@dataclass
class Answer:
    """A `Result` and what is needed to draw it again: `picture` (h, w, 3) uint8 BGR, `factor` times the size
    of the original, and the heatmaps, None for a network without any."""

    result: Result
    picture: np.ndarray
    factor: float
    heatmaps: Heatmaps | None


def find_joints(predictor: Predictor, opened: Opened, boxes: Any) -> Answer:
    """Runs the network on the people in boxes, a list of [x, y, width, height] in pixels of the picture; on
    the whole picture where the list is empty.

    Raises ImageError where the picture cannot be read, DataError for more than MAX_PEOPLE boxes, for what are
    no boxes, and where none of them can be used.
    """
    rows = check_boxes(boxes)
    start = time.perf_counter()
    image = opened.load()
    read = (time.perf_counter() - start) * 1e3
    (result,) = predictor(image, rows or None)
    if not len(result):
        raise DataError(f"no box can be used: {'; '.join(result.skipped)}; draw another around a person")
    start = time.perf_counter()
    heatmaps = person_heatmaps(predictor, image, result.boxes.xywh)
    spent = (time.perf_counter() - start) * 1e3
    speed = {**result.speed, "read": read, "heatmaps": spent}
    picture = shrink(image)
    factor = max(picture.shape[:2]) / max(image.shape[:2])
    return Answer(replace(result, name=opened.name, speed=speed, pixels=None), picture, factor, heatmaps)


def check_boxes(boxes: Any) -> list[Any]:
    """The boxes as a list of at most MAX_PEOPLE; DataError for anything else. Their numbers are the
    predictor's to judge."""
    if boxes in (None, ""):
        return []
    if not isinstance(boxes, list):
        raise DataError(f"boxes: expected a list of [x, y, width, height], got {type(boxes).__name__}")
    if len(boxes) > MAX_PEOPLE:
        raise DataError(f"{len(boxes)} boxes; at most {MAX_PEOPLE} at a time, remove some")
    return boxes


def draw_skeletons(answer: Answer, threshold: float = 0.2) -> np.ndarray:
    """The picture with its people, (h, w, 3) uint8 RGB; joints below the threshold are left out."""
    result, factor = answer.result, answer.factor
    framed = result.found_by != "whole"
    drawn = draw_poses(
        answer.picture,
        (result.keypoints.xy + 0.5) * factor - 0.5,
        result.keypoints.conf,
        result.keypoint_set,
        boxes=result.boxes.xywh * factor if framed else None,
        person_score=[row["score"] for row in result.summary()] if framed else None,
        threshold=threshold,
    )
    return np.ascontiguousarray(drawn[..., ::-1])


def draw_maps(answer: Answer, joint: int | None = None, person: int | None = None) -> np.ndarray | None:
    """The heatmaps over the picture, (h, w, 3) uint8 RGB; None for a network without any. joint, person: one
    of them, None for all; DataError for one that is not there."""
    if answer.heatmaps is None:
        return None
    people, joints = answer.heatmaps.maps.shape[:2]
    for name, chosen, count in (("joint", joint, joints), ("person", person, people)):
        if chosen is not None and not 0 <= chosen < count:
            raise DataError(f"{name} {chosen}: there are {count}; choose another")
    drawn = draw_heatmaps(answer.picture, answer.heatmaps, answer.factor, joint=joint, person=person)
    return np.ascontiguousarray(drawn[..., ::-1])


def headline(answer: Answer, device: str) -> str:
    """How many people and how long it took, and the boxes that were left out."""
    result = answer.result
    count = len(result)
    spent = ", ".join(f"{STAGES[name]} {result.speed[name]:.0f}" for name in STAGES if name in result.speed)
    people = "The whole picture as one person" if result.found_by == "whole" else f"{count} people"
    people = "1 person" if people == "1 people" else people
    total = sum(result.speed.values())
    told = [f"{people} in {total:.0f} ms on {device} ({spent})."]
    return " ".join([*told, *(f"Left out: {line}." for line in result.skipped)])


def joint_table(answer: Answer) -> str:
    """HTML of a table of every person's joints in pixels of the picture, absent ones as a dash."""
    rows = []
    for number, person in enumerate(answer.result.summary(), 1):
        for name, joint in person["keypoints"].items():
            cells = [f"{joint[key]:.{digits}f}" if joint else "-" for key, digits in COLUMNS.items()]
            texts = [str(number), name.replace("_", " "), *cells]
            rows.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("person", "joint", *COLUMNS))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
