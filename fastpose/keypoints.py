"""What a set of keypoints is: names, mirror pairs, limbs, OKS sigmas."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class KeypointSet:
    """K keypoints of one kind of body; every index is 0-based and every tuple has K entries unless said.

    `flip_pairs` swap under a horizontal mirror, `skeleton` are limbs to draw, `sigmas` are the standard
    deviations of OKS (its k is 2 sigma), `upper_body` are the indices that half-body augmentation may keep,
    `joint_weights` the official per-joint loss weights (used only when asked for).
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: Pairs
    skeleton: Pairs
    sigmas: tuple[float, ...]
    upper_body: tuple[int, ...]
    joint_weights: tuple[float, ...]

    @property
    def num_joints(self) -> int:
        return len(self.names)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """Entry k is the keypoint whose place k takes in the mirrored picture."""
        order = list(range(self.num_joints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> KeypointSet:
        """Inverse of `to_dict`, also after a trip through JSON."""

        def pairs(rows: Any) -> Pairs:
            return tuple((int(a), int(b)) for a, b in rows)

        return cls(
            name=str(values["name"]),
            names=tuple(values["names"]),
            flip_pairs=pairs(values["flip_pairs"]),
            skeleton=pairs(values["skeleton"]),
            sigmas=tuple(float(s) for s in values["sigmas"]),
            upper_body=tuple(int(k) for k in values["upper_body"]),
            joint_weights=tuple(float(w) for w in values["joint_weights"]),
        )


COCO_17 = KeypointSet(
    name="coco17",
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
        0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
    upper_body=tuple(range(11)),
    joint_weights=(1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5),
)  # fmt: skip
"""COCO order, left odd (hrnet lib/dataset/coco.py); sigmas of pycocotools."""

MPII_16 = KeypointSet(
    name="mpii16",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    skeleton=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12), (12, 7),
        (7, 13), (13, 14), (14, 15),
    ),
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.107, 0.079, 0.079, 0.026, 0.062, 0.072, 0.079,
        0.079, 0.072, 0.062,
    ),
    upper_body=(7, 8, 9, 10, 11, 12, 13, 14, 15),
    joint_weights=(1.5, 1.2, 1, 1, 1.2, 1.5, 1, 1, 1, 1, 1.5, 1.2, 1, 1, 1.2, 1.5),
)  # fmt: skip
"""MPII order (hrnet lib/dataset/mpii.py). MPII publishes no OKS sigmas: these borrow COCO's for the same
joints and mmpose's for the rest, and serve only to report OKS on MPII-style data."""
