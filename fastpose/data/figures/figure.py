"""Figures: the shapes of each person in painter's order, and the joints with what faces the camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastpose.data.figures.shapes import (
    CIRCLE,
    FIXED_POINT,
    HAIR,
    HAIR_TAIL,
    LIMB_PARTS,
    NECK,
    PART,
    SHIRT,
    SHOES,
    SHORTS,
    SKIN,
    SLEEVE,
    TROUSERS,
    Shape,
    View,
    fixed,
    head_outlines,
    hull,
    limb_outlines,
    trunk_rings,
)
from fastpose.data.figures.skeleton import FACE_DIRECTIONS, LANDMARKS, POINT, Bodies, toward_camera

_HIDDEN = (-0.15, 0.10, 0.10, -0.40, -0.40)
"""Nose, eyes, ears: the cosine to the camera below which they are out of sight."""
LEGWEAR = ("trousers", "shorts", "skirt")


class Clothes(NamedTuple):
    """What changes a figure's outline; colours are chosen when it is drawn."""

    long_sleeves: bool
    legwear: str  # one of LEGWEAR
    long_hair: bool


@dataclass
class Figure:
    """One person of a scene; coordinates are pixels, arrays of joints follow skeleton.LANDMARKS."""

    shapes: list[Shape]  # far to near
    clothes: Clothes
    landmarks: np.ndarray  # (21, 2) float64, multiples of 1/16
    turned_away: np.ndarray  # (21,) bool, on the far side of the person's own head or trunk
    visibility: np.ndarray = field(default_factory=lambda: np.zeros(len(LANDMARKS), np.int64))
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, width, height of the visible pixels
    area: int = 0  # visible pixels


Pieces = list[tuple[float, Shape]]  # depth in the painter's order, shape


def build_figures(bodies: Bodies, view: View, clothes: list[Clothes]) -> list[Figure]:
    """The figures of P bodies seen by P cameras; visibility, box and area are filled in by the scene."""
    outlines, cores, depth = limb_outlines(bodies, view, np.array([worn.long_sleeves for worn in clothes]))
    rings = fixed(view.project(trunk_rings(bodies)))  # (P, 4, 12, 2)
    middles = rings.mean(axis=2, keepdims=True)
    inner = np.rint(middles + 0.5 * (rings - middles)).astype(np.int32)
    radius = 0.048 * bodies.girth * view.scale
    shoulders = view.project(bodies.points[:, 5:7])[:, :, None] + CIRCLE[::2] * radius[:, None, None, None]
    shoulders = fixed(shoulders)  # (P, 2, 10, 2)
    heads = _heads(bodies, view, clothes)
    landmarks = fixed(view.project(bodies.points[:, : len(LANDMARKS)])) / (1 << FIXED_POINT)
    away = _turned_away(bodies, clothes)
    chest_depth = (bodies.points[:, POINT["thorax"], 2] / 2).tolist()
    head_depth = (bodies.head_center[:, 2] + 0.08).tolist()
    facing = bodies.torso[:, 2, 2].tolist()

    figures = []
    for i, worn in enumerate(clothes):
        chest, keys = chest_depth[i], depth[i].tolist()
        pieces = _limbs(outlines[i], cores[i], keys, worn)
        pieces += _trunk(rings[i], inner[i], shoulders[i], chest)
        if worn.legwear == "skirt":
            skirt = hull(rings[i, 0], *outlines[i, SHORTS : SHORTS + 2])
            core = hull(inner[i, 0], *cores[i, SHORTS : SHORTS + 2])
            pieces.append((max(keys[6:8]) + 2e-3, Shape(skirt, PART["pelvis"], TROUSERS, core)))
        neck = Shape(outlines[i, NECK], PART["neck"], SKIN, cores[i, NECK])
        pieces.append((chest + (0.01 if facing[i] > -0.25 else -0.01), neck))
        if worn.long_hair:
            tail = Shape(outlines[i, HAIR_TAIL], PART["head"], HAIR, cores[i, HAIR_TAIL])
            pieces.append((chest + (-0.02 if facing[i] > 0 else 0.02), tail))
        pieces += [(head_depth[i], shape) for shape in heads[i]]
        pieces.sort(key=lambda piece: piece[0])
        figures.append(Figure([shape for _, shape in pieces], worn, landmarks[i], away[i]))
    return figures


