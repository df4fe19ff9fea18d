"""Details drawn onto a figure's shapes: the face, and what tells a chest from a back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastpose.data.figures.background import Colour, random_colour, shade
from fastpose.data.figures.shapes import HAIR, SHIRT, SHOES, SKIN, TROUSERS, View, fixed, hull, trunk_rings
from fastpose.data.figures.skeleton import POINT, Bodies, toward_camera

Patch = tuple[np.ndarray, Colour]  # convex outline in fixed-point pixels, BGR

_SKINS = (
    (198, 219, 250), (160, 190, 235), (135, 170, 225), (105, 145, 200), (75, 110, 165), (50, 75, 120),
    (38, 55, 90),
)  # fmt: skip
_HAIRS = (
    (25, 25, 30), (30, 40, 60), (40, 65, 105), (70, 120, 180), (110, 180, 220), (170, 170, 175),
    (35, 50, 130),
)  # fmt: skip
PATTERNS = ("plain", "stripes", "zip", "print", "band")


class Look(NamedTuple):
    """Colours of one person, BGR."""

    colours: tuple[Colour, ...]  # by SKIN ... HAIR
    accent: Colour
    pattern: str  # one of PATTERNS
    backpack: bool
    iris: Colour


def random_look(rng: np.random.Generator) -> Look:
    """Skin, hair and clothes of a person."""
    skin = _SKINS[int(rng.integers(len(_SKINS)))]
    hair = _HAIRS[int(rng.integers(len(_HAIRS)))]
    colours = [skin] * 5
    colours[SKIN] = shade(skin, rng.uniform(0.9, 1.08))
    colours[SHIRT] = random_colour(rng, saturation=(0.0, 0.75), value=(0.2, 1.0))
    colours[TROUSERS] = random_colour(rng, saturation=(0.0, 0.55), value=(0.12, 0.85))
    colours[SHOES] = random_colour(rng, saturation=(0.0, 0.6), value=(0.08, 0.95))
    colours[HAIR] = shade(hair, rng.uniform(0.8, 1.2))
    accent = random_colour(rng, saturation=(0.0, 0.8), value=(0.1, 1.0))
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    backpack, iris = bool(rng.random() < 0.3), shade((90, 60, 30), rng.uniform(0.3, 1.5))
    return Look(tuple(colours), accent, pattern, backpack, iris)


def _sphere(*azimuth_elevation: tuple[float, float]) -> np.ndarray:
    """Degrees from straight ahead (to the left, up) -> (n, 3) directions (left, up, forward)."""
    azimuth, elevation = np.deg2rad(np.array(azimuth_elevation, dtype=np.float64)).T
    level = np.cos(elevation)
    return np.stack([np.sin(azimuth) * level, np.sin(elevation), np.cos(azimuth) * level], axis=-1)


def _mirror(directions: np.ndarray) -> np.ndarray:
    return directions * [-1, 1, 1]


def _cap(elevation: float, radius: float, points: int = 14) -> np.ndarray:
    """The rim of a cap of the sphere around a direction straight ahead and so far up, all in degrees."""
    turn = np.arange(points) * 2 * np.pi / points
    around = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1) * np.sin(np.deg2rad(radius))
    middle = np.array([0, np.sin(np.deg2rad(elevation)), np.cos(np.deg2rad(elevation))])
    up = np.array([0, middle[2], -middle[1]])
    return np.cos(np.deg2rad(radius)) * middle + around[:, :1] * [1, 0, 0] + around[:, 1:2] * up


_SKIN_CAP = _cap(-28, 70)
_EYE = _sphere((13, 5), (18, 10), (28, 11), (35, 5), (28, 1), (18, 1))
_IRIS = _sphere((20, 4), (21, 9), (26, 9), (28, 4), (25, 1), (22, 1))
_BROW = _sphere((11, 17), (22, 21), (36, 17), (24, 17))
_MOUTH = _sphere((-18, -36), (0, -34), (18, -36), (8, -42), (-8, -42))
_NOSTRILS = _sphere((-8, -17), (0, -14), (8, -17), (0, -22))
_PATCHES = (_SKIN_CAP, _EYE, _mirror(_EYE), _IRIS, _mirror(_IRIS), _BROW, _mirror(_BROW), _MOUTH, _NOSTRILS)
_DIRECTIONS = np.concatenate(_PATCHES)
_SPLITS = np.cumsum([len(patch) for patch in _PATCHES])[:-1]
_MIDDLES = np.stack([patch.mean(axis=0) / np.linalg.norm(patch.mean(axis=0)) for patch in _PATCHES])


# The cosine to the camera from which a patch is in sight; the eyes' is that of the label.
_LIMITS = np.array([-0.45, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -0.05, -0.05])


def face_patches(bodies: Bodies, view: View, looks: list[Look]) -> list[list[Patch]]:
    """Per person the patches of the face that face the camera, in painter's order."""
    viewer = bodies.head[:, 2] / bodies.head_axes
    viewer /= np.linalg.norm(viewer, axis=1, keepdims=True)  # (P, 3) of the unit sphere
    cosine = viewer @ _DIRECTIONS.T
    # Directions beyond the rim are moved onto it, so that a patch ends where the head does.
    rim = _DIRECTIONS - np.minimum(cosine, 0)[..., None] * viewer[:, None]
    rim /= np.maximum(np.linalg.norm(rim, axis=-1, keepdims=True), 1e-6)
    points = bodies.head_center[:, None] + (rim * bodies.head_axes[:, None]) @ bodies.head.transpose(0, 2, 1)
    outlines = fixed(view.project(points))
    shown = toward_camera(bodies, _MIDDLES) > _LIMITS
    faces = []
    for look, outline, seen in zip(looks, outlines, shown.tolist(), strict=True):
        skin = look.colours[SKIN]
        white, dark = (235, 235, 235), shade(look.colours[HAIR], 0.8)
        colours = (skin, white, white, look.iris, look.iris, dark, dark, (60, 50, 150), shade(skin, 0.72))
        pieces = zip(np.split(outline, _SPLITS), colours, seen, strict=True)
        faces.append([(hull(piece), colour) for piece, colour, sees in pieces if sees])
    return faces


