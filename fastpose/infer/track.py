"""Who is who from frame to frame: detections joined to tracks by their boxes and poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from fastpose.errors import ConfigError, DataError
from fastpose.infer.similarity import LEAST_JOINTS, box_area, box_iou, pose_oks
from fastpose.keypoints import COCO_17

VELOCITY_GAIN = 0.7  # share of a newly seen displacement that goes into the velocity
COASTING = 0.95  # what is left of the velocity after each frame in which nobody was seen


class Tracker:
    """Gives the people of one video numbers that stay theirs, frame by frame.

    A person is expected where their velocity takes them. Each pair of a track and a person is rated by
    `oks_weight * OKS + (1 - oks_weight) * IoU` of that expectation, or by IoU alone where the two have fewer
    than three joints in common; the Hungarian method takes the pairs with the best sum, none of them rated
    below `least`. Tracks lost in an earlier frame take part like the others: were those seen last to choose
    first, the one who steps out from behind another would be taken for the other (docs/video.md has figures).
    A person who fits no track starts one. The same calls give the same numbers.

    Args:
        sigmas: (K,) of the joints, `KeypointSet.sigmas`.
        oks_weight: 0 to 1, of poses against boxes.
        least: 0 to 1, rating that a pair needs.
        keep: frames for which a track that was not seen waits for its person. After it the person who
            comes back is a new one.
        joint_score: joints below it are taken as absent.

    Raises ConfigError for an argument that cannot be. Sources: SORT (Bewley et al., ICIP 2016) for the
    assignment over predicted boxes, PoseFlow and Simple Baselines (Xiao et al., ECCV 2018) for OKS as
    similarity between frames.
    """

    def __init__(
        self,
        sigmas: Sequence[float] | np.ndarray = COCO_17.sigmas,
        *,
        oks_weight: float = 0.5,
        least: float = 0.2,
        keep: int = 30,
        joint_score: float = 0.2,
    ) -> None:
        for name, value in (("oks_weight", oks_weight), ("least", least)):
            if not 0 <= value <= 1:
                raise ConfigError(f"tracker: {name} is between 0 and 1, got {value}")
        if not isinstance(keep, int) or keep < 0:
            raise ConfigError(f"tracker: keep is a whole number of frames from 0 on, got {keep!r}")
        self.sigmas = np.asarray(sigmas, np.float64)
        if self.sigmas.ndim != 1 or not (self.sigmas > 0).all():
            raise ConfigError(f"tracker: sigmas are one number above 0 for each joint, got {sigmas}")
        self.oks_weight, self.least, self.keep, self.joint_score = oks_weight, least, keep, joint_score
        self._next = 1
        self._tracks = _Tracks.none(len(self.sigmas))

    def update(self, boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The numbers of the next frame's people, (N,) int64 from 1 on, no two alike.

        Args:
            boxes: (N, 4) left, top, right, bottom in pixels. keypoints: (N, K, 2) in pixels, NaN where a
                joint is absent. scores: (N, K). A frame without people is N = 0, and has to be told too.

        Raises DataError for other shapes and for boxes that are not finite.
        """
        boxes, points = self._checked(boxes, keypoints, scores)
        tracks = self._tracks
        tracks.advance()
        mine = _assign(self._rate(boxes, points), self.least)
        known = np.flatnonzero(mine >= 0)
        tracks.seen(mine[known], boxes[known], points[known])
        new = np.flatnonzero(mine < 0)
        ids = np.empty(len(boxes), np.int64)
        ids[known] = tracks.id[mine[known]]
        ids[new] = self._next + np.arange(len(new))
        self._next += len(new)
        self._tracks = tracks.where(tracks.age <= self.keep).plus(ids[new], boxes[new], points[new])
        return ids

    def cut(self) -> None:
        """Forget everyone, as when the camera cuts to another view; numbers go on and none comes back."""
        self._tracks = _Tracks.none(len(self.sigmas))

    def _checked(
        self, boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        boxes, points = np.asarray(boxes, np.float64), np.array(keypoints, np.float64)
        count, joints = len(boxes), len(self.sigmas)
        for name, array, shape in (
            ("boxes", boxes, (count, 4)),
            ("keypoints", points, (count, joints, 2)),
            ("scores", np.asarray(scores), (count, joints)),
        ):
            if array.shape != shape and not (count == 0 and array.size == 0):
                raise DataError(f"{name}: expected shape {shape}, got {array.shape}")
        if not np.isfinite(boxes).all():
            raise DataError("boxes: expected finite numbers; leave people out who have no box")
        points = points.reshape(count, joints, 2)
        weak = ~(np.asarray(scores, np.float64).reshape(count, joints) >= self.joint_score)
        points[weak | ~np.isfinite(points).all(axis=2)] = np.nan
        return boxes.reshape(count, 4), points

    def _rate(self, boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(tracks, people) ratings of the expected against the found."""
        expected, poses = self._tracks.expected()
        iou = box_iou(expected, boxes)
        similar = pose_oks(poses, points, box_area(expected), box_area(boxes), self.sigmas)
        return np.where(np.isnan(similar), iou, self.oks_weight * similar + (1 - self.oks_weight) * iou)


def _assign(rating: np.ndarray, least: float) -> np.ndarray:
    """(N,) the row of (T, N) `rating` that each column gets, -1 where it gets none."""
    out = np.full(rating.shape[1], -1)
    # Pairs below `least` must not push better ones aside, so they count as no pair at all.
    row, column = linear_sum_assignment(np.where(rating >= least, rating, 0.0), maximize=True)
    good = rating[row, column] >= least
    out[column[good]] = row[good]
    return out


class _Tracks:
    """T tracks as arrays: `id` (T,), `box` (T, 4) and `pose` (T, K, 2) when last seen, with joints hidden
    then where they would be; `velocity` (T, 2) pixels a frame, `drift` (T, 2) pixels coasted since,
    `age` (T,) frames since."""

    _FIELDS = ("id", "box", "pose", "velocity", "drift", "age")

    def __init__(self, *columns: np.ndarray) -> None:
        self.id, self.box, self.pose, self.velocity, self.drift, self.age = columns

    @classmethod
    def new(cls, ids: np.ndarray, box: np.ndarray, pose: np.ndarray) -> _Tracks:
        count = len(ids)
        return cls(ids, box, pose, np.zeros((count, 2)), np.zeros((count, 2)), np.zeros(count, np.int64))

    @classmethod
    def none(cls, joints: int) -> _Tracks:
        return cls.new(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros((0, joints, 2)))

    def where(self, keep: np.ndarray) -> _Tracks:
        return _Tracks(*(getattr(self, name)[keep] for name in self._FIELDS))

    def plus(self, ids: np.ndarray, box: np.ndarray, pose: np.ndarray) -> _Tracks:
        more = _Tracks.new(ids, box, pose)
        both = (np.concatenate([getattr(self, name), getattr(more, name)]) for name in self._FIELDS)
        return _Tracks(*both)

    def advance(self) -> None:
        """One frame on: who was not seen coasts, slower and slower."""
        self.age = self.age + 1
        self.drift = self.drift + self.velocity * COASTING ** (self.age[:, None] - 1)

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (T, 4) and poses (T, K, 2) where they should be by now."""
        return self.box + np.tile(self.drift, 2), self.pose + self.drift[:, None]

    def seen(self, rows: np.ndarray, box: np.ndarray, pose: np.ndarray) -> None:
        """These tracks' people, found."""
        moved = _displacement(self.box[rows], self.pose[rows], box, pose)
        self.velocity[rows] += VELOCITY_GAIN * (moved / self.age[rows, None] - self.velocity[rows])
        # Hidden joints go along: whoever steps out from behind another shows other joints than before.
        known = np.where(np.isnan(pose), self.pose[rows] + moved[:, None], pose)
        self.box[rows], self.pose[rows] = box, known
        self.drift[rows], self.age[rows] = 0.0, 0


def _displacement(box: np.ndarray, pose: np.ndarray, new_box: np.ndarray, new_pose: np.ndarray) -> np.ndarray:
    """(T, 2) pixels: the median over the joints in both, whom a half hidden box does not move, else that of
    the box's middle."""
    middle = (new_box[:, :2] + new_box[:, 2:] - box[:, :2] - box[:, 2:]) / 2
    steps = new_pose - pose
    enough = np.isfinite(steps[..., 0]).sum(axis=1) >= LEAST_JOINTS
    middle[enough] = np.nanmedian(steps[enough], axis=1)
    return middle
