"""Each family of networks learns: to find figures it has not seen, and a few photographs by heart."""

from pathlib import Path

import pytest
from family_runs import (
    FAMILIES,
    Family,
    background_score,
    found_share,
    mean_iou,
    mean_pose_share,
    train_figures,
    train_masks,
    train_parts,
    train_photographs,
)
from toy_networks import register_toys

MARGIN = 0.1
"""By which a trained network must beat the trivial prediction."""

PERSONS = 4


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    register_toys(monkeypatch)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_figures_not_seen_are_found_better_than_by_the_mean_pose(family: Family, tmp_path: Path) -> None:
    run = train_figures(family, tmp_path)
    trivial = mean_pose_share(run)
    assert found_share(run) < trivial, "an untrained network must fail"
    run.fit()
    assert found_share(run) > trivial + MARGIN


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_few_photographs_are_learnt_by_heart(family: Family, tmp_path: Path) -> None:
    run = train_photographs(family, tmp_path, PERSONS)
    assert found_share(run) < 0.5
    run.fit()
    assert found_share(run) >= 0.9


def test_body_parts_of_figures_not_seen_are_told_apart(tmp_path: Path) -> None:
    run = train_parts(tmp_path)
    trivial = background_score(run.val_table)
    assert mean_iou(run) <= trivial, "an untrained network must fail"
    run.fit()
    assert mean_iou(run) > trivial + MARGIN


def test_masks_of_a_few_photographs_are_learnt_by_heart(tmp_path: Path) -> None:
    run = train_masks(tmp_path, PERSONS)
    assert mean_iou(run) < 0.5
    run.fit()
    assert mean_iou(run) >= 0.8
