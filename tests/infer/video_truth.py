"""Sequences whose truth is known, disturbed as a detector would, and how far from it an answer is.

`python tests/infer/video_truth.py` prints the tables of docs/video.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from fastpose.data.figures.sequence import FigureSequence, compose_sequence
from fastpose.infer.smooth import OneEuro
from fastpose.infer.track import Tracker

FINE = 4  # moments of the truth a frame, so that a lag can be a part of a frame
Method = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class Detections(NamedTuple):
    """Of one frame: whose each row is, boxes (N, 4) corners, keypoints (N, K, 2), scores (N, K)."""

    who: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


@cache
def sequence(seed: int, frames: int, people: int, rate: float, leave: bool) -> FigureSequence:
    return compose_sequence(seed, frames, people, rate=rate, leave=leave)


def detect(
    truth: FigureSequence, seed: int, *, jitter: float = 0.02, missed: float = 0.05, absent: float = 0.1
) -> Iterator[Detections]:
    """What a detector might say: boxes and joints off by `jitter` of the person's size, people `missed` at
    random and when fewer than four joints are in sight, hidden joints and some more `absent`, any order."""
    rng = np.random.default_rng(seed)
    for frame in range(len(truth)):
        who = truth.present(frame)
        in_sight = (truth.visible[frame, who] == 2).sum(axis=1) >= 4
        who = rng.permutation(who[in_sight & (rng.random(len(who)) >= missed)])
        boxes, points = truth.boxes[frame, who], truth.joints[frame, who]
        size = person_size(boxes)
        gone = (truth.visible[frame, who] != 2) | (rng.random(points.shape[:2]) < absent)
        points = points + jitter * size[:, None, None] * rng.normal(size=points.shape)
        points[gone] = np.nan
        boxes = boxes + jitter * size[:, None] * rng.normal(size=boxes.shape)
        yield Detections(who, boxes, points, np.where(gone, 0.0, 0.9))


def person_size(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1))


class Identity(NamedTuple):
    """`switches`: how often a person has another number than when last seen (CLEAR MOT). `idf1`: the share of
    detections with the right number, for the best pairing of people and numbers (Ristani et al., 2016)."""

    switches: int
    idf1: float
    seen: int


def identity(truth: list[list[int]], numbers: list[list[int]]) -> Identity:
    last: dict[int, int] = {}
    together: dict[tuple[int, int], int] = {}
    switches = 0
    for who, ids in zip(truth, numbers, strict=True):
        for person, number in zip(who, ids, strict=True):
            switches += last.get(person, number) != number
            last[person] = number
            together[person, number] = together.get((person, number), 0) + 1
    rows, columns = (sorted({pair[side] for pair in together}) for side in (0, 1))
    table = np.zeros((len(rows), len(columns)))
    for (person, number), count in together.items():
        table[rows.index(person), columns.index(number)] = count
    # Every detection is a person's and has a number: precision, recall and F1 are one.
    right = table[linear_sum_assignment(table, maximize=True)].sum()
    return Identity(switches, float(right / table.sum()), int(table.sum()))


def tracked(
    people: int,
    rate: float,
    *,
    leave: bool,
    seeds: range,
    make: Callable[[], Tracker] = Tracker,
    **disturbed: float,
) -> Identity:
    """Scores over ten seconds of each seed."""
    scores = []
    for seed in seeds:
        tracker, truth, numbers = make(), [], []
        for found in detect(sequence(seed, round(10 * rate), people, rate, leave), seed, **disturbed):
            truth.append(found.who.tolist())
            numbers.append(tracker.update(found.boxes, found.keypoints, found.scores).tolist())
        scores.append(identity(truth, numbers))
    seen = sum(score.seen for score in scores)
    share = sum(score.idf1 * score.seen for score in scores) / seen
    return Identity(sum(score.switches for score in scores), share, seen)


class Quality(NamedTuple):
    """`jitter`: rms of the second difference of the error, in percent of the person's size; `lag`: frames by
    which the truth has to be late to fit best; `error`: rms distance from the truth, in percent."""

    jitter: float
    lag: float
    error: float


def smoothed(
    method: Method, *, noise: float = 0.02, still: bool = False, rate: float = 25.0, seeds: range
) -> Quality:
    """What a method makes of ten seconds of three people with noise on their joints, shares of their size."""
    first = round(rate)  # frames until every method is under way
    jitter, error, lags = [], [], np.zeros(4 * FINE)
    for seed in seeds:
        fine, size = _moving(seed, rate)
        if still:
            fine = np.repeat(fine[:1], len(fine), axis=0)
        truth, unit = fine[::FINE], size[..., None, None]
        noisy = truth + noise * unit * np.random.default_rng(seed).normal(size=truth.shape)
        answer = method(noisy, size, rate)
        off = (answer - truth) / unit
        jitter.append(np.square(np.diff(off, 2, axis=0)[first:]).mean())
        error.append(np.square(off[first:]).mean())
        at = np.arange(first, len(truth)) * FINE
        lags += [
            np.square((answer[first:] - fine[at - lag]) / unit[first:]).mean() for lag in range(4 * FINE)
        ]
    percent = 100 * np.sqrt([np.mean(jitter), np.mean(error)])
    return Quality(float(percent[0]), 0.0 if still else float(lags.argmin() / FINE), float(percent[1]))


@cache
def _moving(seed: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Joints at FINE moments a frame, and sizes a frame."""
    fine = sequence(seed, round(10 * rate) * FINE, 3, rate * FINE, False)
    size = person_size(fine.boxes[::FINE])
    return fine.joints, np.where(np.isfinite(size), size, np.nanmedian(size))


def raw(points: np.ndarray, size: np.ndarray, rate: float) -> np.ndarray:
    return points


def moving_average(count: int) -> Method:
    def method(points: np.ndarray, size: np.ndarray, rate: float) -> np.ndarray:
        return np.stack([points[max(0, t - count + 1) : t + 1].mean(axis=0) for t in range(len(points))])

    return method


def one_euro(**options: float) -> Method:
    def method(points: np.ndarray, size: np.ndarray, rate: float) -> np.ndarray:
        smooth, ids = OneEuro(**options), np.arange(points.shape[1])
        return np.stack([smooth.update(points[t], ids, size[t], t / rate) for t in range(len(points))])

    return method


def _tables() -> None:
    seeds = range(8)
    ways = {
        "boxes and poses (default)": {},
        "boxes alone": {"oks_weight": 0.0},
        "poses alone": {"oks_weight": 1.0},
    }
    print("people frames/s leaving | " + " | ".join(ways))
    for people, rate, leave in (
        (2, 25.0, False),
        (4, 25.0, False),
        (6, 25.0, False),
        (4, 12.5, False),
        (4, 25.0, True),
    ):
        rows = [
            tracked(people, rate, leave=leave, seeds=seeds, make=lambda way=way: Tracker(**way))
            for way in ways.values()
        ]
        print(
            people, rate, leave, " | ".join(f"{row.switches}, {row.idf1:.3f} of {row.seen}" for row in rows)
        )
    print("method | jitter at rest | jitter moving | lag | error")
    methods = {"raw": raw} | {f"mean of {n}": moving_average(n) for n in (3, 5, 7)}
    methods |= {"One-Euro (default)": one_euro(), "One-Euro, beta 16": one_euro(beta=16.0)}
    for name, method in methods.items():
        rest, moving = (smoothed(method, still=still, seeds=seeds) for still in (True, False))
        print(f"{name} | {rest.jitter:.2f} | {moving.jitter:.2f} | {moving.lag:.2f} | {moving.error:.2f}")


if __name__ == "__main__":
    _tables()
