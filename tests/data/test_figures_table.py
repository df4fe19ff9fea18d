"""Rendered figures as a data set: the table, COCO ground truth, files."""

import json
from multiprocessing import Pipe

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fastpose.data import read_coco
from fastpose.data.affine import box_to_center_scale
from fastpose.data.check_coco import check_coco
from fastpose.data.coco import coco_layout
from fastpose.data.figures import PARTS, FigureImages, FigureStyle, read_figures, write_figures
from fastpose.errors import DataError, ImageError, OutputError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet

SETS = [COCO_17, MPII_16]


@pytest.fixture(scope="module")
def table():
    return read_figures(150, seed=5)


@pytest.mark.parametrize("keypoint_set", SETS, ids=lambda keypoints: keypoints.name)
def test_pycocotools_scores_the_ground_truth_against_itself_with_one(keypoint_set):
    truth = COCO()
    truth.dataset = read_figures(40, keypoint_set=keypoint_set).annotations
    truth.createIndex()
    results = truth.loadRes(
        [
            {**{k: row[k] for k in ("image_id", "category_id", "keypoints")}, "score": 1.0}
            for row in truth.dataset["annotations"]
            if row["num_keypoints"]
        ]
    )
    evaluation = COCOeval(truth, results, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(keypoint_set.sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    person = truth.loadCats(1)[0]
    assert person["keypoints"] == list(keypoint_set.names)
    assert np.min(person["skeleton"]) == 1
    assert np.max(person["skeleton"]) == keypoint_set.num_joints


def test_rows_say_what_the_annotations_say(table):
    rows = {row["id"]: row for row in table.annotations["annotations"]}
    assert len(rows) == len(table.annotations["annotations"])
    for i in range(len(table)):
        row = rows[table.annotation_id[i]]
        labels = np.array(row["keypoints"]).reshape(-1, 3)
        np.testing.assert_array_equal(table.joints[i], labels[:, :2])
        np.testing.assert_array_equal(table.visible[i], labels[:, 2] > 0)
        assert (labels[labels[:, 2] == 0] == 0).all()
        assert set(labels[:, 2]) <= {0, 1, 2}
        assert row["num_keypoints"] == table.visible[i].sum() > 0
        assert table.area[i] == row["area"] > 0
        assert table.image_ids[table.image_index[i]] == row["image_id"]
        x, y, width, height = row["bbox"]
        np.testing.assert_array_equal(table.box[i], [x, y, width - 1, height - 1])
    center, scale = box_to_center_scale(table.box, 0.75)
    np.testing.assert_array_equal(table.center, center)
    np.testing.assert_array_equal(table.scale, scale)
    assert len(table) + table.skipped.total() == len(rows)


def test_both_keypoint_sets_label_the_same_bodies(table):
    mpii = read_figures(150, seed=5, keypoint_set=MPII_16)
    common = [name for name in MPII_16.names if name in COCO_17.names]
    assert len(common) == 12
    a = table.joints[:, [COCO_17.names.index(name) for name in common]]
    b = mpii.joints[:, [MPII_16.names.index(name) for name in common]]
    np.testing.assert_array_equal(a, b)


def test_pictures_do_not_depend_on_how_many_there_are(table):
    fewer = read_figures(100, seed=5)
    np.testing.assert_array_equal(fewer.joints, table.joints[: len(fewer)])
    other = read_figures(100, seed=6)
    assert not np.array_equal(other.joints[:50], fewer.joints[:50])


def test_images_survive_the_trip_to_a_worker_and_draw_what_the_table_says(table):
    here, there = Pipe()
    here.send(table.images)
    images = there.recv()
    name = str(table.file_names[3])
    assert name == "000000000004.jpg"
    picture = images.read(name)
    np.testing.assert_array_equal(picture, table.images.read(name))
    assert picture.shape == (256, 256, 3)
    parts, persons = images.part_masks(name)
    assert parts.shape == persons.shape == (256, 256)
    assert parts.max() < len(PARTS)
    assert ((parts > 0) == (persons > 0)).all()
    areas = sorted(row["area"] for row in table.annotations["annotations"] if row["image_id"] == 4)
    counts = np.bincount(persons.ravel())[1:]
    assert sorted(counts[counts > 0].tolist()) == areas


@pytest.mark.parametrize(
    "name", ["000000000000.jpg", "000000000011.jpg", "1.jpg", "../000000000001.jpg", "", "000000000001.gif"]
)
def test_unknown_names_are_refused(name):
    images = FigureImages(10)
    assert images.problem(name)
    with pytest.raises(ImageError, match=r"000000000001\.jpg"):
        images.read(name)
    assert images.problem("000000000010.jpg") is None


HANDS = KeypointSet("hands", ("left_thumb",), (), (), (0.05,), (), (1.0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count"),
        ({"count": 3, "seed": -1}, "seed"),
        ({"count": 3, "image_size": (8, 256)}, "image_size"),
        ({"count": 3, "image_size": (256, 100_000)}, "image_size"),
        ({"count": 3, "keypoint_set": HANDS}, "left_thumb"),
    ],
    ids=["count", "seed", "small", "large", "joints"],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_figures(**arguments)
    with pytest.raises(DataError, match=message):
        write_figures(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keypoint_set", SETS, ids=lambda keypoints: keypoints.name)
def test_written_files_read_back_as_the_same_table(tmp_path, keypoint_set):
    written = write_figures(
        tmp_path, 6, seed=2, split="val2017", keypoint_set=keypoint_set, format="png", masks=True
    )
    annotation_file, image_root = coco_layout(tmp_path, "val2017")
    assert written == annotation_file
    expected = read_figures(6, seed=2, keypoint_set=keypoint_set)
    got = read_coco(annotation_file, image_root, aspect_ratio=0.75)
    assert got.keypoints == keypoint_set
    for field in (
        "image_ids",
        "image_sizes",
        "image_index",
        "center",
        "scale",
        "box",
        "joints",
        "visible",
        "area",
    ):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)
    for mine, theirs in zip(expected.file_names, got.file_names, strict=True):
        np.testing.assert_array_equal(got.images.read(theirs), expected.images.read(mine))
    assert not check_coco(annotation_file, image_root, decode=True).problems
    parts = cv2.imread(str(tmp_path / "masks/val2017/000000000002_parts.png"), cv2.IMREAD_UNCHANGED)
    persons = cv2.imread(str(tmp_path / "masks/val2017/000000000002_persons.png"), cv2.IMREAD_UNCHANGED)
    for got_mask, mask in zip((parts, persons), expected.images.part_masks("000000000002.jpg"), strict=True):
        np.testing.assert_array_equal(got_mask, mask)
    assert json.loads(written.read_text())["info"]["parts"] == list(PARTS)


def test_jpeg_files_look_like_the_pictures(tmp_path):
    style = FigureStyle(people=(1, 2))
    write_figures(tmp_path, 2, image_size=(192, 160), style=style)
    picture = cv2.imread(str(tmp_path / "images/train2017/000000000002.jpg"))
    exact = FigureImages(2, image_size=(192, 160), style=style).read("000000000002.jpg")
    assert picture.shape == (160, 192, 3)
    assert np.abs(picture.astype(int) - exact).mean() < 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"format": "gif"}, "format"), ({"split": "../val"}, "split")],
    ids=["format", "split"],
)
def test_bad_file_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_figures(tmp_path, 1, **arguments)


@pytest.mark.parametrize("in_the_way", ["images", "images/train2017/000000000001.jpg"])
def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, in_the_way):
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if path.suffix else path.write_text("a file")
    with pytest.raises(OutputError, match="images"):
        write_figures(tmp_path, 1)
    assert not (tmp_path / "annotations" / "person_keypoints_train2017.json").exists()
