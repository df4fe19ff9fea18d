"""A KeypointSet from the `categories` of a COCO-format file, for keypoints that fastpose does not know."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastpose.data.annotations import is_integer
from fastpose.errors import DataError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet, Pairs

DEFAULT_SIGMA = 0.05
"""OKS sigma of a keypoint that COCO does not have; give `sigmas` to use measured ones."""

_LOWER_BODY = re.compile(r"hip|knee|ankle|foot|feet|toe|heel|leg|thigh|shin|calf|pelvis", re.IGNORECASE)
_SIDES = (
    ("left", "right"),
    ("right", "left"),
    (r"(?<![a-z0-9])l(?![a-z0-9])", "r"),
    (r"(?<![a-z0-9])r(?![a-z0-9])", "l"),
)
_KNOWN = {known.names: known for known in (COCO_17, MPII_16)}
_log = logging.getLogger("fastpose.data")


def keypoints_of_file(
    categories: list[dict[str, Any]],
    file: str,
    *,
    keypoint_set: KeypointSet | None = None,
    sigmas: Sequence[float] | None = None,
    flip_pairs: Sequence[tuple[int | str, int | str]] | None = None,
) -> tuple[KeypointSet, frozenset[int]]:
    """The keypoints of a COCO-format file and the category ids that carry them.

    Without `keypoint_set` they are read from the first category that lists `keypoints`: COCO_17 or MPII_16 if
    the names are theirs, otherwise a set with limbs from `skeleton`, mirror pairs and upper body told by the
    names, COCO's sigmas where a name is COCO's and DEFAULT_SIGMA elsewhere, joint weights 1. With
    `keypoint_set` all categories of as many keypoints are meant, or category 1 if none lists any, as in hrnet
    lib/dataset/coco.py. `sigmas` (K) and `flip_pairs` (0-based indices or names) override.
    Raises DataError naming the file.
    """
    listing = [category for category in categories if category.get("keypoints")]
    names = keypoint_names(categories, file) if keypoint_set is None else keypoint_set.names
    if keypoint_set is None:
        keypoint_set = _KNOWN.get(names) or _from_category(listing[0], names, file)
        listing = [category for category in listing if category["keypoints"] == list(names)]
    ids = {c["id"] for c in listing if _count(c) == len(names) and is_integer(c.get("id"))}
    if listing and not ids:
        got = ", ".join(f"{c.get('name')!r} (id {c.get('id')!r}) lists {_count(c)}" for c in listing[:3])
        raise DataError(
            f"{file}: no category with an id and the {len(names)} keypoints asked for: {got}"[:500]
        )
    return override(keypoint_set, file, sigmas, flip_pairs), frozenset(ids or {1})


def keypoint_names(categories: list[dict[str, Any]], file: str) -> tuple[str, ...]:
    """Names in the first category that lists any; DataError when none does or they are no names."""
    names = next((category["keypoints"] for category in categories if category.get("keypoints")), None)
    if names is None:
        raise DataError(f"{file}: no category lists 'keypoints'; add their names or give keypoint_set")
    strings = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not strings or len(set(names)) != len(names):
        raise DataError(f"{file}: 'keypoints' of a category must be different names, got {str(names)[:200]}")
    return tuple(names)


def override(
    keypoints: KeypointSet,
    file: str,
    sigmas: Sequence[float] | None,
    flip_pairs: Sequence[tuple[int | str, int | str]] | None,
) -> KeypointSet:
    """`keypoints` with the given sigmas and mirror pairs; DataError when they do not fit the K names."""
    if sigmas is not None:
        if len(sigmas) != keypoints.num_joints or not all(0 < s < float("inf") for s in sigmas):
            wanted = f"{keypoints.num_joints} positive numbers"
            raise DataError(f"{file}: sigmas must be {wanted}, got {list(sigmas)}")
        keypoints = replace(keypoints, sigmas=tuple(float(s) for s in sigmas))
    if flip_pairs is not None:
        place = {name: k for k, name in enumerate(keypoints.names)}
        pairs = [[place.get(k, -1) if isinstance(k, str) else int(k) for k in pair] for pair in flip_pairs]
        flat = [k for pair in pairs for k in pair]
        fits = all(len(pair) == 2 for pair in pairs) and all(0 <= k < keypoints.num_joints for k in flat)
        if not fits or len(set(flat)) != len(flat):
            raise DataError(
                f"{file}: flip_pairs must pair different keypoints of {list(keypoints.names)} by name or "
                f"0-based index, got {list(flip_pairs)}"
            )
        keypoints = replace(keypoints, flip_pairs=tuple((a, b) for a, b in pairs))
    return keypoints


def mirrored_name(name: str) -> str:
    """The name of the same keypoint on the other side: left_eye -> right_eye, l_hip -> r_hip, LHip -> RHip.

    Lower case; the name itself where it names no side.
    """
    camel = re.sub(r"^([LR])(?=[A-Z][a-z])", r"\1_", name)
    lower = camel.lower()
    for this, other in _SIDES:
        swapped = re.sub(this, other, lower, count=1)
        if swapped != lower:
            return swapped if camel == name else swapped.replace("_", "", 1)
    return lower


def skeleton_problem(category: dict[str, Any]) -> str | None:
    """What is wrong with the limbs of a category, or None."""
    count = _count(category)
    limbs = category.get("skeleton") or []
    if not isinstance(limbs, list):
        return f"skeleton must be a list of pairs, got {type(limbs).__name__}"
    wrong = [limb for limb in limbs if not _is_limb(limb, count)]
    if wrong:
        return f"{len(wrong)} of {len(limbs)} limbs are not two of the {count} keypoints, first {wrong[0]}"
    return None


def _from_category(category: dict[str, Any], names: tuple[str, ...], file: str) -> KeypointSet:
    sigma_of = dict(zip(COCO_17.names, COCO_17.sigmas, strict=True))
    return KeypointSet(
        name=str(category.get("name", "custom")) + str(len(names)),
        names=names,
        flip_pairs=_flip_pairs(names),
        skeleton=_skeleton(category, names, file),
        sigmas=tuple(sigma_of.get(name.lower(), DEFAULT_SIGMA) for name in names),
        upper_body=tuple(k for k, name in enumerate(names) if not _LOWER_BODY.search(name)),
        joint_weights=(1.0,) * len(names),
    )


def _flip_pairs(names: tuple[str, ...]) -> Pairs:
    place = {name.lower(): k for k, name in enumerate(names)}
    mirror = [place.get(mirrored_name(name), k) for k, name in enumerate(names)]
    return tuple((k, other) for k, other in enumerate(mirror) if k < other and mirror[other] == k)


def _skeleton(category: dict[str, Any], names: tuple[str, ...], file: str) -> Pairs:
    """1-based `skeleton` as 0-based limbs. Limbs past the last keypoint mean that the list belongs to another
    set of keypoints, so that none of it can be trusted: limbs known by name replace it."""
    reason = skeleton_problem(category)
    if reason is None:
        return tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or ())
    _log.warning("%s: skeleton of category %r ignored: %s", file, category.get("name"), reason)
    place = {name.lower(): k for k, name in enumerate(names)}
    known = [(s.names[a], s.names[b]) for s in (COCO_17, MPII_16) for a, b in s.skeleton]
    limbs = ((place[a], place[b]) for a, b in known if a in place and b in place)
    return tuple({frozenset(limb): limb for limb in limbs}.values())


def _count(category: dict[str, Any]) -> int:
    names = category.get("keypoints")
    return len(names) if isinstance(names, list) else 0


def _is_limb(limb: object, count: int) -> bool:
    return isinstance(limb, list) and len(limb) == 2 and all(is_integer(k) and 1 <= k <= count for k in limb)
