"""COCO results and AP: the official pipeline's figures, and what it does with bad rows."""

import copy
import json

import numpy as np
import pytest
from conftest import shared_path
from tolerances import TOLERANCES

from fastpose.errors import DataError
from fastpose.keypoints import COCO_17
from fastpose.metrics.coco_eval import STATISTICS, coco_results, evaluate_coco

SIGMAS = COCO_17.sigmas


@pytest.fixture(scope="module")
def ground_truth():
    return shared_path("data", "coco_sample", "annotations", "person_keypoints_val2017.json")


@pytest.fixture(scope="module")
def predictions():
    with np.load(shared_path("golden", "coco_oks", "predictions.npz")) as file:
        area, score = file["center_scale_area_score"][:, 4:].T
        return file["image_id"], file["keypoints"], area, score


def truth_rows(count: int, *, joints: int = 3, first_id: int = 1) -> dict:
    """A ground truth of `count` persons, one per image, of 100 x 100 px and with joints on a diagonal."""
    diagonal = np.linspace(20, 80, joints)
    keypoints = np.stack([diagonal, diagonal, np.full(joints, 2.0)], axis=1).ravel().tolist()
    person = {"category_id": 1, "bbox": [0, 0, 100, 100], "keypoints": keypoints}
    return {
        "images": [{"id": number} for number in range(count)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": first_id + n, "image_id": n, **person} for n in range(count)],
    }


def perfect(truth: dict) -> list[dict]:
    return [
        {"image_id": row["image_id"], "category_id": 1, "keypoints": row["keypoints"], "score": 1.0}
        for row in truth["annotations"]
    ]


@pytest.mark.parametrize(("nms", "name"), [("hard", "oks_nms"), ("soft", "soft_nms")])
def test_golden(ground_truth, predictions, nms, name):
    expected = json.loads(shared_path("golden", "coco_oks", "expected.json").read_text())[name]
    got = evaluate_coco(ground_truth, coco_results(*predictions, SIGMAS, nms=nms))
    assert tuple(got) == STATISTICS == tuple(expected)
    atol, rtol = TOLERANCES["metric", "golden"]
    np.testing.assert_allclose(list(got.values()), list(expected.values()), atol=atol, rtol=rtol)


def test_is_quiet_and_changes_no_input(ground_truth, predictions, capsys):
    truth = json.loads(ground_truth.read_text())
    results = coco_results(*predictions, SIGMAS)
    before = copy.deepcopy((truth, results))
    assert evaluate_coco(truth, results) == evaluate_coco(ground_truth, results)
    assert (truth, results) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("nms", ["hard", "soft", "none"])
def test_order_of_rows_does_not_matter(ground_truth, predictions, nms):
    image_ids, keypoints, area, score = predictions
    score = np.round(score, 1)  # equal scores are where an order could show
    keypoints = keypoints.copy()
    keypoints[..., 2] = 0.5
    results = coco_results(image_ids, keypoints, area, score, SIGMAS, nms=nms)
    order = np.random.default_rng(3).permutation(len(score))
    again = coco_results(image_ids[order], keypoints[order], area[order], score[order], SIGMAS, nms=nms)
    assert results == again


def test_rescoring():
    keypoints = np.zeros((2, 3, 3))
    keypoints[0, :, 2] = 0.1, 0.4, 0.8  # 0.1 is below the threshold
    keypoints[1, :, 2] = 0.2
    results = coco_results(
        np.array([7, 8]), keypoints, np.ones(2), np.array([0.5, 0.5]), (0.1,) * 3, category_id=4
    )
    assert [row["score"] for row in results] == pytest.approx([0.3, 0.0])
    assert results[0] == {
        "image_id": 7,
        "category_id": 4,
        "keypoints": keypoints[0].ravel().tolist(),
        "score": results[0]["score"],
    }
    json.dumps(results)


def test_no_persons():
    assert coco_results(np.zeros(0, int), np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0), SIGMAS) == []


def test_suppression_is_per_image():
    scores = np.array([0.5, 0.9, 0.7, 0.6])
    persons = np.array([1, 1, 2, 2]), np.ones((4, 3, 3)), np.ones(4), scores, (0.1,) * 3
    rows = coco_results(*persons)
    assert [(row["image_id"], row["score"]) for row in rows] == [(1, 0.9), (2, 0.7)]
    assert len(coco_results(*persons, nms="none")) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_rows_that_are_not_finite_are_left_out(caplog, bad, column):
    keypoints = np.ones((2, 3, 3))
    keypoints[0, 1, column] = bad
    rows = coco_results(np.array([1, 2]), keypoints, np.ones(2), np.ones(2), (0.1,) * 3)
    assert [row["image_id"] for row in rows] == [2]
    assert "left out 1 of 2" in caplog.text


