"""Drawing: colours and light for a composed scene."""

from __future__ import annotations

import cv2
import numpy as np

from fastpose.data.figures.background import draw_background, random_colour, shade
from fastpose.data.figures.details import Look, Patch, face_patches, random_look, trunk_patches
from fastpose.data.figures.props import Prop
from fastpose.data.figures.scene import Scene
from fastpose.data.figures.shapes import FIXED_POINT, PART, SKIN, Shape

_COLOURS = np.array([0, 0, 0, 1], dtype=np.uint64)  # far from the numbers that the composition uses
_HALF = 1 << (FIXED_POINT - 1)
Patches = dict[str, list[Patch]]
"""What is drawn onto a figure's shapes, by their `details`."""


def render(scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8 BGR picture of a scene, the same for the same scene on every machine.

    Colours are drawn at twice the size and averaged down, which smooths every edge; light is a second layer
    at picture size, blurred and multiplied in.
    """
    rng, looks, patches = dress(scene)
    background = draw_background(rng, scene.image_size, float(rng.uniform(0.4, 0.7)))
    width, height = scene.image_size
    canvas = cv2.resize(background, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    light = _floor_shadows(scene)
    for i, figure in enumerate(scene.figures):
        for shape in figure.shapes:
            fill(canvas, shape.outline, _colour(shape, looks[i]))
            _light_shape(light, shape.outline, shape.core)
            for outline, colour in patches[i].get(shape.details, []):
                fill(canvas, outline, colour)
        for prop in scene.props:
            if prop.after == i + 1:
                _draw_prop(rng, canvas, light, prop)
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return _apply_light(picture, light, rng, float(scene.view.scale.mean()), scene.style.noise)


def dress(scene: Scene) -> tuple[np.random.Generator, list[Look], list[Patches]]:
    """Looks and patches of a scene's figures, and the generator whose next numbers colour the rest."""
    key = np.array([scene.seed, scene.index], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key, counter=_COLOURS))
    looks = [random_look(rng) for _ in scene.figures]
    faces = face_patches(scene.bodies, scene.view, looks)
    trunks = trunk_patches(scene.bodies, scene.view, looks)
    return rng, looks, [{"face": f, "torso": t} for f, t in zip(faces, trunks, strict=True)]


def fill(canvas: np.ndarray, outline: np.ndarray, colour: int | tuple[int, int, int]) -> None:
    """Fills a convex outline (fixed-point pixels of the picture) on a canvas of twice the picture's size."""
    ink = (colour,) if isinstance(colour, int) else colour
    cv2.fillConvexPoly(canvas, outline * 2 + _HALF, ink, cv2.LINE_8, FIXED_POINT)


def _colour(shape: Shape, look: Look) -> tuple[int, int, int]:
    colour = look.colours[shape.colour]
    return shade(colour, 0.88) if shape.part == PART["head"] and shape.colour == SKIN else colour


def _light_shape(light: np.ndarray, outline: np.ndarray, core: np.ndarray | None) -> None:
    if core is None:
        middle = outline.mean(axis=0)
        core = np.rint(middle + 0.6 * (outline - middle)).astype(np.int32)
    cv2.fillConvexPoly(light, outline, 106, cv2.LINE_8, FIXED_POINT)
    cv2.fillConvexPoly(light, core, 140, cv2.LINE_8, FIXED_POINT)


def _floor_shadows(scene: Scene) -> np.ndarray:
    """The layer of light, 128 where nothing changes, with a soft pool of shadow under each figure."""
    width, height = scene.image_size
    light = np.full((height, width), 128, dtype=np.uint8)
    for figure, scale in zip(scene.figures, scene.view.scale.tolist(), strict=True):
        x, y = figure.landmarks.mean(axis=0)[0], figure.landmarks[:, 1].max()
        axes = (max(1, int(0.38 * scale)), max(1, int(0.09 * scale)))
        cv2.ellipse(light, (int(x), int(y + 0.04 * scale)), axes, 0, 0, 360, 88, -1)
    return light


def _draw_prop(rng: np.random.Generator, canvas: np.ndarray, light: np.ndarray, prop: Prop) -> None:
    if prop.kind == "plant":
        base = random_colour(rng, saturation=(0.3, 0.8), value=(0.2, 0.6))
        base = (base[0] // 2, max(base), base[2] // 2 + 20)
    else:
        base = random_colour(rng, saturation=(0.0, 0.7), value=(0.2, 0.9))
    for i, outline in enumerate(prop.outlines):
        fill(canvas, outline, shade(base, 1.15 - 0.12 * (i % 4)))
        cv2.fillConvexPoly(light, outline, 122, cv2.LINE_8, FIXED_POINT)


def _apply_light(
    picture: np.ndarray, light: np.ndarray, rng: np.random.Generator, scale: float, noise: float
) -> np.ndarray:
    """Blur the light so that limbs look round, lean it to one side, add grain, multiply it in."""
    size = max(3, int(0.075 * scale) | 1)
    light = cv2.GaussianBlur(light, (size, size), 0)
    side = 2 if rng.random() < 0.5 else -2
    shifted = np.roll(light, (2, side), axis=(0, 1))
    light = cv2.addWeighted(light, 1.6, shifted, -0.6, 0)
    spread = round(noise * 1.28)
    if spread:
        grain = rng.integers(0, 2 * spread + 1, light.shape, dtype=np.uint8)
        light = cv2.addWeighted(light, 1, grain, 1, -spread)
    return cv2.multiply(picture, cv2.cvtColor(light, cv2.COLOR_GRAY2BGR), scale=1 / 128)
