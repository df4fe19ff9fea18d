"""Label maps from COCO annotations, against even-odd filling, pycocotools and areas of the files."""

import json

import cv2
import numpy as np
import pytest
from conftest import shared_path
from pycocotools import mask
from pycocotools.coco import COCO
from worker_trip import as_a_worker_gets_it

from fastpose.classes import BACKGROUND, CITYSCAPES_19, IGNORE, PERSON_2, ClassSet
from fastpose.data.segmentation_coco import read_coco_masks
from fastpose.errors import DataError, ImageError

WIDTH, HEIGHT = 40, 30
SET = ClassSet("made", (BACKGROUND, "person", "dog"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def square(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def runs(inside, text):
    """A mask as COCO's run lengths down the columns, as numbers or as text."""
    if text:
        found = mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        return {"size": found["size"], "counts": found["counts"].decode()}
    flat = np.concatenate([[0], inside.T.ravel().astype(int), [2]])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": list(inside.shape), "counts": counts}


@pytest.fixture
def coco(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 50, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))

    def write(*objects, images=None, categories=(("person", 1), ("dog", 18))):
        sides = {"width": WIDTH, "height": HEIGHT}
        data = {
            "images": images
            or [{"id": 7, "file_name": "a.png", **sides}, {"id": 8, "file_name": "b.png", **sides}],
            "categories": [{"id": number, "name": name} for name, number in categories],
            "annotations": [
                {"id": place, "image_id": 7, "category_id": 1, "iscrowd": 0, **values}
                for place, values in enumerate(objects)
            ],
        }
        (tmp_path / "instances.json").write_text(json.dumps(data))
        return tmp_path / "instances.json", tmp_path

    return write


def test_classes_crowds_and_what_two_classes_claim(coco):
    paths = coco(
        {"segmentation": square(2, 2, 12, 12)},
        {"segmentation": square(8, 8, 20, 20), "category_id": 18},
        {"segmentation": runs(np.indices((HEIGHT, WIDTH))[1] < 6, text=False), "iscrowd": 1},
        {"segmentation": square(30, 2, 36, 12), "image_id": 8, "category_id": 18},
    )
    table = as_a_worker_gets_it(read_coco_masks(*paths, classes=SET))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :6] = IGNORE
    expected[8:20, 8:20] = 2
    expected[2:12, 2:12] = 1
    expected[8:12, 8:12] = IGNORE
    np.testing.assert_array_equal(table.read(0).labels, expected)
    assert table.read(1).labels[5, 33] == 2
    assert table.file_names.tolist() == ["a.png", "b.png"]


def test_persons_alone_are_the_default(coco):
    table = read_coco_masks(
        *coco({"segmentation": square(2, 2, 12, 12)}, {"segmentation": square(0, 0, 9, 9), "category_id": 18})
    )
    assert table.classes == PERSON_2
    assert table.skipped == {"other category": 1, "picture without an object": 1}
    assert table.read(0).labels.sum() == 100


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_run_lengths_are_drawn_to_the_pixel(coco, text):
    inside = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    table = read_coco_masks(*coco({"segmentation": runs(inside, text)}))
    np.testing.assert_array_equal(table.read(0).labels, inside.astype(np.uint8))


def test_two_images_may_share_a_file(coco):
    images = [{"id": i, "file_name": "a.png", "width": WIDTH, "height": HEIGHT} for i in (7, 8)]
    paths = coco(
        {"segmentation": square(0, 0, 4, 4)},
        {"segmentation": square(0, 0, 9, 9), "image_id": 8},
        images=images,
    )
    table = read_coco_masks(*paths)
    assert [int(table.read(place).labels.sum()) for place in range(2)] == [16, 81]


def test_photographs_agree_with_pycocotools():
    file = shared_path("data", "coco_mini", "annotations", "person_keypoints_train2017.json")
    table = read_coco_masks(file, shared_path("data", "coco_mini", "images", "train2017"), on_bad="stop")
    truth = COCO(file)
    assert len(table) == len({row["image_id"] for row in truth.anns.values()}) == 28
    for place in range(len(table)):
        image = next(row for row in truth.imgs.values() if row["file_name"] == table.file_names[place])
        expected = np.zeros((image["height"], image["width"]), np.uint8)
        rows = truth.loadAnns(truth.getAnnIds(image["id"]))
        for row in sorted(rows, key=lambda row: -row["iscrowd"]):
            expected[truth.annToMask(row) > 0] = IGNORE if row["iscrowd"] else 1
        np.testing.assert_array_equal(table.read(place).labels, expected)


GOOD = {"segmentation": square(1, 1, 5, 5)}
MALFORMED = {
    "no-masks": ({"segmentation": []}, "missing"),
    "text": ({"segmentation": "abc"}, "not a list"),
    "polygon": ({"segmentation": ["abc"]}, "polygon is not a list"),
    "two-points": ({"segmentation": [[1, 2, 3, 4]]}, "4 numbers"),
    "odd": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "7 numbers"),
    "words": ({"segmentation": [["a"] * 6]}, "not numbers"),
    "far": ({"segmentation": [[1e30] * 6]}, "beyond"),
    "size": ({"segmentation": {"size": [9, 9], "counts": [81]}}, "size"),
    "sum": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 6]}}, "add up"),
    "negative": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1205, -5]}}, "whole numbers"),
    "letters": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\u00e4\u00f6"}}, "run-length"),
    "short-text": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0000"}}, "add up"),
    "below-zero": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "N"}}, "whole numbers"),
    "long-number": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o" * 50 + "0"}}, "run-length"),
    "unended": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "ooo"}}, "run-length"),
    "no-counts": ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "counts"),
    "image": ({**GOOD, "image_id": 99}, "image_id"),
    "category": ({**GOOD, "category_id": "person"}, "category_id"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_objects_are_counted_or_stop(coco, kind):
    values, reason = MALFORMED[kind]
    paths = coco(GOOD, values)
    table = read_coco_masks(*paths)
    assert sum(count for told, count in table.skipped.items() if reason in told) == 1
    assert table.read(0).labels.sum() == 16
    with pytest.raises(DataError, match=f"annotation 1: .*{reason}"):
        read_coco_masks(*paths, on_bad="stop")


@pytest.mark.parametrize("seed", range(8))
def test_run_length_text_of_any_mask_is_accepted(coco, seed):
    rng = np.random.default_rng(seed)
    inside = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 0.3 + seed) > rng.uniform(0.45, 0.55)
    table = read_coco_masks(*coco({"segmentation": runs(inside, text=True)}), on_bad="stop")
    np.testing.assert_array_equal(table.read(0).labels, inside.astype(np.uint8))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"categories": (("cat", 1),)}, {}, "called person"),
        ({}, {"classes": CITYSCAPES_19}, "background"),
        ({"images": [{"id": 7, "file_name": "a.png"}]}, {}, "no usable width"),
        ({"images": [{"id": 7, "file_name": "../a.png", "width": 4, "height": 4}]}, {}, "image_id"),
        ({"images": [{"id": 7, "file_name": "a", "width": 10**6, "height": 10**6}]}, {}, "no usable width"),
    ],
    ids=["categories", "background", "no-size", "escape", "giant"],
)
def test_files_without_a_usable_picture_say_why(coco, arguments, options, message):
    with pytest.raises(DataError, match=message):
        read_coco_masks(*coco(GOOD, **arguments), **options)


def test_a_picture_of_another_size_is_named_when_it_is_read(coco, tmp_path):
    table = read_coco_masks(*coco(GOOD))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ImageError, match=r"'a\.png' has 6x5 pixels, its labels 40x30"):
        table.read(0)
