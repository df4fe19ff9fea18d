"""COCO files: the official rules, exact numbers, and every malformation counted or named."""

import json
import time
from functools import partial

import numpy as np
import pytest
from conftest import shared_path
from tiny_coco import write_coco

from fastpose.data.annotations import load_json
from fastpose.data.coco import clean_boxes, coco_layout, read_coco
from fastpose.errors import DataError, ImageError
from fastpose.keypoints import COCO_17, MPII_16


@pytest.fixture
def coco(tmp_path):
    return partial(write_coco, tmp_path)


def read(paths, **options):
    return read_coco(*paths, aspect_ratio=0.75, **options)


@pytest.mark.parametrize(
    ("folder", "split", "persons", "images", "skipped"),
    [
        ("coco_mini", "train2017", 86, 28, {"no keypoints": 56, "crowd": 5}),
        ("coco_sample", "val2017", 12, 4, {"no keypoints": 2}),
    ],
)
def test_sample_counts(folder, split, persons, images, skipped):
    table = read(coco_layout(shared_path("data", folder), split))
    assert (len(table), len(table.image_ids), dict(table.skipped)) == (persons, images, skipped)
    assert table.keypoints is COCO_17
    assert (table.scale > 0).all()
    assert np.allclose(table.scale[:, 0] / table.scale[:, 1], 0.75, atol=1e-6)


def test_first_person_of_the_sample_in_numbers():
    paths = coco_layout(shared_path("data", "coco_sample"), "val2017")
    table = read(paths)
    content = json.loads(paths[0].read_text())
    row = next(i for i, a in enumerate(content["annotations"]) if a["id"] == table.annotation_id[0])
    x, y, width, height = content["annotations"][row]["bbox"]
    assert content["images"][0]["id"] == content["annotations"][row]["image_id"] == 785
    assert np.allclose(table.box[0], [x, y, width - 1, height - 1])
    assert np.allclose(table.center[0], [x + (width - 1) / 2, y + (height - 1) / 2])
    side = max(width - 1, (height - 1) * 0.75)
    assert np.allclose(table.scale[0], [side * 1.25 / 200, side / 0.75 * 1.25 / 200])


def test_wholebody_file_is_read_as_coco():
    table = read(
        (shared_path("data", "coco_sample", "annotations", "test_coco_wholebody.json"), shared_path("data"))
    )
    assert (table.keypoints, len(table)) == (COCO_17, 12)


def test_persons_follow_images_then_annotations(coco):
    table = read(coco())
    assert table.annotation_id.tolist() == [2, 3, 4, 1]
    assert table.image_index.tolist() == [0, 0, 1, 2]
    assert table.file_names[table.image_index].tolist() == ["0.jpg", "0.jpg", "1.jpg", "2.jpg"]
    assert table.image_sizes.tolist() == [[80, 60]] * 3
    assert table.joints.shape == (4, 17, 2)
    assert table.area.tolist() == [900] * 4
    assert table.images.read("0.jpg").shape == (60, 80, 3)


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ([20, 10, 30, 40], [80, 60], [20, 10, 29, 39]),
        ([-5, -7, 30, 40], [80, 60], [0, 0, 29, 39]),
        ([60, 40, 30, 40], [80, 60], [60, 40, 19, 19]),
        ([60, 40, 30, 40], [0, 0], [60, 40, 29, 39]),
        ([79, 10, 30, 40], [80, 60], [79, 10, 0, 39]),
        ([80, 10, 30, 40], [80, 60], None),
        ([20, 10, 0, 40], [80, 60], [20, 10, 0, 39]),
        ([20, 10, 1, 1], [80, 60], None),
    ],
    ids=["inside", "top-left", "bottom-right", "unknown-size", "edge", "outside", "thin", "point"],
)
def test_boxes_are_cleaned_as_in_the_official_reader(box, size, expected):
    clean, keep = clean_boxes(np.array([box], float), np.array([100.0]), np.array([size]))
    assert keep[0] == (expected is not None)
    if expected is not None:
        assert clean[0].tolist() == expected


