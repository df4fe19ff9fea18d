"""The check finds every problem in one pass."""

import json
import os
from functools import partial

import cv2
import numpy as np
import pytest
from conftest import shared_path
from tiny_coco import picture, write_coco

from fastpose.data.check import check_coco, check_data, check_mpii
from fastpose.errors import DataError


@pytest.fixture
def coco(tmp_path):
    return partial(write_coco, tmp_path)


def found(report):
    return {(problem.kind, problem.where) for problem in report.problems}


@pytest.mark.parametrize(
    ("folder", "images", "persons"), [("coco_mini", 28, 86), ("coco_sample", 4, 12), ("mpii_sample", 10, 10)]
)
def test_samples_are_clean(folder, images, persons):
    report = check_data(shared_path("data", folder), decode=True)
    assert (report.problems, report.images, report.persons) == ([], images, persons)
    assert str(report).splitlines()[-1] == f"{images} images, {persons} usable persons, 0 problems"


def test_crowdpose_departures_are_listed():
    folder = shared_path("data", "crowdpose_sample")
    report = check_data(folder / "annotations" / "test_crowdpose.json", images=folder / "images")
    assert report.counts == {"area": 5, "num_keypoints": 4, "categories": 1}
    assert report.persons == 4


def test_every_problem_at_once(coco, tmp_path):
    def break_everything(content):
        images, people = content["images"], content["annotations"]
        images[0]["width"] = 81
        images.append({"id": 10, "file_name": "0.jpg", "width": 81, "height": 60})
        images.append({"id": 20, "file_name": "../secret.jpg", "width": 8, "height": 8})
        images.append({"id": 21, "file_name": "gone.jpg", "width": 8, "height": 8})
        images.append({"id": "22", "file_name": "2.jpg", "width": 8, "height": 8})
        images.append({"id": 23, "file_name": "out.jpg", "width": 8, "height": 0})
        people[0]["keypoints"][:3] = [200, 5, 2]
        people[1].update(id=1, num_keypoints=3)
        people[2].update(bbox=[0, 0, 0, 0], category_id=9, image_id=99)
        people[3]["keypoints"].pop()
        people.append({**people[0], "id": 50, "bbox": [1, 2, 1e400, 4], "area": -1})
        people.append({**people[0], "id": "51", "image_id": "10", "bbox": [500, 2, 3, 4]})
        people[0]["keypoints"][5] = 7

    annotations, images = coco(break_everything)
    annotations.write_text(annotations.read_text().replace("Infinity", "1e400"))
    cv2.imwrite(str(tmp_path / "secret.jpg"), picture(0))
    os.symlink(tmp_path / "secret.jpg", images / "out.jpg")
    (images / "1.jpg").write_bytes(b"no picture at all")
    report = check_coco(annotations, images)
    assert found(report) == {
        ("image size", "image 10 (0.jpg)"),
        ("image id", "image 10"),
        ("image path", "image 20 ('../secret.jpg')"),
        ("image missing", "image 'gone.jpg'"),
        ("image id", "images[6]"),
        ("image size", "image 23"),
        ("image path", "image 'out.jpg'"),
        ("image unreadable", "image '1.jpg'"),
        ("joints", "annotation 1"),
        ("visibility", "annotation 1"),
        ("annotation id", "annotation 1"),
        ("num_keypoints", "annotation 1"),
        ("bbox", "annotation 3"),
        ("category_id", "annotation 3"),
        ("image_id", "annotation 3"),
        ("keypoints", "annotation 4"),
        ("bbox", "annotation 50"),
        ("area", "annotation 50"),
        ("joints", "annotation 50"),
        ("visibility", "annotation 50"),
        ("annotation id", "annotations[5]"),
        ("image_id", "annotations[5]"),
        ("visibility", "annotations[5]"),
    }
    text = str(report)
    assert "nose (200, 5)" in text
    assert all(problem.message in text for problem in report.problems)
    assert (
        text.splitlines()[-1] == f"8 images, {report.persons} usable persons, {len(report.problems)} problems"
    )


