"""Official evaluations, written from their description: the rivals of bench_metrics.py.

OKS-AP is pycocotools as its users call it; PCKh is a loop over persons and joints.
Source: pycocotools.cocoeval.COCOeval; MPII's evaluation as in hrnet lib/dataset/mpii.py, evaluate.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

Array = np.ndarray
LEFT_OUT = (6, 7)  # pelvis and thorax


def oks_ap(truth: dict[str, Any], results: list[dict[str, Any]]) -> Array:
    """The ten statistics of COCO's keypoint evaluation; pycocotools adds fields to the rows of both."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = truth
        expected.createIndex()
        found = expected.loadRes(results)
        evaluation = COCOeval(expected, found, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


def pckh(keypoints: Array, truth: Array, visible: Array, head_size: Array) -> tuple[list[float], float]:
    """Percent of each joint's labelled instances within half of the head's size, and the mean by count."""
    joints = truth.shape[1]
    right, labelled = [0] * joints, [0] * joints
    for n in range(len(truth)):
        for k in range(joints):
            if visible[n, k]:
                labelled[k] += 1
                right[k] += bool(np.linalg.norm(keypoints[n, k] - truth[n, k]) / head_size[n] <= 0.5)
    rates = [100.0 * right[k] / labelled[k] for k in range(joints)]
    counted = [k for k in range(joints) if k not in LEFT_OUT]
    total = sum(labelled[k] for k in counted)
    return rates, sum(rates[k] * labelled[k] for k in counted) / total
