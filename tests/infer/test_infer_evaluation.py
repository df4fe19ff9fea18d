"""Predictions to published figures: which metric a table asks for, and what missing predictions cost."""

import json

import numpy as np
import pytest
from conftest import shared_path

from fastpose.data.persons import PersonTable
from fastpose.infer.evaluation import evaluate_predictions
from fastpose.infer.forward import Predictions
from fastpose.keypoints import MPII_16


def table_of(count: int, annotations=None) -> PersonTable:
    rng = np.random.default_rng(0)
    return PersonTable(
        keypoints=MPII_16,
        images=None,
        image_ids=np.arange(count),
        file_names=np.array([f"{i}.jpg" for i in range(count)]),
        image_sizes=np.full((count, 2), 500, np.int32),
        image_index=np.arange(count),
        center=np.full((count, 2), 250, np.float32),
        scale=np.full((count, 2), 2.5, np.float32),
        box=np.tile([50.0, 50.0, 400.0, 400.0], (count, 1)),
        score=np.ones(count, np.float32),
        joints=rng.uniform(100, 400, (count, 16, 2)),
        visible=np.ones((count, 16), np.float32),
        area=np.full(count, np.nan),
        annotation_id=np.arange(count),
        annotations=annotations,
    )


def predictions_of(keypoints: np.ndarray, order: np.ndarray | None = None) -> Predictions:
    order = np.arange(len(keypoints)) if order is None else order
    shape = keypoints.shape[:2]
    keypoints = keypoints[order].astype(np.float32)
    return Predictions(
        order, keypoints, np.ones(shape, np.float32), np.ones(shape, bool), np.ones(len(order), bool)
    )


def test_mpii_head_boxes_give_pckh_in_any_order():
    folder = shared_path("golden", "mpii_pckh")
    expected = json.loads((folder / "expected.json").read_text())
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        keypoints = file["predictions"][..., :2]
    order = np.random.default_rng(1).permutation(len(keypoints))
    table = table_of(len(keypoints), folder / "gt_valid.mat")
    evaluation = evaluate_predictions(table, predictions_of(keypoints, order))
    assert evaluation.headline == "Mean"
    assert evaluation.score == pytest.approx(expected["Mean"], abs=0.1), "float32 predictions"


def test_without_head_boxes_pck_of_the_box_is_given():
    table = table_of(6)
    evaluation = evaluate_predictions(table, predictions_of(table.joints + np.array([3.0, 4.0])))
    assert evaluation.headline == "PCK@0.2"
    assert evaluation.metrics["EPE"] == pytest.approx(5.0, abs=1e-4)
    assert evaluation.score == 1.0


def test_a_person_without_prediction_counts_as_wrong():
    table = table_of(4)
    predictions = predictions_of(table.joints)
    predictions.usable[1] = False
    evaluation = evaluate_predictions(table, predictions)
    assert evaluation.score == 0.75
    assert {row["image_id"] for row in evaluation.results} == {0, 2, 3}
