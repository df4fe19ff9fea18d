"""Detector boxes."""

import json

import numpy as np
import pytest
from conftest import shared_path
from tiny_coco import write_coco

from fastpose.data.coco import coco_layout, read_detections
from fastpose.errors import DataError

GOOD = {"image_id": 11, "category_id": 1, "bbox": [-5.0, 10, 100, 40], "score": 0.5}


@pytest.fixture
def detect(tmp_path):
    def run(entries, **options):
        file = tmp_path / "boxes.json"
        file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return read_detections(file, *write_coco(tmp_path), aspect_ratio=0.75, **options)

    return run


def test_sample_has_118_boxes_in_file_order():
    folder = shared_path("data", "coco_sample")
    file = folder / "person_detection_results" / "COCO_val2017_detections_AP_H_56_person.json"
    table = read_detections(file, *coco_layout(folder, "val2017"), aspect_ratio=0.75)
    entries = json.loads(file.read_text())
    assert len(table) == 118
    assert np.array_equal(table.box, [entry["bbox"] for entry in entries])
    assert np.allclose(table.score, [entry["score"] for entry in entries])
    assert table.image_ids[table.image_index].tolist() == [entry["image_id"] for entry in entries]
    assert not table.joints.any()
    assert not table.visible.any()
    assert set(table.annotation_id.tolist()) == {-1}


def test_boxes_are_not_clipped(detect):
    table = detect([GOOD])
    assert table.box.tolist() == [GOOD["bbox"]]
    assert table.center.tolist() == [[45, 30]]
    assert np.allclose(table.scale * 200, [[125, 125 / 0.75]])


def test_threshold_keeps_equal_scores(detect):
    entries = [{**GOOD, "score": score} for score in (0.1, 0.5, 0.9)]
    table = detect(entries, score_threshold=0.5)
    assert np.allclose(table.score, [0.5, 0.9])
    assert table.skipped == {"score below threshold": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 2}, "other category"),
        ({"bbox": [0, 0, 0, 5]}, "box without area"),
        ({"bbox": [0, 0, 5, -1]}, "box without area"),
        ({"bbox": [81, 0, 5, 5]}, "box outside the image"),
        ({"bbox": [0, -9, 5, 5]}, "box outside the image"),
    ],
    ids=str,
)
def test_left_out_by_rule(detect, change, reason):
    table = detect([GOOD, {**GOOD, **change}], on_bad="stop")
    assert (len(table), dict(table.skipped)) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [0, 0, 1e9, 5]}, "bbox: beyond"),
        ({"bbox": [0, 0, 1]}, "bbox: 3 numbers"),
        ({"score": None}, "score is not a number"),
        ({"image_id": 99}, "image_id"),
        ({"image_id": "11"}, "image_id"),
    ],
    ids=str,
)
def test_malformed_entries_are_counted_or_named(detect, change, reason):
    entries = [GOOD, {**GOOD, **change}]
    assert sum(detect(entries).skipped.values()) == 1
    with pytest.raises(DataError, match=rf"boxes\.json: entry 1: {reason}"):
        detect(entries, on_bad="stop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": []}', "list of boxes, got an object with"),
        ("[1]", "entry 0 must be an object"),
        ("[]", "no usable person"),
        ('[{"score": ', "broken json at line 1"),
    ],
)
def test_wrong_files_are_named(detect, text, message):
    with pytest.raises(DataError, match=message):
        detect(text)