@pytest.mark.parametrize(("area", "kept"), [(0.0, False), (-1.0, False), (1.0, True), (np.nan, True)])
def test_boxes_need_annotated_area(area, kept):
    _, keep = clean_boxes(np.array([[1, 1, 9, 9.0]]), np.array([area]), np.array([[80, 60]]))
    assert keep[0] == kept


def test_hidden_joints_count_as_visible(coco):
    def hide(content):
        content["annotations"][1]["keypoints"][2] = 1
        content["annotations"][1]["keypoints"][5] = 0

    table = read(coco(hide))
    assert table.visible[0].tolist() == [1, 0] + [1] * 15


def test_official_rules_leave_out_and_count(coco):
    def change(content):
        annotations = content["annotations"]
        annotations[0]["iscrowd"] = 1
        annotations[1]["keypoints"] = [0] * 51
        annotations[2]["area"] = 0
        annotations.append({"id": 9, "image_id": 10, "category_id": 18, "bbox": [0, 0, 5, 5]})

    table = read(coco(change), on_bad="stop")
    assert len(table) == 1
    assert table.skipped == {"crowd": 1, "no keypoints": 1, "box without area": 1, "other category": 1}


MALFORMED = {
    "short keypoints": (lambda a: a["keypoints"].pop(), "keypoints: 50 numbers instead of 51"),
    "no keypoints": (lambda a: a.pop("keypoints"), "keypoints: missing"),
    "keypoint text": (lambda a: a["keypoints"].__setitem__(0, "3"), "keypoints: not numbers"),
    "keypoint null": (lambda a: a["keypoints"].__setitem__(0, None), "keypoints: not numbers"),
    "keypoint huge": (lambda a: a["keypoints"].__setitem__(0, 10**400), "keypoints: not finite"),
    "keypoint far": (lambda a: a["keypoints"].__setitem__(0, 1e9), "keypoints: beyond 1e+06 pixels"),
    "box far": (lambda a: a.update(bbox=[0, 0, 1e9, 5]), "bbox: beyond 1e+06 pixels"),
    "box short": (lambda a: a.update(bbox=[0, 0, 5]), "bbox: 3 numbers instead of 4"),
    "box dict": (lambda a: a.update(bbox={}), "bbox: not a list but dict"),
    "area text": (lambda a: a.update(area="5"), "area is not a number"),
    "id text": (lambda a: a.update(id="7"), "id is not an integer"),
    "id missing": (lambda a: a.pop("id"), "id is not an integer"),
    "id twice": (lambda a: a.update(id=3), "duplicate annotation id"),
    "image unknown": (lambda a: a.update(image_id=99), "image_id is not that of a usable image"),
    "image text": (lambda a: a.update(image_id="10"), "image_id is not that of a usable image"),
    "category text": (lambda a: a.update(category_id="1"), "category_id is not an integer"),
}


@pytest.mark.parametrize("kind", MALFORMED, ids=lambda kind: kind.replace(" ", "-"))
def test_malformed_annotations_are_counted_or_named(coco, kind):
    change, reason = MALFORMED[kind]
    paths = coco(lambda content: change(content["annotations"][3]))
    table = read(paths)
    assert len(table) == 3
    assert table.skipped == {reason: 1}
    with pytest.raises(DataError, match=r"person_keypoints_tiny\.json: annotation") as caught:
        read(paths, on_bad="stop")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"file_name": "../0.jpg"},
        {"file_name": "/etc/passwd"},
        {"file_name": None},
        {"id": "10"},
        {"id": True},
    ],
    ids=str,
)
def test_persons_of_an_unusable_image_are_left_out(coco, change):
    table = read(coco(lambda content: content["images"][0].update(change)))
    assert table.annotation_id.tolist() == [4, 1]
    assert table.skipped == {"image_id is not that of a usable image": 2}


def test_first_image_of_an_id_counts(coco):
    def change(content):
        content["images"].append({**content["images"][0], "file_name": "2.jpg"})

    table = read(coco(change))
    assert table.image_ids.tolist() == [10, 11, 12]
    assert table.file_names.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(table) == 4


def test_outlines_are_dropped_while_parsing(coco):
    annotations, _ = coco(lambda content: [a.update(segmentation=[[1, 2]]) for a in content["annotations"]])
    assert all("segmentation" not in annotation for annotation in load_json(annotations)["annotations"])


