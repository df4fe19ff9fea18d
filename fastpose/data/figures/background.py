"""Backgrounds: outdoor and indoor views, textures and gradients with things that are no people."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

Colour = tuple[int, int, int]


def random_colour(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    """A BGR colour of any hue."""
    h, s, v = rng.random(3).tolist()
    low, high = saturation
    dark, bright = value
    r, g, b = colorsys.hsv_to_rgb(h, low + s * (high - low), dark + v * (bright - dark))
    return round(255 * b), round(255 * g), round(255 * r)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (< 1) or lighter (> 1)."""
    b, g, r = (min(255, round(channel * factor)) for channel in colour)
    return b, g, r


def draw_background(rng: np.random.Generator, image_size: tuple[int, int], horizon: float) -> np.ndarray:
    """(H, W, 3) uint8 BGR; `horizon` is the share of the height at which the floor begins."""
    kind = rng.random()
    if kind < 0.35:
        sky = (235, 200, 160) if rng.random() < 0.6 else (210, 205, 200)
        bright = rng.uniform(0.5, 1.05)
        image = _blotches(rng, image_size, shade(sky, bright), shade((230, 225, 220), bright), 25)
        _outdoors(rng, image, horizon)
    else:
        indoors = kind < 0.7
        top, other = (random_colour(rng, saturation=(0.0, 0.4), value=(0.25, 0.95)) for _ in range(2))
        bottom, unevenness = (shade(top, 0.8), 18) if indoors else (other, 60)
        image = _blotches(rng, image_size, top, bottom, unevenness)
        if indoors:
            _indoors(rng, image, horizon)
        elif kind < 0.85:
            _pattern(rng, image)
    for _ in range(int(rng.integers(0, 5))):
        _clutter(rng, image)
    return image


def _blotches(
    rng: np.random.Generator, image_size: tuple[int, int], top: Colour, bottom: Colour, strength: float
) -> np.ndarray:
    """A vertical gradient between two colours, uneven as cloth, plaster or clouds are."""
    ends = np.array([top, bottom], dtype=np.float32)
    rows, columns = int(rng.integers(4, 14)), int(rng.integers(4, 14))
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    uneven = rng.random((rows, columns, 1), dtype=np.float32) - 0.5
    grid = (1 - t) * ends[0] + t * ends[1] + strength * uneven
    return cv2.resize(np.clip(grid, 0, 255).astype(np.uint8), image_size, interpolation=cv2.INTER_CUBIC)


