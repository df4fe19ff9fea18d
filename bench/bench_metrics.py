"""Evaluation in persons a second, and how fast rendered figures are drawn; one core."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest

from bench.official_metrics import oks_ap, pckh
from bench.rows import Case, Rows
from fastpose.data.figures import FigureImages, read_figures
from fastpose.metrics.coco_eval import evaluate_coco
from fastpose.metrics.coco_results import coco_results
from fastpose.metrics.pckh import COLUMNS, pckh_from_arrays

PICTURES, PERSONS, DRAWN, JOINTS = 250, 2958, 16, 16
ERROR = 4.0  # pixels, standard deviation of made detections
rows = Rows("metrics")


def coco_case() -> Case:
    """Detections are the annotated joints moved at random, for rendered figures with exact labels."""
    table = read_figures(PICTURES)
    truth: Any = table.annotations
    rng = np.random.default_rng(0)
    moved = table.joints + rng.normal(0, ERROR, table.joints.shape)
    keypoints = np.concatenate([moved, rng.random(table.joints.shape[:2])[..., None]], axis=2)
    area = np.prod(table.scale.astype(np.float64) * 200.0, axis=1)
    ids = table.image_ids[table.image_index]
    sigmas = np.asarray(table.keypoints.sigmas)
    results = coco_results(ids, keypoints, area, rng.random(len(table)), sigmas)
    official = functools.partial(oks_ap, copy.deepcopy(truth), copy.deepcopy(results))

    def check() -> None:
        got, expected = np.array(list(evaluate_coco(truth, results).values())), official()
        np.testing.assert_array_equal(got, expected)
        assert 0.05 < got[0] < 0.95, f"AP {got[0]:.3f}: the made detections are too good or too bad to tell"

    return Case(
        candidate=functools.partial(evaluate_coco, truth, results),
        rivals={"pycocotools": official},
        check=check,
        items=len(table),
        unit="persons",
    )


def pckh_case() -> Case:
    """As many persons as MPII's validation set has."""
    rng = np.random.default_rng(0)
    truth = rng.random((PERSONS, JOINTS, 2)) * 500
    keypoints = truth + rng.normal(0, 20, truth.shape)
    visible, head_size = rng.random(truth.shape[:2]) > 0.1, rng.random(PERSONS) * 60 + 30
    inputs = keypoints, truth, visible, head_size

    def check() -> None:
        got, (rates, mean) = pckh_from_arrays(*inputs), pckh(*inputs)
        for name, joints in COLUMNS.items():
            np.testing.assert_allclose(got[name], np.mean([rates[k] for k in joints]), rtol=1e-12)
        np.testing.assert_allclose(got["Mean"], mean, rtol=1e-12)

    return Case(
        candidate=functools.partial(pckh_from_arrays, *inputs),
        rivals={"NumPy loop": functools.partial(pckh, *inputs)},
        check=check,
        items=PERSONS,
        unit="persons",
    )


def figures_case() -> Case:
    """Rendering as a loader's worker does, a picture at a time."""
    images = FigureImages(DRAWN)
    names = [f"{number:012d}.jpg" for number in range(1, DRAWN + 1)]

    def draw() -> list[np.ndarray]:
        return [images.read(name) for name in names]

    def check() -> None:
        first, again = draw(), draw()
        for one, other in zip(first, again, strict=True):
            assert one.shape == (256, 256, 3)
            assert one.dtype == np.uint8
            assert np.array_equal(one, other), "a picture differs from draw to draw"
        assert len({one.tobytes() for one in first}) == DRAWN, "two pictures are the same"

    return Case(candidate=draw, rivals={}, check=check, items=DRAWN, unit="images")


rows(
    "oks-ap",
    group="metrics",
    device="cpu",
    what=f"OKS-AP of the persons in {PICTURES} pictures",
    headline=True,
)(coco_case)
rows("pckh", group="metrics", device="cpu", what=f"PCKh of {PERSONS} persons")(pckh_case)
rows("figures", group="metrics", device="cpu", what="rendered figures of 256x256")(figures_case)


@pytest.mark.parametrize("row", rows, ids=str)
def bench_metrics(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