def test_missing_sizes_and_area_are_unknown(coco):
    def change(content):
        content["images"][0].pop("width")
        content["images"][0]["height"] = None
        content["annotations"][1].pop("area")

    table = read(coco(change))
    assert table.image_sizes[0].tolist() == [0, 0]
    assert np.isnan(table.area[0])
    assert len(table) == 4


def test_nobody_left_names_the_counts(coco):
    def change(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1

    with pytest.raises(DataError, match="no usable person; left out: crowd: 4"):
        read(coco(change))
    with pytest.raises(DataError, match="no usable person"):
        read(coco(lambda content: content.update(annotations=[])))
    with pytest.raises(DataError, match="box without area: 4"):
        read(coco(lambda content: [a.update(area=0) for a in content["annotations"]]))


BROKEN = {
    "truncated": (lambda text: text[: len(text) // 2], "line 1 column"),
    "empty": (lambda text: "", "line 1 column 1"),
    "comma": (
        lambda text: text.replace('"images": [', '"images": [,\n', 1),
        "broken json at line 1 column 13",
    ),
    "nan": (lambda text: text.replace("900", "\nNaN", 1), "line 2 column 1: NaN"),
    "infinity": (lambda text: text.replace("900", "-Infinity", 1), "-Infinity"),
    "deep": (lambda text: "[" * 100_000, "nested too deep"),
    "deep-closed": (lambda text: "[" * 50_000 + "]" * 50_000, "nested too deep"),
    "list": (lambda text: "[1, 2]", "this is a list"),
    "no-images": (lambda text: '{"annotations": []}', "'images'"),
    "image-rows": (lambda text: '{"images": [{}, 3], "annotations": [], "categories": []}', r"images\[1\]"),
    "long-integer": (lambda text: text.replace("900", "9" * 5000, 1), "broken json"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_with_the_position(coco, kind):
    change, message = BROKEN[kind]
    annotations, images = coco()
    annotations.write_text(change(annotations.read_text()))
    start = time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        read((annotations, images))
    assert str(annotations) in str(caught.value)
    assert time.perf_counter() - start < 1


def test_other_encodings(coco, tmp_path):
    annotations, images = coco()
    text = annotations.read_text()
    annotations.write_text(text, encoding="utf-8-sig")
    assert len(read((annotations, images))) == 4
    annotations.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    with pytest.raises(DataError, match="not UTF-8 text at byte 0"):
        read((annotations, images))
    with pytest.raises(DataError, match="no such file"):
        read((tmp_path / "gone.json", images))
    with pytest.raises(DataError, match="cannot be read"):
        read((tmp_path, images))


def test_names_in_strings_that_look_like_numbers_are_no_nan(coco):
    def change(content):
        content["images"][0]["file_name"] = 'NaN "Infinity" \\".jpg'.replace("\\", "")
        content["annotations"][0]["area"] = float("nan")

    annotations, images = coco(change)
    text = annotations.read_text()
    with pytest.raises(DataError, match=f"column {text.index(': NaN') + 3}: NaN"):
        read((annotations, images))


def test_layout_names_what_was_looked_for(coco):
    annotations, images = coco()
    root = annotations.parents[1]
    assert coco_layout(root, "tiny") == (annotations, images)
    with pytest.raises(DataError, match=r"person_keypoints_val2017\.json"):
        coco_layout(root, "val2017")
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"looked for .*tiny/ and .*tiny\.zip"):
        coco_layout(root, "tiny")
    images.with_name("tiny.zip").write_bytes(b"")
    assert coco_layout(root, "tiny")[1].name == "tiny.zip"
    with pytest.raises(ImageError, match="not a readable zip"):
        read(coco_layout(root, "tiny"))


def test_mpii_names_give_the_mpii_set(coco):
    def change(content):
        content["categories"][0]["keypoints"] = list(MPII_16.names)
        for annotation in content["annotations"]:
            annotation["keypoints"] = annotation["keypoints"][:48]

    assert read(coco(change)).keypoints is MPII_16


def test_wrong_on_bad_is_refused(coco):
    with pytest.raises(DataError, match="on_bad"):
        read(coco(), on_bad="ignore")
