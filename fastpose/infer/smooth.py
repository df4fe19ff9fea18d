"""Joints without jitter: the One-Euro filter, which follows fast motion and calms what stands still."""

from __future__ import annotations

import math

import numpy as np

from fastpose.errors import ConfigError, DataError


class OneEuro:
    """Smooths the joints of one video's people, each joint by itself.

    A joint goes through a low-pass filter whose cutoff is `min_cutoff + beta * speed`, with the speed in
    person sizes a second (a size is the square root of the box's area), so that the parameters mean the same
    for people near and far, at any resolution and any frame rate. Both coordinates of a joint share the speed
    of its place: the result does not depend on the direction of motion.

    An absent joint stays absent. After `patience` seconds without it the filter begins anew; over a shorter
    gap it goes on with the time that has passed.

    Args:
        min_cutoff: Hz, for a joint at rest: lower is calmer and lags more.
        beta: Hz per person size a second: higher lags less in motion and lets more jitter through.
        speed_cutoff: Hz, of the low-pass filter of the speed.
        patience: seconds; 0 begins anew after any frame without the joint.

    Raises ConfigError for a cutoff that is not above 0, and a beta or patience below 0.
    Source: Casiez, Roussel and Vogel, 1 Euro Filter, CHI 2012, algorithm 1.
    """

    def __init__(
        self,
        *,
        min_cutoff: float = 1.0,
        beta: float = 4.0,
        speed_cutoff: float = 1.0,
        patience: float = 0.25,
    ) -> None:
        for name, value in (("min_cutoff", min_cutoff), ("speed_cutoff", speed_cutoff)):
            if not 0 < value < math.inf:
                raise ConfigError(f"smoothing: {name} is a frequency above 0 Hz, got {value}")
        for name, value in (("beta", beta), ("patience", patience)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"smoothing: {name} is a number from 0 on, got {value}")
        self.min_cutoff, self.beta = min_cutoff, beta
        self.speed_cutoff, self.patience = speed_cutoff, patience
        self.reset()

    def reset(self) -> None:
        """Forget everyone; time may start again."""
        self._now = -math.inf
        self._ids = np.zeros(0, np.int64)
        # Of each id's joints: filtered places and velocities (T, K, 2), and when they were last seen (T, K).
        self._place = self._velocity = np.zeros((0, 0, 2))
        self._last = np.zeros((0, 0))

    def update(self, keypoints: np.ndarray, ids: np.ndarray, sizes: np.ndarray, time: float) -> np.ndarray:
        """The smoothed joints of the next frame, (N, K, 2) float64, NaN where they are absent.

        Args:
            keypoints: (N, K, 2) in pixels, NaN where a joint is absent.
            ids: (N,) whole numbers that say who is who, as `Tracker` gives them; no two alike.
            sizes: (N,) pixels, the square root of the area of each person's box.
            time: seconds, later than in the call before. Frames without people may be left out.

        Raises DataError for other shapes, ids that are alike, sizes not above 0, and time that stands.
        """
        points, ids, sizes = _checked(keypoints, ids, sizes)
        if not self._now < time < math.inf:
            raise DataError(f"time: expected seconds after {self._now}, got {time}; reset() starts anew")
        before, self._now = self._now if math.isfinite(self._now) else time, time
        place, velocity, last = self._rows(ids, points.shape[1])
        there = np.isfinite(points).all(axis=2)
        gap = time - last  # inf where never seen
        on = there & (gap <= max(self.patience, time - before) + 1e-9)
        dt = np.where(on, gap, 1.0)[..., None]
        there, on = there[..., None], on[..., None]
        step = np.where(on, points - place, 0.0)
        rate = velocity + _share(self.speed_cutoff, dt) * (step / dt - velocity)
        speed = np.linalg.norm(rate, axis=2, keepdims=True) / sizes[:, None, None]
        smooth = place + _share(self.min_cutoff + self.beta * speed, dt) * step
        found = np.where(on, smooth, points)
        velocity = np.where(there, np.where(on, rate, 0.0), velocity)
        self._keep(ids, np.where(there[..., 0], time, last), np.where(there, found, place), velocity)
        return np.where(there, found, np.nan)

    def _rows(self, ids: np.ndarray, joints: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The state of these people; of new ones, joints never seen."""
        if self._last.shape[1] != joints:
            self._ids = np.zeros(0, np.int64)
            self._place, self._velocity = np.zeros((2, 0, joints, 2))
            self._last = np.zeros((0, joints))
        place, velocity = np.zeros((2, len(ids), joints, 2))
        last = np.full((len(ids), joints), -np.inf)
        mine, own = np.nonzero(ids[:, None] == self._ids)
        place[mine], velocity[mine], last[mine] = self._place[own], self._velocity[own], self._last[own]
        return place, velocity, last

    def _keep(self, ids: np.ndarray, last: np.ndarray, place: np.ndarray, velocity: np.ndarray) -> None:
        """Stores the state of these people beside that of others who may come back in time."""
        waiting = ~np.isin(self._ids, ids)
        waiting[waiting] = self._last[waiting].max(axis=1, initial=-np.inf) >= self._now - self.patience
        columns = (self._ids, ids), (self._last, last), (self._place, place), (self._velocity, velocity)
        stored = (np.concatenate([old[waiting], new]) for old, new in columns)
        self._ids, self._last, self._place, self._velocity = stored


def _share(cutoff: np.ndarray | float, dt: np.ndarray) -> np.ndarray:
    """How much of a new value enters a low-pass filter of `cutoff` Hz after `dt` seconds."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * dt))


def _checked(
    keypoints: np.ndarray, ids: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points, ids = np.asarray(keypoints, np.float64), np.asarray(ids)
    sizes = np.asarray(sizes, np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise DataError(f"keypoints: expected shape (N, K, 2), got {points.shape}")
    if ids.shape != points.shape[:1] or (ids.size and ids.dtype.kind not in "iu"):
        raise DataError(f"ids: expected {len(points)} whole numbers, got {ids.dtype} {ids.shape}")
    if len(np.unique(ids)) != len(ids):
        raise DataError(f"ids: two people have the same in {ids.tolist()}")
    if sizes.shape != ids.shape or not ((sizes > 0) & np.isfinite(sizes)).all():
        raise DataError(f"sizes: expected {len(points)} numbers of pixels above 0, got {sizes.tolist()}")
    return points, ids.astype(np.int64), sizes
