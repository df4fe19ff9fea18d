"""Tables of metrics: the official order, three decimals, 80 columns."""

import json

import pytest
from conftest import shared_path

from fastpose.infer.table import metric_table


def test_coco_row():
    metrics = json.loads(shared_path("golden/coco_oks/expected.json").read_text())["oks_nms"]
    assert metric_table(metrics, "hrnet_w32").splitlines() == [
        "hrnet_w32",
        "   AP  Ap .5  AP .75  AP (M)  AP (L)     AR  AR .5  AR .75  AR (M)  AR (L)",
        "0.648  0.944   0.635   0.815   0.563  0.850  1.000   0.917   0.820   0.871",
    ]


def test_pckh_row():
    metrics = json.loads(shared_path("golden/mpii_pckh/expected.json").read_text())
    assert metric_table(metrics, "MPII").splitlines()[1:] == [
        "  Head  Shoulder   Elbow   Wrist     Hip    Knee   Ankle    Mean  Mean@0.1",
        "57.143    58.393  70.563  62.561  65.290  53.611  64.802  62.448    32.988",
    ]


def test_more_metrics_go_on_below_and_stay_within_80_columns():
    metrics = {f"metric {number}": number / 7 for number in range(30)}
    lines = metric_table(metrics, "many").splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.replace("metric ", "metric_").split() for line in lines if "metric" in line]
    assert [name for row in names for name in row] == [f"metric_{number}" for number in range(30)]
    assert lines[3] == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, -1.0], ids=str)
def test_nothing_to_measure(value):
    assert metric_table({"AP (M)": value}, "t").splitlines()[2].strip() == "n/a"


def test_no_metrics():
    assert metric_table({}, "title") == "title"