def test_pixels_are_looked_at_on_request(coco):
    annotations, images = coco()
    data = (images / "2.jpg").read_bytes()
    (images / "2.jpg").write_bytes(data[: len(data) * 3 // 4])
    assert check_coco(annotations, images).problems == []
    report = check_coco(annotations, images, decode=True)
    assert found(report) == {("image unreadable", "image '2.jpg'")}
    assert "cut short" in str(report)


def test_broken_json_is_one_problem_with_its_position(coco):
    annotations, images = coco()
    annotations.write_text(annotations.read_text()[:500])
    report = check_coco(annotations, images)
    assert [problem.kind for problem in report.problems] == ["json"]
    assert "line 1 column" in report.problems[0].message
    assert report.persons == 0


def test_nan_is_reported_and_the_rest_still_looked_at(coco):
    def change(content):
        content["annotations"][0]["bbox"][0] = float("nan")
        content["annotations"][1]["num_keypoints"] = 1

    report = check_coco(*coco(change))
    assert found(report) == {
        ("json", report.name),
        ("bbox", "annotation 1"),
        ("num_keypoints", "annotation 2"),
    }


def test_missing_folder_and_empty_files_are_problems(coco, tmp_path):
    annotations, _ = coco(lambda content: content.update(annotations=[]))
    report = check_coco(annotations, tmp_path / "gone")
    assert [problem.kind for problem in report.problems] == ["image root", "persons"]
    report = check_coco(annotations, tmp_path / "images" / "tiny")
    assert report.counts == {"persons": 1}
    assert check_coco(tmp_path / "gone.json", tmp_path).counts == {"json": 1}


def test_limit_says_how_many_more(coco):
    def change(content):
        for annotation in content["annotations"]:
            annotation["num_keypoints"] = 3

    lines = list(check_coco(*coco(change)).lines(limit=1))
    assert sum("num_keypoints: annotation" in line for line in lines) == 1
    assert "  num_keypoints: 3 more" in lines


def test_folder_with_several_splits_names_the_file(coco, tmp_path):
    annotations, images = coco(lambda content: content["annotations"][0].update(iscrowd=1))
    images.rename(images.with_name("kept"))
    second = annotations.with_name("person_keypoints_kept.json")
    second.write_text(annotations.read_text())
    report = check_data(tmp_path)
    assert (report.images, report.persons, dict(report.skipped)) == (6, 3, {"crowd": 1})
    assert [problem.kind for problem in report.problems] == ["image root"]
    assert report.problems[0].where.startswith("person_keypoints_tiny.json: ")


def test_mpii_problems(tmp_path):
    joints = [[5.0, 5.0]] * 16
    good = {"image": "a.png", "center": [5, 5], "scale": 0.1, "joints": joints, "joints_vis": [1] * 16}
    entries = [
        good,
        {**good, "joints": [[99.0, 5.0], *joints[1:]]},
        {**good, "joints_vis": [2] * 16},
        {**good, "scale": 0},
        {**good, "joints": joints[1:]},
        {**good, "image": "gone.png"},
        {**good, "image": "/a.png"},
        {**good, "image": 3},
    ]
    for folder in ("annot", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annot" / "valid.json").write_text(json.dumps(entries))
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((10, 10, 3), np.uint8))
    report = check_mpii(tmp_path, "valid")
    assert found(report) == {
        ("joints", "entry 1"),
        ("visibility", "entry 2"),
        ("center", "entry 3"),
        ("joints", "entry 4"),
        ("image missing", "image 'gone.png'"),
        ("image path", "image '/a.png'"),
        ("image path", "entry 7"),
    }
    assert (report.images, report.persons) == (3, 4)
    (tmp_path / "annot" / "valid.json").write_text("[{")
    assert check_mpii(tmp_path, "valid").counts == {"json": 1}


def test_no_dataset_names_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="no dataset there"):
        check_data(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        check_data(tmp_path / "gone")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="where the pictures"):
        check_data(tmp_path / "a.json")
