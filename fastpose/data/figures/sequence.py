"""Rendered sequences: moving people whose identity, boxes and joints are known in every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastpose.data.figures.figure import LEGWEAR, Clothes, build_figures
from fastpose.data.figures.motion import Motion, move_people
from fastpose.data.figures.props import Prop, make_prop
from fastpose.data.figures.render import render
from fastpose.data.figures.scene import Scene, label_figures, paint_mask
from fastpose.data.figures.shapes import View
from fastpose.data.figures.skeleton import Bodies, build_bodies
from fastpose.data.figures.style import MAX_PEOPLE, FigureStyle
from fastpose.data.figures.table import FigureImages, landmark_index
from fastpose.errors import DataError
from fastpose.keypoints import COCO_17, KeypointSet

_INDEX = 1 << 40  # as a picture's number it gives colours that no picture of the data set has
_CHUNK = 512  # bodies computed at once


@dataclass(frozen=True)
class FigureSequence:
    """F frames of P people; person i is row i in every frame, which is their identity.

    rate: frames a second. boxes: (F, P, 4) float64 left, top, right, bottom of the pixels in sight, NaN where
    nothing of the person is. joints: (F, P, K, 2) float64 pixels, the true places also of hidden joints and
    of those outside the picture. visible: (F, P, K) int64, 2 in sight, 1 hidden, 0 outside, and 0 for all
    joints of a person almost wholly hidden. Pictures are drawn when asked for.
    """

    rate: float
    boxes: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def times(self) -> np.ndarray:
        """(F,) seconds after the first frame."""
        return np.arange(len(self)) / self.rate

    def picture(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 BGR picture of a frame."""
        return render(self.scenes[frame])

    def pictures(self) -> Iterator[np.ndarray]:
        """All pictures in order, one in memory at a time."""
        return map(render, self.scenes)

    def present(self, frame: int) -> np.ndarray:
        """Who is in sight, as ascending int64 rows."""
        return np.flatnonzero(np.isfinite(self.boxes[frame, :, 0]))


class RenderedSequence(NamedTuple):
    """A sequence as arrays: frames (F, H, W, 3) uint8 BGR; boxes (F, P, 4) and joints (F, P, K, 2) as in
    FigureSequence; ids (P,) int64, whose row is whose."""

    frames: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    ids: np.ndarray


def render_sequence(
    seed: int,
    frames: int,
    people: int,
    *,
    image_size: tuple[int, int] = (320, 240),
    rate: float = 25.0,
    leave: bool = True,
    style: FigureStyle | None = None,
    keypoint_set: KeypointSet = COCO_17,
) -> RenderedSequence:
    """`compose_sequence` of the same arguments, drawn; a long one is better drawn frame by frame."""
    options = {"image_size": image_size, "rate": rate, "leave": leave, "style": style}
    sequence = compose_sequence(seed, frames, people, keypoint_set=keypoint_set, **options)  # type: ignore[arg-type]
    pictures = np.stack(list(sequence.pictures()))
    return RenderedSequence(pictures, sequence.boxes, sequence.joints, np.arange(people))


def compose_sequence(
    seed: int,
    frames: int,
    people: int,
    *,
    image_size: tuple[int, int] = (320, 240),
    rate: float = 25.0,
    leave: bool = True,
    style: FigureStyle | None = None,
    keypoint_set: KeypointSet = COCO_17,
) -> FigureSequence:
    """People who go from one random pose to the next and change places, passing before and behind each other.

    A function of the arguments only; a longer sequence begins with the shorter one, and another rate shows
    the same motion. The camera, the background and its grain stand still.

    image_size: (width, height), 32 to 4096. rate: frames a second. leave: someone walks out of the
    picture, is outside after 2 seconds and back after 4, and so on every 6 seconds. style: its `occluders`
    put a thing in front of everyone, its `noise` is the grain; the rest of it is not used.
    Raises DataError for numbers out of range and for a keypoint set with joints that figures lack.
    """
    style = style or FigureStyle()
    _check(seed, frames, people, image_size, rate)
    landmarks = landmark_index(keypoint_set)
    motion = move_people(seed, people, np.arange(frames) / rate, leave=leave)
    order = np.argsort(motion.traits[:, 0], kind="stable")  # far to near, as scenes are painted
    props = _props(seed, people, image_size) if style.occluders else []
    scenes: list[Scene] = []
    step = max(1, _CHUNK // people)
    for first in range(0, frames, step):
        scenes += _scenes(seed, motion, slice(first, first + step), order, props, image_size, style)
    return _with_truth(rate, scenes, np.argsort(order), landmarks)


def _check(seed: int, frames: int, people: int, image_size: tuple[int, int], rate: float) -> None:
    FigureImages(1, seed, image_size)  # has the limits of seed and size
    if frames < 1:
        raise DataError(f"sequence: frames must be at least 1, got {frames}")
    if not 1 <= people <= MAX_PEOPLE:
        raise DataError(f"sequence: people must be within 1..{MAX_PEOPLE}, got {people}")
    if not 0 < rate < np.inf:
        raise DataError(f"sequence: rate is a number of frames a second above 0, got {rate}")


def _props(seed: int, people: int, image_size: tuple[int, int]) -> list[Prop]:
    """One thing that stands in front of everyone, somewhere in the middle."""
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, _INDEX + people], dtype=np.uint64)))
    width, height = image_size
    bounds = (0.3 * width, 0.2 * height, 0.7 * width, 0.95 * height)
    return [make_prop(rng, bounds, width, height, people)]


