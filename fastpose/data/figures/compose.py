"""Composition: who stands where, turned how, before what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastpose.data.figures.figure import LEGWEAR, Clothes, Figure, build_figures
from fastpose.data.figures.poses import JOINTS, POSE_NUMBERS, sample_angles
from fastpose.data.figures.props import Prop, make_prop
from fastpose.data.figures.scene import Scene, label_figures, paint_mask
from fastpose.data.figures.shapes import View
from fastpose.data.figures.skeleton import BODY_NUMBERS, Bodies, build_bodies
from fastpose.data.figures.style import FigureStyle

_CHOICES = (
    "facing", "side", "yaw", "lying", "roll", "size", "distance", "cut", "close", "slot", "shift", "level",
    "sleeves", "legwear", "hair",
)  # fmt: skip
"""What one uniform number per person each decides, after those of pose and body."""
_FIRST = POSE_NUMBERS + BODY_NUMBERS
_SIZE, _SLOT = _FIRST + _CHOICES.index("size"), _FIRST + _CHOICES.index("slot")
Choices = dict[str, np.ndarray]  # (N,) each


def compose_scene(
    seed: int, index: int, *, image_size: tuple[int, int] = (256, 256), style: FigureStyle | None = None
) -> Scene:
    """Everything about picture `index` but its colours; depends on the arguments only.

    image_size is (width, height). Joints, boxes and areas are those of the picture that `render` draws.
    """
    return compose_scenes(seed, range(index, index + 1), image_size=image_size, style=style)[0]


def compose_scenes(
    seed: int,
    indices: Sequence[int],
    *,
    image_size: tuple[int, int] = (256, 256),
    style: FigureStyle | None = None,
) -> list[Scene]:
    """`compose_scene` for many pictures, several times faster: all their bodies are computed at once."""
    style = style or FigureStyle()
    draws = [_draw(seed, index, style) for index in indices]
    u = np.concatenate([draw.u for draw in draws])
    pose, body, other = np.split(u, [POSE_NUMBERS, _FIRST], axis=1)
    choices = dict(zip(_CHOICES, other.T, strict=True))
    counts = np.array([len(draw.u) for draw in draws])
    people, tilt = np.repeat(counts, counts), np.repeat([draw.tilt for draw in draws], counts)
    nearest = np.zeros(len(people), dtype=bool)
    nearest[np.cumsum(counts) - 1] = True
    angles = sample_angles(pose)
    angles[:, JOINTS.index("root")] = _root_angles(choices, style, tilt)
    bodies = build_bodies(angles, body)
    view = _place(bodies, choices, people, nearest, image_size, style)
    figures = build_figures(bodies, view, _clothes(choices))
    scenes, first = [], 0
    for index, draw in zip(indices, draws, strict=True):
        rows = slice(first, first + len(draw.u))
        first = rows.stop
        own = figures[rows]
        props = _props(draw.rng, own, image_size) if style.occluders and draw.rng.random() < 0.35 else []
        mask = paint_mask(own, props, image_size)
        label_figures(own, mask)
        place = (bodies.rows(rows), view.rows(rows))
        scenes.append(Scene(seed, index, style, image_size, own, props, mask, *place))
    return scenes


class _Draw(NamedTuple):
    rng: np.random.Generator
    tilt: float  # of the camera, degrees
    u: np.ndarray  # (P, numbers) uniform, one row per person


def _draw(seed: int, index: int, style: FigureStyle) -> _Draw:
    """The random numbers of one picture. Sizes ascend from row to row, and slots become a permutation."""
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    people = int(rng.integers(style.people[0], style.people[1] + 1))
    tilt = float(rng.uniform(-4, 18))
    u = rng.random((people, POSE_NUMBERS + BODY_NUMBERS + len(_CHOICES)))
    u[:, _SIZE] = np.sort(u[:, _SIZE])
    u[:, _SLOT] = np.argsort(u[:, _SLOT])
    return _Draw(rng, tilt, u)


def _clothes(u: Choices) -> list[Clothes]:
    legwear = np.searchsorted([0.6, 0.82], u["legwear"]).tolist()
    choices = zip((u["sleeves"] < 0.5).tolist(), legwear, (u["hair"] < 0.35).tolist(), strict=True)
    return [Clothes(sleeves, LEGWEAR[legs], hair) for sleeves, legs, hair in choices]


def _root_angles(u: Choices, style: FigureStyle, tilt: np.ndarray) -> np.ndarray:
    """(P, 3) degrees: tilt of the camera, roll, yaw (0 faces the viewer)."""
    share = np.cumsum(style.facing) / sum(style.facing)
    kind = np.searchsorted(share[:2], u["facing"], side="right")
    sign = np.where(u["side"] < 0.5, -1.0, 1.0)
    yaw = np.choose(kind, [55 * u["yaw"], 55 + 70 * u["yaw"], 125 + 55 * u["yaw"]]) * sign
    roll = np.where(u["lying"] < style.lying, sign * (70 + 40 * u["roll"]), 10 * u["roll"] - 5)
    return np.stack([tilt, roll, yaw], axis=1)


def _place(
    bodies: Bodies,
    u: Choices,
    people: np.ndarray,
    nearest: np.ndarray,
    image_size: tuple[int, int],
    style: FigureStyle,
) -> View:
    """Cameras that set the figures of each picture side by side on a floor, larger ones lower.

    people: (N,) how many share the person's picture; nearest: (N,) bool, the one who may be a close-up.
    """
    width, height = image_size
    most = min(height, 1.3 * width) * 0.95 / (1 + 0.16 * (people - 1))
    size = most * (0.55 + 0.45 * u["size"])  # pixels of a standing person
    view = View(3.0 + 6.0 * u["distance"], size / 1.75, np.zeros((len(people), 2)))
    flat = view.project(bodies.points)
    margin = 0.09 * view.scale[:, None]
    low, high = flat.min(axis=1) - margin, flat.max(axis=1) + margin
    cut = u["cut"] < style.truncation
    # Of those to be cut, close-ups lose their legs and the others stand half outside at a side.
    close = cut & nearest & (u["close"] < 0.6)
    fit = np.minimum(1.0, 0.96 * np.array(image_size) / (high - low)).min(axis=1)
    tall = np.maximum(high[:, 1] - low[:, 1], 0.6 * size)
    fit = np.where(close, (1.15 + u["close"]) * height / tall, fit)
    view.scale *= fit
    low, high = low * fit[:, None], high * fit[:, None]

    x = width * (u["slot"] + 0.5 + 0.7 * (u["shift"] - 0.5)) / people - (low + high)[:, 0] / 2
    floor = height * (0.70 + 0.28 * size / most) + 0.03 * height * (u["level"] - 0.5)
    y = np.where(close, height * (0.03 + 0.15 * u["level"]) - low[:, 1], floor - high[:, 1])
    inside = np.array(image_size) - 2 - high
    y = np.where(close, y, np.clip(y, 2 - low[:, 1], inside[:, 1]))
    out = (0.15 + 0.35 * u["level"]) * (high - low)[:, 0]
    edge = np.where(u["shift"] < 0.5, -low[:, 0] - out, width - high[:, 0] + out)
    fitted = np.clip(x, np.minimum(2 - low[:, 0], inside[:, 0]), inside[:, 0])
    x = np.where(cut, np.where(close, x, edge), fitted)
    view.origin = np.stack([x, y], axis=1)
    return view


def _props(rng: np.random.Generator, figures: list[Figure], image_size: tuple[int, int]) -> list[Prop]:
    props = []
    for _ in range(1 + int(rng.random() < 0.3)):
        target = int(rng.integers(len(figures)))
        xy = figures[target].landmarks
        bounds = (*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())
        props.append(make_prop(rng, bounds, *image_size, target + 1))
    return sorted(props, key=lambda prop: prop.after)