def test_all_nan_scores_zero_and_not_one(caplog):
    truth = truth_rows(3)
    results = [{**row, "keypoints": [np.nan] * 9} for row in perfect(truth)]
    got = evaluate_coco(truth, results, sigmas=(0.1,) * 3)
    assert got["AP"] == got["AR"] == 0.0
    assert "left out 3 of 3" in caplog.text


def test_no_results_score_zero(ground_truth):
    assert evaluate_coco(ground_truth, []) == dict.fromkeys(STATISTICS, 0.0)


@pytest.mark.parametrize("first_id", [0, 1])
def test_any_number_of_joints_and_annotations_with_the_least_fields(first_id):
    truth = truth_rows(4, first_id=first_id)
    got = evaluate_coco(truth, perfect(truth), sigmas=(0.1, 0.05, 0.02))
    assert got["AP"] == got["AR"] == got["AP (L)"] == 1.0
    assert got["AP (M)"] == -1.0  # no person of medium size


def test_sigmas_reach_the_evaluator():
    truth = truth_rows(2)
    results = [{**row, "keypoints": [value + 8 for value in row["keypoints"]]} for row in perfect(truth)]
    assert evaluate_coco(truth, results, sigmas=(0.01,) * 3)["AP"] == 0.0
    assert evaluate_coco(truth, results, sigmas=(1.0,) * 3)["AP"] == 1.0


def test_image_ids_restrict_the_evaluation():
    truth = truth_rows(4)
    results = perfect(truth)[:2]
    assert evaluate_coco(truth, results, sigmas=(0.1,) * 3)["AR"] == 0.5
    wrong = [{**results[0], "image_id": number, "score": 2.0} for number in (2, 3)]
    got = evaluate_coco(truth, results + wrong, sigmas=(0.1,) * 3, image_ids=[0, 1])
    assert got["AP"] == got["AR"] == 1.0


def test_more_than_20_detections_and_far_away_points():
    truth = truth_rows(1)
    (row,) = perfect(truth)
    far = [{**row, "keypoints": [1e30] * 9, "score": 2.0 + n} for n in range(20)]
    assert evaluate_coco(truth, [row, *far], sigmas=(0.1,) * 3)["AR"] == 0.0
    assert evaluate_coco(truth, [row, *far[1:]], sigmas=(0.1,) * 3)["AR"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": [{"image_id": 1}]}, "results row 0: expected category_id, image_id, keypoints, score"),
        ({"image": 99}, "image_id: 99 not in the ground truth"),
        ({"category": 3}, "category_id: 3 not in the ground truth"),
        ({"sigmas": (0.1,) * 4}, "annotation 1: expected 12 numbers"),
        ({"sigmas": None}, "sigmas: needed for ground truth of 3 keypoints"),
        ({"image_ids": [0, 5]}, "image_ids: 5 not in the ground truth"),
        ({"image_ids": []}, "no person with keypoints in 0 images"),
        ({"ground_truth": {"images": []}}, "ground truth: expected a list 'categories'"),
        ({"ground_truth": {"images": [1]}}, "a list 'images' whose rows have id"),
        ({"ground_truth": "nowhere/gt.json"}, r"nowhere/gt\.json: cannot be read"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_rejects(change, message):
    truth = truth_rows(2)
    results = perfect(truth)
    results[0] |= {"image_id": change.pop("image", 0), "category_id": change.pop("category", 1)}
    arguments = {"ground_truth": truth, "results": results, "sigmas": (0.1,) * 3, **change}
    with pytest.raises(DataError, match=message):
        evaluate_coco(arguments.pop("ground_truth"), arguments.pop("results"), **arguments)


def test_rejects_broken_json(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text('{"images": [')
    with pytest.raises(DataError, match=r"gt\.json: not a json file"):
        evaluate_coco(path, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keypoints": np.zeros((2, 4, 3))}, r"keypoints: expected \(2, 3, 3\)"),
        ({"area": np.ones(3)}, r"area: expected \(2,\), got \(3,\)"),
        ({"box_score": np.ones((2, 1))}, r"box_score: expected \(2,\)"),
        ({"nms": "medium"}, "nms: expected one of hard, soft, none, got 'medium'"),
    ],
    ids=["keypoints", "area", "box_score", "nms"],
)
def test_rejects_rows(arguments, message):
    good = {
        "image_ids": np.arange(2),
        "keypoints": np.zeros((2, 3, 3)),
        "area": np.ones(2),
        "box_score": np.ones(2),
        "sigmas": (0.1,) * 3,
    }
    with pytest.raises(DataError, match=message):
        coco_results(**{**good, **arguments})
