"""Poses to COCO results and detector boxes back to pictures."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_path

from fastpose.errors import DataError, OutputError
from fastpose.infer.result import Boxes, Keypoints, Result
from fastpose.infer.results import image_id_of, pose_rows, read_boxes, write_results
from fastpose.keypoints import COCO_17

BOX = [10, 20, 30, 40]


def poses(file="a.jpg", count=1, joints=3, image_id=None, **changes):
    """A result with random people; `changes` replace xy, conf, boxes or box_conf, or some of their values."""
    rng = np.random.default_rng(0)
    values = {
        "xy": rng.uniform(0, 100, (count, joints, 2)).astype(np.float32),
        "conf": rng.uniform(0.3, 1, (count, joints)).astype(np.float32),
        "boxes": rng.uniform(0, 100, (count, 4)),
        "box_conf": rng.uniform(0, 1, count),
    }
    for name, value in changes.items():
        values[name][...] = value
    shape = (100, 100)
    valid = np.isfinite(values["xy"]).all(axis=2)
    return Result(
        name=str(file),
        orig_shape=shape,
        boxes=Boxes(values["boxes"], values["box_conf"], shape),
        keypoints=Keypoints(values["xy"], values["conf"], valid, shape),
        keypoint_set=COCO_17,
        path=None if file is None else Path(file),
        image_id=image_id,
    )


def boxes_file(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000000785.jpg", 785),
        ("folder/12.png", 12),
        ("beach.jpg", "beach"),
        ("12a.jpg", "12a"),
        ("²3.jpg", "²3"),
        ("9" * 40 + ".jpg", "9" * 40),
    ],
    ids=["coco", "folder", "word", "mixed", "superscript", "longer-than-64-bits"],
)
def test_image_id(name, expected):
    assert image_id_of(name) == expected


def test_rows_hold_what_the_poses_hold():
    found = poses("photos/000000000785.jpg", count=2)
    rows = pose_rows(found)
    assert [row["image_id"] for row in rows] == [785, 785]
    assert rows[1]["file_name"] == "photos/000000000785.jpg"
    assert rows[1]["category_id"] == 1
    triples = np.array(rows[1]["keypoints"]).reshape(3, 3)
    np.testing.assert_allclose(triples[:, :2], found.keypoints.xy[1], atol=1e-4)
    np.testing.assert_allclose(triples[:, 2], found.keypoints.conf[1], atol=1e-4)
    np.testing.assert_allclose(rows[1]["bbox"], found.boxes.xywh[1], atol=1e-4)
    expected = found.boxes.conf[1] * found.keypoints.conf[1].mean()
    assert rows[1]["score"] == pytest.approx(expected, rel=1e-6)


def test_person_score_is_the_official_one():
    """Only joints above 0.2 count in the mean, and a person without any scores 0."""
    conf = [[0.9, 0.5, 0.1], [0.15, 0.1, 0.0]]
    rows = pose_rows(poses(count=2, conf=conf, box_conf=0.5))
    assert [row["score"] for row in rows] == pytest.approx([0.35, 0.0])


def test_joint_that_is_not_finite_is_written_absent():
    xy, conf = np.full((1, 3, 2), 50.0), np.full((1, 3), 0.5)
    xy[0, 1] = np.nan
    conf[0, 2] = np.inf
    (row,) = pose_rows(poses(xy=xy, conf=conf, box_conf=0.5))
    assert row["keypoints"][:3] == [50.0, 50.0, 0.5]
    assert row["keypoints"][3:] == [0.0] * 6
    assert row["score"] == pytest.approx(0.25)


def test_picture_without_a_file_is_known_by_its_place():
    found = poses(None, image_id=None)
    found.index = 5
    (row,) = pose_rows(found, category_id=3)
    assert (row["image_id"], row["category_id"]) == (5, 3)
    assert "file_name" not in row
    found.path, found.frame = Path("clip.mp4"), 12
    (row,) = pose_rows(found)
    assert (row["image_id"], row["frame"], row["file_name"]) == (12, 12, "clip.mp4")


def test_written_file_is_read_back(tmp_path):
    numpy_row = {"image_id": np.int64(7), "bbox": np.ones(4), "score": np.float32(1)}
    rows = [*pose_rows(poses(count=3)), numpy_row]
    path = tmp_path / "new" / "results.json"
    write_results(path, rows)
    read = json.loads(path.read_text())
    assert read[:3] == rows[:3]
    assert read[3] == {"image_id": 7, "bbox": [1.0] * 4, "score": 1.0}
    assert list(path.parent.iterdir()) == [path]


def test_nobody_found_is_an_empty_list(tmp_path):
    assert pose_rows(poses(count=0)) == []
    write_results(tmp_path / "results.json", [])
    assert json.loads((tmp_path / "results.json").read_text()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}], ids=["nan", "inf", "set"])
def test_value_without_json_form_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_results(path, [{"score": value}])
    assert path.read_text() == "old"


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_results(tmp_path / "file" / "results.json", [])
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError, match=r"folder\.json"):
        write_results(tmp_path / "folder.json", [])


def test_official_detections(caplog):
    path = shared_path(
        "data/coco_sample/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    )
    files = sorted(shared_path("data/coco_sample/images/val2017").glob("*.jpg"))
    rows = json.loads(path.read_text())
    found = read_boxes(path, files)
    assert list(found) == files
    for file in files:
        own = [row for row in rows if row["image_id"] == int(file.stem)]
        assert found[file].image_id == int(file.stem)
        assert found[file].boxes.tolist() == [row["bbox"] for row in own]
        assert found[file].scores.tolist() == [row["score"] for row in own]
    with caplog.at_level(logging.INFO, "fastpose"):
        few = read_boxes(path, files[:1], min_score=0.5)
    assert few[files[0]].scores.min() >= 0.5
    assert "with a score below 0.5" in caplog.text
    assert "of other pictures" in caplog.text


@pytest.mark.parametrize(
    ("row", "index"),
    [
        pytest.param({"image_id": 785}, 0, id="number"),
        pytest.param({"image_id": "000785"}, 0, id="number-as-text"),
        pytest.param({"image_id": "beach"}, 1, id="stem"),
        pytest.param({"file_name": "beach.jpg"}, 1, id="name"),
        pytest.param({"file_name": "photos/beach.jpg", "image_id": 785}, 1, id="name-before-id"),
        pytest.param({"file_name": "/elsewhere/photos/beach.jpg"}, 1, id="longer-path"),
    ],
)
def test_row_finds_its_picture(tmp_path, row, index):
    files = [Path("photos/000000000785.jpg"), Path("photos/beach.jpg")]
    found = read_boxes(boxes_file(tmp_path, [row | {"bbox": BOX}]), files)
    assert found[files[index]].boxes.tolist() == [BOX]
    assert found[files[index]].scores.tolist() == [1.0]
    assert found[files[1 - index]].boxes.shape == (0, 4)
    assert found[files[1]].image_id == row.get("image_id", "beach") if index else 785


def test_other_categories_and_pictures_are_left_out(tmp_path):
    rows = [
        {"image_id": 1, "bbox": BOX, "category_id": 1},
        {"image_id": 1, "bbox": BOX, "category_id": 3},
        {"image_id": 2, "bbox": BOX, "category_id": 1},
    ]
    path, files = boxes_file(tmp_path, rows), [Path("1.jpg")]
    assert len(read_boxes(path, files)[files[0]].boxes) == 1
    assert len(read_boxes(path, files, category_id=None)[files[0]].boxes) == 2


def test_results_are_boxes_again(tmp_path):
    """What predict writes can be given to predict."""
    files = [Path("a/beach.jpg"), Path("b/beach.jpg")]
    found = poses(files[1], count=2, image_id="beach")
    write_results(tmp_path / "results.json", pose_rows(found))
    again = read_boxes(tmp_path / "results.json", files)
    np.testing.assert_allclose(again[files[1]].boxes, found.boxes.xywh, atol=1e-4)
    assert len(again[files[0]].boxes) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("[]", "no box to use .the list is empty", id="empty"),
        pytest.param(
            [{"image_id": 9, "bbox": BOX}], "no box to use .1 of other pictures", id="other-pictures"
        ),
        pytest.param('[{"image_id": 1,', "is not JSON", id="cut"),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
        pytest.param("\0", "is not JSON", id="nul"),
        pytest.param({"annotations": []}, "is an annotation file", id="annotation-file"),
        pytest.param({"a": 1}, "got dict", id="object"),
        pytest.param([3], "row 0: expected an object", id="row-is-number"),
        pytest.param([{"image_id": 1}], "row 0: bbox must be", id="no-bbox"),
        pytest.param([{"image_id": 1, "bbox": [1, 2, 3]}], "row 0: bbox must be", id="three-numbers"),
        pytest.param([{"image_id": 1, "bbox": [1, 2, 3, "4"]}], "row 0: bbox must hold numbers", id="text"),
        pytest.param([{"image_id": 1, "bbox": [1, 2, 3, True]}], "row 0: bbox must hold numbers", id="bool"),
        pytest.param([{"image_id": 1, "bbox": [10**400, 2, 3, 4]}], "too large", id="huge"),
        pytest.param([{"image_id": 1, "bbox": BOX, "score": None}], "row 0: score must hold", id="no-score"),
        pytest.param('[{"image_id":1,"bbox":[1,2,3,4],"score":NaN}]', "score must be finite", id="nan-score"),
        pytest.param([{"bbox": BOX}], "row 0: needs an image_id or a file_name", id="no-picture"),
        pytest.param([{"bbox": BOX, "image_id": 1.5}], "needs an image_id", id="fractional-id"),
        pytest.param([{"bbox": BOX, "file_name": "same.jpg"}], "means both", id="ambiguous"),
        pytest.param([{"bbox": BOX, "file_name": ""}], "1 of other pictures", id="empty-name"),
    ],
)
def test_broken_boxes_are_refused_by_row(tmp_path, content, message):
    files = [Path("1.jpg"), Path("a/same.jpg"), Path("b/same.jpg")]
    with pytest.raises(DataError, match=message) as caught:
        read_boxes(boxes_file(tmp_path, content), files)
    assert "boxes.json" in str(caught.value)


def test_missing_boxes_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_boxes(tmp_path / "none.json", [Path("1.jpg")])
