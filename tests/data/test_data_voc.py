"""The layout of PASCAL VOC, read and written."""

import shutil
import zipfile

import cv2
import numpy as np
import pytest
from plain_png import INDEX, RGB, png
from worker_trip import as_a_worker_gets_it

from fastpose.classes import BODY_PARTS, IGNORE, PERSON_2, VOC_21, voc_color
from fastpose.data.voc import read_voc, write_voc
from fastpose.errors import DataError, ImageError, OutputError

PALETTE = [voc_color(label) for label in range(256)]
NAMES = ("2007_000032", "2007_000039", "2007_000063")
LABELS = [np.random.default_rng(seed).integers(0, 30, (20 + seed, 31)) for seed in range(3)]
EXPECTED = [np.where(labels < 21, labels, IGNORE) for labels in LABELS]


@pytest.fixture
def voc(tmp_path):
    """A devkit as it is downloaded: an index PNG with border, one in colours, and a JPEG each."""
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for place, (name, labels) in enumerate(zip(NAMES, LABELS, strict=True)):
        picture = np.full((*labels.shape, 3), 40 * (place + 1), np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), picture)
        colours = np.array(PALETTE)[EXPECTED[place]]
        data = png(colours, RGB) if place == 2 else png(labels, INDEX, 8, PALETTE)
        (folder / "SegmentationClass" / f"{name}.png").write_bytes(data)
    (folder / "ImageSets/Segmentation/train.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


@pytest.mark.parametrize("above", [0, 1, 2], ids=["year", "devkit", "parent"])
def test_reads_the_list_in_its_order(voc, above):
    table = as_a_worker_gets_it(read_voc([voc, *voc.parents][above], "train"))
    assert table.classes == VOC_21
    assert table.file_names.tolist() == [f"{name}.jpg" for name in NAMES]
    assert not table.skipped
    for place in range(3):
        sample = table.read(place)
        np.testing.assert_array_equal(sample.labels, EXPECTED[place])
        assert abs(int(sample.pixels[0, 0, 0]) - 40 * (place + 1)) <= 2


def test_of_several_years_the_latest_counts(voc):
    shutil.copytree(voc, voc.with_name("VOC2012"))
    (voc.with_name("VOC2012") / "ImageSets/Segmentation/train.txt").write_text(NAMES[1])
    assert len(read_voc(voc.parent, "train")) == 1


def test_pictures_may_lie_in_a_zip(voc):
    with zipfile.ZipFile(voc / "JPEGImages.zip", "w") as archive:
        for name in NAMES:
            archive.write(voc / "JPEGImages" / f"{name}.jpg", f"{name}.jpg")
    shutil.rmtree(voc / "JPEGImages")
    np.testing.assert_array_equal(read_voc(voc, "train").read(2).labels, EXPECTED[2])


def _list(voc):
    return voc / "ImageSets/Segmentation/train.txt"


def _longer_list(voc, text):
    _list(voc).write_text(f"{NAMES[0]}\n{text}\n")


def _cut(path):
    path.write_bytes(path.read_bytes()[:20])


BROKEN = {
    "twice": (lambda voc: _longer_list(voc, NAMES[0]), "listed twice"),
    "escape": (lambda voc: _longer_list(voc, "../../secret"), "leaves the folder"),
    "absolute": (lambda voc: _longer_list(voc, "/etc/passwd"), "leaves the folder"),
    "picture": (lambda voc: (voc / "JPEGImages" / f"{NAMES[1]}.jpg").unlink(), "picture missing"),
    "labels": (lambda voc: (voc / "SegmentationClass" / f"{NAMES[1]}.png").unlink(), "labels missing"),
    "header": (lambda voc: _cut(voc / "SegmentationClass" / f"{NAMES[1]}.png"), "labels unreadable"),
    "size": (
        lambda voc: cv2.imwrite(
            str(voc / "SegmentationClass" / f"{NAMES[1]}.png"), np.zeros((5, 5), np.uint8)
        ),
        "differ in size",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_used_is_counted_or_stops(voc, kind):
    damage, reason = BROKEN[kind]
    damage(voc)
    table = read_voc(voc, "train")
    assert [count for told, count in table.skipped.items() if reason in told] == [1]
    assert table.skipped.total() == 1
    assert f"{NAMES[0]}.jpg" in table.file_names
    with pytest.raises(DataError, match=reason) as caught:
        read_voc(voc, "train", on_bad="stop")
    assert "line 2" in str(caught.value)
    assert "train.txt" in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(voc, tmp_path):
    outside = tmp_path / "outside.png"
    (voc / "SegmentationClass" / f"{NAMES[1]}.png").rename(outside)
    (voc / "SegmentationClass" / f"{NAMES[1]}.png").symlink_to(outside)
    assert read_voc(voc, "train").skipped == {"labels unreadable": 1}


def test_damage_behind_a_good_header_is_named_when_it_is_read(voc):
    file = voc / "SegmentationClass" / f"{NAMES[1]}.png"
    file.write_bytes(file.read_bytes()[:-30])
    table = read_voc(voc, "train")
    with pytest.raises(ImageError, match=rf"{NAMES[1]}\.png.*cut short"):
        table.read(1)


@pytest.mark.parametrize(
    ("damage", "split", "message"),
    [
        (lambda voc: shutil.rmtree(voc), "train", "looked for the folder ImageSets/Segmentation"),
        (lambda voc: None, "val", r"val\.txt.*known: train"),
        (lambda voc: None, "../train", "plain name"),
        (lambda voc: _list(voc).write_text(""), "train", "lists none"),
        (lambda voc: _list(voc).write_text("a\nb"), "train", "missing: 2"),
        (lambda voc: _list(voc).write_bytes(b"\xff\xfe\x00"), "train", "UTF-8"),
        (lambda voc: shutil.rmtree(voc / "SegmentationClass"), "train", "SegmentationClass"),
        (lambda voc: (voc / "classes.json").write_text("[1]"), "train", "classes.json: not a set"),
        (lambda voc: (voc / "classes.json").write_text("{"), "train", "broken json"),
    ],
    ids=["nothing", "split", "split-name", "empty", "none-left", "binary", "no-labels", "classes", "json"],
)
def test_a_folder_that_cannot_be_read_says_why(voc, damage, split, message):
    damage(voc)
    with pytest.raises(DataError, match=message):
        read_voc(voc.parent.parent, split)


def _pictures(count, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    for place in range(count):
        labels = rng.integers(0, num_classes, (24, 40)).astype(np.uint8)
        labels[:2] = IGNORE
        yield f"some/folder/{place:03d}.jpeg", np.full((24, 40, 3), 100, np.uint8), labels


@pytest.mark.parametrize("classes", [VOC_21, BODY_PARTS], ids=lambda classes: classes.name)
def test_what_is_written_reads_back(tmp_path, classes):
    written = write_voc(tmp_path, "val", _pictures(4, classes.num_classes), classes)
    assert written.read_text() == "000\n001\n002\n003\n"
    table = read_voc(tmp_path, "val", on_bad="stop")
    assert table.classes == classes
    for place, (_, picture, labels) in enumerate(_pictures(4, classes.num_classes)):
        found = table.read(place)
        np.testing.assert_array_equal(found.labels, labels)
        assert np.abs(found.pixels.astype(int) - picture).max() <= 2
    again = write_voc(tmp_path / "copy", "val", table.pictures(), classes)
    assert again.read_text() == written.read_text()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_holds_one_set_of_classes(tmp_path):
    write_voc(tmp_path, "train", _pictures(1, 2), PERSON_2)
    write_voc(tmp_path, "val", _pictures(1, 2, seed=1), PERSON_2)
    with pytest.raises(DataError, match="holds labels of person2"):
        write_voc(tmp_path, "test", _pictures(1, 2), BODY_PARTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b.jpg"}, "a b"),
        ({"name": "..."}, "plain file name"),
        ({"twice": True}, "comes twice"),
        ({"labels": np.zeros((3, 3), np.uint8)}, "labels for"),
        ({"labels": np.full((4, 4), 30, np.uint8)}, "30 is no class"),
        ({"picture": np.zeros((4, 4), np.uint8)}, r"\(H, W, 3\)"),
        ({"picture": np.zeros((4, 4, 3))}, "uint8"),
        ({"split": "a/b"}, "split"),
        ({"none": True}, "no picture to write"),
    ],
    ids=["space", "dots", "twice", "size", "class", "grey", "float", "split", "none"],
)
def test_pictures_that_cannot_be_written_are_refused(tmp_path, changes, message):
    good = {"name": "a.jpg", "picture": np.zeros((4, 4, 3), np.uint8), "labels": np.zeros((4, 4), np.uint8)}
    row = tuple({**good, **changes}[key] for key in good)
    rows = [] if "none" in changes else [row] * (1 + ("twice" in changes))
    with pytest.raises(DataError, match=message):
        write_voc(tmp_path, changes.get("split", "train"), rows, VOC_21)
    assert not (tmp_path / "ImageSets/Segmentation/train.txt").exists()


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path):
    (tmp_path / "JPEGImages").write_text("a file in the way")
    with pytest.raises(OutputError, match="JPEGImages"):
        write_voc(tmp_path, "train", _pictures(1, 21), VOC_21)
