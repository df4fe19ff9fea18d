"""Motion: how rendered people move from pose to pose and walk through one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastpose.data.figures.poses import JOINTS, POSE_NUMBERS, sample_angles
from fastpose.data.figures.skeleton import BODY_NUMBERS

PERIOD = 2.0
"""Seconds in which everyone walks to another place."""
LEAVE_EVERY = 3  # periods; one person is outside the picture at the end of the first of each three
_LEAVE_AT = 1
_POSE_SECONDS = (0.5, 1.3)  # from one pose to the next
_WALK = 0.85  # share of a period in which a person walks; the rest is waiting, before and after
_MOTION = 2  # highest word of the counters, far from the numbers of pictures and colours


@dataclass(frozen=True)
class Motion:
    """P people at F moments.

    angles: (F, P, 13, 3) degrees as `sample_angles`, root filled in. body: (P, BODY_NUMBERS) and traits:
    (P, 4), uniform, which stay as they are. place: (F, P) where along the picture's width, 0 left to 1 right.
    away: (F, P) -1 to 1, how far out of the picture to the left or right; 0 for whoever is not leaving.
    """

    angles: np.ndarray
    body: np.ndarray
    traits: np.ndarray
    place: np.ndarray
    away: np.ndarray


def move_people(seed: int, people: int, times: np.ndarray, *, leave: bool) -> Motion:
    """Motion that depends on the seed, the number of people and the moments (F,) in seconds only.

    What is at one moment does not depend on which others are asked for. Places and angles have continuous
    second derivatives.
    """
    rngs = [_generator(seed, people, stream) for stream in range(people + 1)]
    steady = [rng.random(BODY_NUMBERS + 4) for rng in rngs[1:]]
    body, traits = np.split(np.stack(steady), [BODY_NUMBERS], axis=1)
    tilt = float(rngs[0].uniform(-2, 14))
    angles = np.stack([_pose(rng, times, tilt) for rng in rngs[1:]], axis=1)
    place, away = _walk(rngs[0], people, times, leave)
    return Motion(angles, body, traits, place, away)


def _generator(seed: int, people: int, stream: int) -> np.random.Generator:
    counter = np.array([0, 0, stream, _MOTION], dtype=np.uint64)
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, people], dtype=np.uint64), counter=counter)
    )


def ease(share: np.ndarray) -> np.ndarray:
    """0 to 1 without a jump in speed or acceleration: Perlin's fade curve (Improving Noise, 2002)."""
    s = np.clip(share, 0.0, 1.0)
    return s**3 * (10 - 15 * s + 6 * s**2)


def _pose(rng: np.random.Generator, times: np.ndarray, tilt: float) -> np.ndarray:
    """(F, 13, 3) angles of one person, from one random pose to the next."""
    shortest, longest = _POSE_SECONDS
    count = int(times.max(initial=0.0) / shortest) + 2
    u = rng.random((count, 3 + POSE_NUMBERS))
    lasts = shortest + (longest - shortest) * u[:, 0]
    starts = np.concatenate([[0.0], np.cumsum(lasts)[:-1]])
    knots = sample_angles(u[:, 3:])
    # A turn is a step from the last one, so that nobody spins by more than 80 degrees at once.
    yaw = np.cumsum(160 * u[:, 1] - 80)
    knots[:, JOINTS.index("root")] = np.stack([np.full(count, tilt), 8 * u[:, 2] - 4, yaw], axis=1)
    now = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, count - 2)
    share = ease((times - starts[now]) / lasts[now])[:, None, None]
    return knots[now] + share * (knots[now + 1] - knots[now])


def _walk(
    rng: np.random.Generator, people: int, times: np.ndarray, leave: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Places (F, P) and how far away (F, P): people change places, and one leaves and comes back."""
    count = int(times.max(initial=0.0) / PERIOD) + 2
    place, away = np.zeros((count, people)), np.zeros((count, people))
    wait = np.zeros((count, people))
    slots = rng.permutation(people)
    for k in range(count):
        # All numbers are drawn whatever they are used for: longer sequences begin like shorter ones.
        moved, shift, one = rng.permutation(people), rng.random(people), int(rng.integers(people))
        wait[k] = (1 - _WALK) * rng.random(people)
        slots = moved if (moved != slots).any() else slots[::-1]
        place[k] = 0.06 + 0.88 * (slots + 0.3 + 0.4 * shift) / people
        if leave and k % LEAVE_EVERY == _LEAVE_AT:
            away[k, one] = -1.0 if place[k, one] < 0.5 else 1.0
    now = np.clip((times / PERIOD).astype(np.int64), 0, count - 2)
    share = ease((times[:, None] / PERIOD - now[:, None] - wait[now]) / _WALK)
    return (
        place[now] + share * (place[now + 1] - place[now]),
        away[now] + share * (away[now + 1] - away[now]),
    )
