"""PCKh of MPII: correct when the error is within a fraction of the head's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastpose.errors import DataError
from fastpose.keypoints import MPII_16

HEAD_FACTOR = 0.6  # head size = 0.6 x the diagonal of the head box, as MPII's own evaluation
LEFT_OUT = (6, 7)  # pelvis and thorax do not count in the means
COLUMNS = {
    "Head": (9,),
    "Shoulder": (13, 12),
    "Elbow": (14, 11),
    "Wrist": (15, 10),
    "Hip": (3, 2),
    "Knee": (4, 1),
    "Ankle": (5, 0),
}
"""Published columns -> joints of MPII_16, averaged without weights."""

FIELDS = {"jnt_missing": 2, "pos_gt_src": 3, "headboxes_src": 3}  # array -> dimensions


def pckh(mat_file: str | Path, keypoints: np.ndarray) -> dict[str, float]:
    """PCKh on MPII's validation set.

    Args:
        mat_file: gt_valid.mat in the official layout (its coordinates start at 1).
        keypoints: (N, 16, 2 or more), x and y in image pixels that start at 0, in the order of the file; a
            keypoint that is not finite counts as wrong.

    Returns:
        As `pckh_from_arrays`.

    Raises:
        DataError: the file is missing, is no such .mat, or has another number of persons.

    Source: hrnet lib/dataset/mpii.py, evaluate.
    """
    fields = _load_mat(Path(mat_file))
    truth = np.transpose(fields["pos_gt_src"].astype(np.float64), (2, 0, 1))
    visible = fields["jnt_missing"].T == 0
    corners = fields["headboxes_src"].astype(np.float64)
    head_size = HEAD_FACTOR * np.linalg.norm(corners[1] - corners[0], axis=0)
    if keypoints.ndim != 3 or len(keypoints) != len(truth):
        raise DataError(
            f"keypoints: {mat_file} has {len(truth)} persons, so ({len(truth)}, 16, 2) is expected; "
            f"got {keypoints.shape}"
        )
    return pckh_from_arrays(keypoints[..., :2] + 1.0, truth, visible, head_size)


def pckh_from_arrays(
    keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, head_size: np.ndarray
) -> dict[str, float]:
    """PCKh in percent, from arrays in one common frame.

    A joint is correct when its error is at most the threshold times the head size. `Mean` is at 0.5 and
    weighs each joint by how often it is labelled, pelvis and thorax left out. `Mean@0.1` is the same at 0.10.
    `Mean@0.11` is at 0.11: it is what the official hrnet, sb and prtr code prints, and its papers give, under
    the name "Mean@0.1" (they read index 11 of 0, 0.01, ...).

    The last two are the means of hourglass networks, at 0.5, where an error equal to the threshold is wrong:
    `Mean unweighted` over 14 joints, pelvis and thorax left out, however often they are labelled
    (pytorch-pose); `Mean pooled` over all labels of all 16 joints (pytorch_stacked_hourglass test.py, which
    takes the head size from its own annotation file).

    Args:
        keypoints, truth: (N, 16, 2), joints in the order of MPII_16.
        visible: (N, 16), non-zero where the joint is labelled.
        head_size: (N,), already 0.6 x the diagonal of the head box, in the unit of the keypoints.

    Returns:
        Head, Shoulder, Elbow, Wrist, Hip, Knee, Ankle, Mean, Mean@0.1, Mean@0.11, Mean unweighted, Mean
        pooled; nan where no joint is labelled.

    Raises:
        DataError: shapes disagree.
    """
    _check_arrays(keypoints, truth, visible, head_size)
    visible = visible != 0
    error = np.linalg.norm(keypoints - truth, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = error / head_size[:, None]
    joints = _rates(scaled <= 0.5, visible)
    columns = {name: float(np.mean(joints[list(indices)])) for name, indices in COLUMNS.items()}
    thresholds = {"Mean": 0.5, "Mean@0.1": 0.10, "Mean@0.11": 0.11}
    means = {name: _mean(scaled <= value, visible) for name, value in thresholds.items()}
    return columns | means | _hourglass_means(scaled < 0.5, visible)


def _check_arrays(
    keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, head_size: np.ndarray
) -> None:
    count = len(truth)
    shapes = {
        "keypoints": (keypoints, (count, 16, 2)),
        "truth": (truth, (count, 16, 2)),
        "visible": (visible, (count, 16)),
        "head_size": (head_size, (count,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise DataError(f"{name}: expected {shape}, got {array.shape}")


def _rates(correct: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(16,) percent of each joint's labelled instances that are correct; nan where there is none."""
    labelled = visible.sum(axis=0)
    hits = (correct & visible).sum(axis=0)
    return np.divide(100.0 * hits, labelled, out=np.full(len(labelled), np.nan), where=labelled > 0)


def _mean(correct: np.ndarray, visible: np.ndarray) -> float:
    weight = visible.sum(axis=0).astype(np.float64)
    weight[list(LEFT_OUT)] = 0.0
    if not weight.any():
        return float("nan")
    rates = np.nan_to_num(_rates(correct, visible))
    return float(np.sum(rates * (weight / weight.sum())))


def _hourglass_means(correct: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    rates = np.delete(_rates(correct, visible), LEFT_OUT)
    rates, labels = rates[~np.isnan(rates)], int(visible.sum())
    return {
        "Mean unweighted": float(rates.mean()) if rates.size else float("nan"),
        "Mean pooled": 100.0 * int((correct & visible).sum()) / labels if labels else float("nan"),
    }


def _load_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        fields = loadmat(path, variable_names=list(FIELDS), appendmat=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give MPII's gt_valid.mat") from error
    except Exception as error:  # scipy raises many types on a damaged file
        raise DataError(f"{path}: not a readable .mat file ({error}); give MPII's gt_valid.mat") from error
    joints = MPII_16.num_joints
    for name, dimensions in FIELDS.items():
        got = fields.get(name, np.empty(0))
        if got.ndim != dimensions or got.shape[0] != (2 if name == "headboxes_src" else joints):
            raise DataError(
                f"{path}: field {name} has shape {got.shape}; expected MPII's gt_valid.mat, "
                f"jnt_missing ({joints}, N), pos_gt_src ({joints}, 2, N), headboxes_src (2, 2, N)"
            )
    if len({fields[name].shape[-1] for name in FIELDS}) != 1:
        raise DataError(f"{path}: its fields disagree on the number of persons")
    return fields
