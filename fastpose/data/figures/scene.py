"""A composed picture before it is drawn: its masks, and labels that are true to what will be seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fastpose.data.figures.figure import Figure
from fastpose.data.figures.props import Prop
from fastpose.data.figures.shapes import FIXED_POINT, PART, PARTS, View
from fastpose.data.figures.skeleton import LANDMARKS, Bodies
from fastpose.data.figures.style import FigureStyle

MIN_SEEN_JOINTS = 5
"""A person with fewer of COCO's joints in sight has no joint labelled: annotators leave such people."""


@dataclass
class Scene:
    """One picture: who is where. `render` adds colours, which follow from seed and index too."""

    seed: int
    index: int
    style: FigureStyle
    image_size: tuple[int, int]  # width, height
    figures: list[Figure]  # far to near
    props: list[Prop]
    mask: np.ndarray  # (H, W) uint8: 0 background or prop, else 1 + 16 * figure + part - 1
    bodies: Bodies
    view: View

    def part_mask(self) -> np.ndarray:
        """(H, W) uint8 index into PARTS."""
        return cv2.LUT(self.mask, _TO_PART)

    def instance_mask(self) -> np.ndarray:
        """(H, W) uint8: 0 background, i + 1 for figure i."""
        return cv2.LUT(self.mask, _TO_INSTANCE)


_VALUES = np.arange(256)
_TO_PART = np.where(_VALUES > 0, (_VALUES - 1) % 16 + 1, 0).astype(np.uint8)
_TO_INSTANCE = np.where(_VALUES > 0, (_VALUES - 1) // 16 + 1, 0).astype(np.uint8)


def _shows_table() -> np.ndarray:
    """(21, 17) bool: seeing this part at the joint's pixel means seeing the joint."""
    table = np.zeros((len(LANDMARKS), len(PARTS)), dtype=bool)
    around = {
        "shoulder": ("upper_arm", "torso"), "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"),
        "hip": ("thigh", "pelvis", "torso"), "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
        "pelvis": ("pelvis", "torso", "left_thigh", "right_thigh"), "thorax": ("torso", "neck"),
        "neck": ("neck", "head"),
    }  # fmt: skip
    for k, name in enumerate(LANDMARKS):
        side, _, joint = name.rpartition("_") if name.startswith(("left", "right")) else ("", "", name)
        for part in around.get(joint, ("head",)):
            table[k, PART.get(f"{side}_{part}", PART.get(part, 0))] = True
    return table


_SHOWS = _shows_table()


def paint_mask(figures: list[Figure], props: list[Prop], image_size: tuple[int, int]) -> np.ndarray:
    """The mask of a Scene: every shape and prop in painter's order."""
    mask = np.zeros((image_size[1], image_size[0]), dtype=np.uint8)
    for i, figure in enumerate(figures):
        first = 16 * i
        for shape in figure.shapes:
            cv2.fillConvexPoly(mask, shape.outline, first + shape.part, cv2.LINE_8, FIXED_POINT)
        for prop in props:
            if prop.after == i + 1:
                for outline in prop.outlines:
                    cv2.fillConvexPoly(mask, outline, 0, cv2.LINE_8, FIXED_POINT)
    return mask


def label_figures(figures: list[Figure], mask: np.ndarray) -> None:
    """Fill in visibility, box and area from what is left of each figure in the mask."""
    height, width = mask.shape
    xy = np.rint([figure.landmarks for figure in figures]).astype(np.int64)
    x, y = xy[..., 0], xy[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    value = mask[np.where(inside, y, 0), np.where(inside, x, 0)]
    own = np.where(_TO_INSTANCE[value] == np.arange(1, len(figures) + 1)[:, None], _TO_PART[value], 0)
    turned_away = np.stack([figure.turned_away for figure in figures])
    seen = inside & _SHOWS[np.arange(len(LANDMARKS)), own] & ~turned_away
    visibility = np.where(seen, 2, np.where(inside, 1, 0))
    labelled = seen[:, :17].sum(axis=1) >= MIN_SEEN_JOINTS
    for i, figure in enumerate(figures):
        pixels = cv2.inRange(mask, 1 + 16 * i, 16 + 16 * i)
        figure.area = cv2.countNonZero(pixels)
        if figure.area:
            x0, y0, wide, high = cv2.boundingRect(pixels)
            figure.box = (x0, y0, wide, high)
        if labelled[i]:
            figure.visibility = visibility[i]
