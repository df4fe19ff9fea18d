"""Things that stand before people: poles, boxes, plants, rails. Outlines only; the renderer colours them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastpose.data.figures.shapes import fixed

KINDS = ("pole", "box", "plant", "rail")


class Prop(NamedTuple):
    """One occluder."""

    kind: str
    outlines: list[np.ndarray]  # convex, fixed-point pixels
    after: int  # drawn after this many figures


def make_prop(
    rng: np.random.Generator, bounds: tuple[float, float, float, float], width: int, height: int, after: int
) -> Prop:
    """An occluder in a picture of width x height, hiding a minor share of the figure with these bounds.

    bounds: x0, y0, x1, y1 in pixels. after: how many figures stand behind it.
    """
    kind = KINDS[int(rng.integers(len(KINDS)))]
    x0, y0, x1, y1 = bounds
    wide, high = max(x1 - x0, 8.0), max(y1 - y0, 8.0)
    a, b, c = rng.random(3).tolist()
    x = x0 + wide * (0.15 + 0.7 * a)
    if kind == "pole":
        half, lean = (0.02 + 0.035 * b) * high, (c - 0.5) * 0.15 * high
        outlines = [_trapezium((x + lean, half, -4), (x, half, height + 4))]
    elif kind == "box":
        half, top = wide * (0.25 + 0.45 * b), y1 - high * (0.08 + 0.27 * c)
        lid = _trapezium((x, 0.85 * half, top - 0.05 * high), (x, half, top))
        outlines = [lid, _trapezium((x, half, top), (x, half, y1 + 0.06 * high))]
    elif kind == "rail":
        half, level = (0.01 + 0.015 * c) * high, y1 - high * (0.12 + 0.38 * b)
        middle, reach = width / 2, width / 2 + 4
        levels = (level, level + 0.14 * high)
        outlines = [_trapezium((middle, reach, y - half), (middle, reach, y + half)) for y in levels]
    else:
        outlines = _leaves(rng, x, y1, high * (0.18 + 0.22 * b))
    return Prop(kind, outlines, after)


def _trapezium(upper: tuple[float, float, float], lower: tuple[float, float, float]) -> np.ndarray:
    """Between two level edges, each (middle x, half width, y)."""
    (xu, hu, yu), (xl, hl, yl) = upper, lower
    return fixed(np.array([[xu - hu, yu], [xu + hu, yu], [xl + hl, yl], [xl - hl, yl]]))


def _leaves(rng: np.random.Generator, x: float, ground: float, size: float) -> list[np.ndarray]:
    """A fan of pointed leaves growing from (x, ground)."""
    count = int(rng.integers(7, 13))
    angle = np.deg2rad(rng.uniform(-75, 75, count))
    length = size * rng.uniform(0.6, 1.1, count)
    along = np.stack([np.sin(angle), -np.cos(angle)], axis=-1)
    half = length * rng.uniform(0.10, 0.2, count)
    across = np.stack([-along[:, 1], along[:, 0]], axis=-1) * half[:, None]
    root = np.array([x, ground + 0.05 * size])
    tip = root + along * length[:, None]
    belly = root + along * (0.55 * length)[:, None]
    return [fixed(np.stack([root, belly[i] + across[i], tip[i], belly[i] - across[i]])) for i in range(count)]