def _floor(rng: np.random.Generator, image: np.ndarray, level: int, colour: Colour) -> None:
    """A floor that is darker far away, with seams running to a vanishing point."""
    height, width = image.shape[:2]
    ramp = np.array([[shade(colour, 0.75)], [shade(colour, 1.05)]], dtype=np.uint8)
    image[level:] = cv2.resize(ramp, (width, height - level), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        seam, vanishing = shade(colour, 0.72), int(rng.uniform(0, width))
        for x in range(-width, 2 * width, max(8, int(width * rng.uniform(0.12, 0.4)))):
            cv2.line(image, (vanishing + (x - vanishing) // 5, level), (x, height), seam, 1)


def _outdoors(rng: np.random.Generator, image: np.ndarray, horizon: float) -> None:
    height, width = image.shape[:2]
    level = int(horizon * height)
    for _ in range(int(rng.integers(1, 6))):
        x, top = int(rng.uniform(-0.1, 0.9) * width), int(level * rng.uniform(0.1, 0.9))
        wide = int(width * rng.uniform(0.1, 0.35))
        colour = random_colour(rng, saturation=(0.0, 0.4), value=(0.25, 0.8))
        if rng.random() < 0.5:
            _building(rng, image, (x, top, wide, level - top), colour)
        else:
            green = (int(rng.uniform(20, 80)), int(rng.uniform(60, 150)), int(rng.uniform(30, 110)))
            cv2.rectangle(image, (x + wide // 2 - 2, top), (x + wide // 2 + 2, level), (30, 45, 60), -1)
            for dx, dy in rng.uniform(-0.4, 0.4, (5, 2)).tolist():
                center = (int(x + wide * (0.5 + dx)), int(top + wide * dy))
                cv2.circle(image, center, max(3, int(0.32 * wide)), shade(green, 1 + 0.3 * dy), -1)
    ground = random_colour(rng, saturation=(0.0, 0.4), value=(0.3, 0.75))
    _floor(rng, image, level, ground)


def _building(
    rng: np.random.Generator, image: np.ndarray, at: tuple[int, int, int, int], colour: Colour
) -> None:
    x, y, wide, high = at
    cv2.rectangle(image, (x, y), (x + wide, y + high), colour, -1)
    pane, step = shade(colour, rng.uniform(0.5, 1.5)), max(8, wide // 4)
    for left in range(x + step // 3, x + wide - step // 2, step):
        for top in range(y + step // 3, y + high - step // 2, step):
            cv2.rectangle(image, (left, top), (left + step // 2, top + step // 2), pane, -1)


def _indoors(rng: np.random.Generator, image: np.ndarray, horizon: float) -> None:
    height, width = image.shape[:2]
    level = int(horizon * height)
    for _ in range(int(rng.integers(1, 5))):
        wide, high = int(width * rng.uniform(0.1, 0.4)), int(level * rng.uniform(0.2, 0.8))
        x, y = int(rng.uniform(-0.1, 0.9) * width), int(rng.uniform(0.05, 0.6) * level)
        frame = random_colour(rng, saturation=(0.0, 0.5), value=(0.15, 0.9))
        cv2.rectangle(image, (x, y), (x + wide, min(y + high, level)), frame, -1)
        inner = random_colour(rng, saturation=(0.0, 0.5), value=(0.3, 1.0))
        cv2.rectangle(image, (x + 4, y + 4), (x + wide - 4, min(y + high, level) - 4), inner, -1)
        if rng.random() < 0.4:
            cv2.line(image, (x + wide // 2, y), (x + wide // 2, min(y + high, level)), frame, 3)
    floor = random_colour(rng, saturation=(0.0, 0.45), value=(0.25, 0.7))
    _floor(rng, image, level, floor)
    cv2.line(image, (0, level), (width, level), shade(floor, 1.25), 3)


def _pattern(rng: np.random.Generator, image: np.ndarray) -> None:
    """Bars, tiles or coarse noise over the whole picture."""
    height, width = image.shape[:2]
    colour = random_colour(rng, saturation=(0.0, 0.5), value=(0.2, 0.9))
    step = int(rng.uniform(0.05, 0.2) * width) + 6
    thickness = int(rng.integers(1, max(3, step // 2)))
    kind = rng.random()
    if kind < 0.3:
        lean = int(rng.uniform(-0.4, 0.4) * width)
        for x in range(-width, 2 * width, step):
            cv2.line(image, (x, 0), (x + lean, height), colour, thickness)
    elif kind < 0.6:
        for x in range(0, width, step):
            cv2.line(image, (x, 0), (x, height), colour, max(1, thickness // 4))
        for y in range(0, height, step):
            cv2.line(image, (0, y), (width, y), colour, max(1, thickness // 4))
    else:
        coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        grain = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(image, 0.75, grain, 0.25, 0, dst=image)


def _clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """A thing of any colour, some of them as thin and skin-coloured as limbs."""
    height, width = image.shape[:2]
    x, y, a, b = (rng.random(4) * [width, height, 1, 1]).tolist()
    colour = random_colour(rng, saturation=(0.0, 0.6), value=(0.15, 0.95))
    size = 0.04 + 0.16 * a
    kind = rng.random()
    if kind < 0.35:
        corner = (int(x + size * width), int(y + size * height * (0.5 + b)))
        cv2.rectangle(image, (int(x), int(y)), corner, colour, -1)
    elif kind < 0.65:
        axes = (int(size * width * 0.6), int(size * height * (0.3 + 0.4 * b)))
        cv2.ellipse(image, (int(x), int(y)), axes, 180 * b, 0, 360, colour, -1)
    else:
        end = (int(x + (a - 0.5) * width * 0.5), int(y + (b - 0.5) * height * 0.8))
        cv2.line(image, (int(x), int(y)), end, colour, int(rng.integers(2, 12)), cv2.LINE_AA)
