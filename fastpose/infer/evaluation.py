"""From predictions to the figures that papers print."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data.persons import PersonTable
from fastpose.errors import DataError
from fastpose.infer.forward import Predictions
from fastpose.metrics.coco_eval import evaluate_coco
from fastpose.metrics.coco_results import coco_results
from fastpose.metrics.pck import auc, epe, pck
from fastpose.metrics.pckh import pckh

logger = logging.getLogger(__name__)


@dataclass
class ScoreOptions:
    """Official rescoring and OKS-NMS (hrnet lib/dataset/coco.py): `nms` hard | soft | none."""

    nms: str = "hard"
    oks_threshold: float = 0.9
    in_vis_threshold: float = 0.2


@dataclass
class Evaluation:
    """`metrics` by their published names, `headline` the one that ranks checkpoints.

    `results` is what a file of them holds: COCO rows of keypoints, or `segmentation_results`. `by_class` are
    lines of text that tell the metrics called IoU NAME in one table.
    """

    metrics: dict[str, float]
    headline: str
    results: list[dict[str, Any]]
    by_class: str = ""

    @property
    def score(self) -> float:
        return self.metrics[self.headline]


def person_results(table: PersonTable, predictions: Predictions, options: ScoreOptions) -> list[dict]:
    """COCO result rows after rescoring and OKS-NMS; samples that could not be read are left out."""
    use = predictions.usable & predictions.valid.any(axis=1)
    if not use.any():
        raise DataError(
            f"none of {len(use)} persons has a prediction: {int((~predictions.usable).sum())} are in "
            "unreadable pictures, and the network gave nothing finite for the rest; run `fastpose check`"
        )
    if not use.all():
        logger.warning("%d of %d persons have no prediction", int((~use).sum()), len(use))
    rows = predictions.index[use]
    keypoints = np.concatenate([predictions.keypoints[use], predictions.score[use, :, None]], axis=2)
    return coco_results(
        table.image_ids[table.image_index[rows]],
        keypoints.astype(np.float64),
        np.prod(table.scale[rows].astype(np.float64) * 200.0, axis=1),
        table.score[rows].astype(np.float64),
        np.asarray(table.keypoints.sigmas),
        nms=options.nms,
        in_vis_thre=options.in_vis_threshold,
        oks_thre=options.oks_threshold,
    )


def evaluate_predictions(
    table: PersonTable, predictions: Predictions, options: ScoreOptions | None = None
) -> Evaluation:
    """OKS-AP where the table carries COCO ground truth, PCKh where it comes from MPII with gt_valid.mat.

    MPII data without gt_valid.mat (the training split, the samples) has no head boxes: PCK at 0.2 of the
    longer box side is given instead, under that name.
    """
    options = options or ScoreOptions()
    results = person_results(table, predictions, options)
    if table.annotations is None:
        metrics, headline = _pck(table, predictions), "PCK@0.2"
    elif isinstance(table.annotations, Path) and table.annotations.suffix == ".mat":
        metrics, headline = pckh(table.annotations, _in_table_order(table, predictions)), "Mean"
    else:
        sigmas = np.asarray(table.keypoints.sigmas)
        metrics, headline = evaluate_coco(table.annotations, results, sigmas=sigmas), "AP"
    return Evaluation(metrics, headline, results)


def _in_table_order(table: PersonTable, predictions: Predictions) -> np.ndarray:
    """(N, K, 2), nan for persons without a prediction: the metrics count those as wrong."""
    keypoints = np.full((*table.joints.shape[:2], 2), np.nan)
    keypoints[predictions.index[predictions.usable]] = predictions.keypoints[predictions.usable]
    return keypoints


def _pck(table: PersonTable, predictions: Predictions) -> dict[str, float]:
    keypoints = _in_table_order(table, predictions)
    visible = table.visible > 0
    size = table.scale.max(axis=1) * 200.0 / 1.25
    return {
        "PCK@0.2": pck(keypoints, table.joints, visible, size, threshold=0.2),
        "PCK@0.05": pck(keypoints, table.joints, visible, size, threshold=0.05),
        "AUC": auc(keypoints, table.joints, visible, size),
        "EPE": epe(keypoints, table.joints, visible & np.isfinite(keypoints).all(axis=2)),
    }