def _scenes(
    seed: int,
    motion: Motion,
    frames: slice,
    order: np.ndarray,
    props: list[Prop],
    image_size: tuple[int, int],
    style: FigureStyle,
) -> list[Scene]:
    """The frames of a slice; figures in `order`, the same in every frame, so that colours stay theirs."""
    angles = motion.angles[frames][:, order]
    count, people = angles.shape[:2]
    body, traits = (np.tile(rows[order], (count, 1)) for rows in (motion.body, motion.traits))
    bodies = build_bodies(angles.reshape(count * people, *angles.shape[2:]), body)
    place, away = (rows[frames][:, order].ravel() for rows in (motion.place, motion.away))
    view = _view(bodies, traits, place, away, image_size)
    figures = build_figures(bodies, view, _clothes(traits))
    scenes = []
    for first in range(0, count * people, people):
        rows = slice(first, first + people)
        mask = paint_mask(figures[rows], props, image_size)
        label_figures(figures[rows], mask)
        seen = (bodies.rows(rows), view.rows(rows))
        scenes.append(Scene(seed, _INDEX + people, style, image_size, figures[rows], props, mask, *seen))
    return scenes


def _view(
    bodies: Bodies, traits: np.ndarray, place: np.ndarray, away: np.ndarray, image_size: tuple[int, int]
) -> View:
    """Cameras that put each person's lowest point on the floor; nearer people are larger and stand lower."""
    width, height = image_size
    near = traits[:, 0]
    size = min(height, 1.3 * width) * (0.55 + 0.3 * near)  # pixels of a standing person
    view = View(4.0 + 4.0 * traits[:, 1], size / 1.75, np.zeros((len(place), 2)))
    lowest = view.project(bodies.points)[..., 1].max(axis=1)
    # Nobody reaches further than their height, so that whoever is wholly away is out of sight.
    left, right = -size, width + size
    outside = np.where(away < 0, left, right)
    x = width * place + np.abs(away) * (outside - width * place)
    view.origin = np.stack([x, height * (0.76 + 0.2 * near) - lowest], axis=1)
    return view


def _clothes(traits: np.ndarray) -> list[Clothes]:
    legwear = np.minimum(len(LEGWEAR) * traits[:, 3], len(LEGWEAR) - 1).astype(int)
    choices = zip(
        (traits[:, 1] < 0.5).tolist(), legwear.tolist(), (traits[:, 2] < 0.35).tolist(), strict=True
    )
    return [Clothes(sleeves, LEGWEAR[legs], hair) for sleeves, legs, hair in choices]


def _with_truth(rate: float, scenes: list[Scene], rank: np.ndarray, landmarks: list[int]) -> FigureSequence:
    """rank: (P,) the place of each person among a scene's figures."""
    people = [[scene.figures[place] for place in rank] for scene in scenes]
    corners = np.array([[figure.box for figure in row] for row in people], dtype=np.float64)
    corners[..., 2:] += corners[..., :2]
    corners[[[not figure.area for figure in row] for row in people]] = np.nan
    joints = np.array([[figure.landmarks[landmarks] for figure in row] for row in people])
    visible = np.array([[figure.visibility[landmarks] for figure in row] for row in people])
    return FigureSequence(rate, corners, joints, visible, scenes)