class _Trunk(NamedTuple):
    """Where details of one trunk go, pixels; of a ring's 12 points 0 is left, 3 front, 6 right, 9 back."""

    hem: np.ndarray  # (12, 2)
    waist: np.ndarray
    chest: np.ndarray
    neck: np.ndarray  # (2,)
    collar: np.ndarray  # (2, 2), its left and right end


def trunk_patches(bodies: Bodies, view: View, looks: list[Look]) -> list[list[Patch]]:
    """Per person the pattern of the shirt, its collar and zip in front, a seam or a backpack behind."""
    rings = view.project(trunk_rings(bodies))  # (P, 4, 12, 2)
    thorax = bodies.points[:, POINT["thorax"]]
    ends = thorax[:, None] + 0.05 * np.array([1.0, -1.0])[:, None] * bodies.torso[:, None, :, 0]
    collar = view.project(ends + 0.03 * bodies.torso[:, None, :, 2])
    neck = view.project(thorax)
    facing = bodies.torso[:, 2, 2].tolist()
    result = []
    for i, look in enumerate(looks):
        _, hem, waist, chest = rings[i]
        trunk = _Trunk(hem, waist, chest, neck[i], collar[i])
        patches = _shirt(trunk, look)
        if facing[i] > 0.05:
            patches += _front(trunk, look)
        elif facing[i] < -0.05:
            patches += _back(trunk, look)
        result.append(patches)
    return result


def _shirt(trunk: _Trunk, look: Look) -> list[Patch]:
    hem, waist, chest = trunk.hem, trunk.waist, trunk.chest
    if look.pattern == "stripes":
        levels = [(hem + waist) / 2, waist, waist + (chest - waist) * 0.4, waist + (chest - waist) * 0.8]
        return [(hull(fixed(level), fixed(level + (chest - waist) * 0.18)), look.accent) for level in levels]
    if look.pattern == "band":
        return [(hull(fixed(waist + (chest - waist) * 0.55), fixed(chest)), look.accent)]
    return []


def _front(trunk: _Trunk, look: Look) -> list[Patch]:
    waist, chest = trunk.waist, trunk.chest
    tip = chest[3] + (trunk.neck - chest[3]) * 0.35
    patches: list[Patch] = []
    if look.pattern == "print":
        patches.append((hull(fixed((waist + (chest - waist) * 0.35)[2:5]), fixed(chest[2:5])), look.accent))
    elif look.pattern == "zip":
        patches.append((_strip(trunk, [trunk.hem[3], waist[3]], 0.05), look.accent))
        patches.append((_strip(trunk, [waist[3], chest[3], tip], 0.05), look.accent))
    return [*patches, (hull(fixed(np.stack([*trunk.collar, tip]))), look.colours[SKIN])]


def _back(trunk: _Trunk, look: Look) -> list[Patch]:
    waist, chest = trunk.waist, trunk.chest
    if not look.backpack:
        return [(_strip(trunk, [trunk.hem[9], waist[9], chest[9]], 0.03), shade(look.colours[SHIRT], 0.78))]
    top, low = chest + (trunk.neck - chest) * 0.25, waist + (chest - waist) * 0.1
    pocket = low + (top - low) * 0.45
    return [
        (hull(fixed(low[7:12]), fixed(top[7:12])), look.accent),
        (hull(fixed(low[8:11]), fixed(pocket[8:11])), shade(look.accent, 0.7)),
    ]


def _strip(trunk: _Trunk, points: list[np.ndarray], share: float) -> np.ndarray:
    """A convex strip along points, to each side `share` of the trunk's width."""
    across = (trunk.hem[0] - trunk.hem[6]) * share
    line = np.stack(points)
    return hull(fixed(line + across), fixed(line - across))