def _limbs(outline: np.ndarray, core: np.ndarray, depth: list[float], worn: Clothes) -> Pieces:
    arm = SHIRT if worn.long_sleeves else SKIN
    leg = TROUSERS if worn.legwear == "trousers" else SKIN
    colours = (arm,) * 4 + (SKIN,) * 2 + (leg,) * 4 + (SHOES,) * 2
    pieces = [(depth[k], Shape(outline[k], LIMB_PARTS[k], colours[k], core[k])) for k in range(12)]
    over = [] if worn.long_sleeves else [(SLEEVE, 0, SHIRT), (SLEEVE + 1, 1, SHIRT)]
    if worn.legwear == "shorts":
        over += [(SHORTS, 6, TROUSERS), (SHORTS + 1, 7, TROUSERS)]
    return pieces + [
        (depth[k], Shape(outline[k], LIMB_PARTS[limb], colour, core[k])) for k, limb, colour in over
    ]


def _trunk(rings: np.ndarray, core: np.ndarray, shoulders: np.ndarray, depth: float) -> Pieces:
    """Pelvis, belly and chest; `depth` is the chest's."""
    hips, hem, waist, chest = rings
    pelvis = Shape(hull(hips, hem), PART["pelvis"], TROUSERS, hull(core[0], core[1]))
    belly = Shape(hull(hem, waist), PART["torso"], SHIRT, hull(core[1], core[2]))
    upper = Shape(hull(waist, chest, *shoulders), PART["torso"], SHIRT, hull(core[2], core[3]), "torso")
    return [(-0.02, pelvis), (depth - 1e-3, belly), (depth, upper)]


def _heads(bodies: Bodies, view: View, clothes: list[Clothes]) -> list[list[Shape]]:
    """Per person the head, and what sticks out of it: ears that no hair covers, and the nose."""
    skulls = fixed(head_outlines(bodies, view))
    half = bodies.head_axes[:, 1] * view.scale  # (P,) half the head's height in pixels
    shown = toward_camera(bodies, FACE_DIRECTIONS) > _HIDDEN
    center = view.project(bodies.points[:, [3, 4, 0]])
    radius = half[:, None] * np.array([0.16, 0.16, 0.10])
    discs = fixed(center[:, :, None] + radius[:, :, None, None] * CIRCLE[::2])
    bridge = fixed(center[:, 2:] + (0.30 * half[:, None] * bodies.head[:, :2, 1] * [1, -1])[:, None])
    heads = []
    for i, worn in enumerate(clothes):
        head = PART["head"]
        shapes = [Shape(skulls[i], head, HAIR, None, "face")]
        if not worn.long_hair:
            shapes += [Shape(discs[i, ear], head, SKIN, None) for ear in (0, 1) if shown[i, 3 + ear]]
        if shown[i, 0]:
            shapes.append(Shape(hull(discs[i, 2], bridge[i]), head, SKIN, None))
        heads.append(shapes)
    return heads


def _turned_away(bodies: Bodies, clothes: list[Clothes]) -> np.ndarray:
    """(P, 21) bool: joints that the person's own head, hair or trunk hides however thin the limbs are."""
    z = bodies.points[:, : len(LANDMARKS), 2]
    away = np.zeros(z.shape, dtype=bool)
    away[:, :5] = toward_camera(bodies, FACE_DIRECTIONS) < _HIDDEN
    away[:, 3:5] |= np.array([worn.long_hair for worn in clothes])[:, None]
    away[:, POINT["head_top"]] = toward_camera(bodies, np.array([[0.0, 1.0, 0.0]]))[:, 0] < -0.3
    for pair in (slice(5, 7), slice(11, 13)):  # shoulders and hips, from some 50 degrees of yaw on
        behind = z[:, pair] - z[:, pair][:, ::-1]
        away[:, pair] = behind < -0.8 * np.linalg.norm(np.diff(bodies.points[:, pair], axis=1), axis=2)
    return away
