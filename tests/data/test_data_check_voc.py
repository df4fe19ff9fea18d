"""Every problem of a folder in VOC's layout, at once."""

import cv2
import numpy as np
import pytest

from fastpose.cli import main
from fastpose.data.check import check_data
from fastpose.data.figures import write_figure_parts


@pytest.fixture
def folder(tmp_path):
    write_figure_parts(tmp_path, 3, split="train", image_size=(64, 48))
    write_figure_parts(tmp_path, 2, split="val", seed=5, image_size=(64, 48))
    return tmp_path


def test_written_parts_have_no_problem(folder):
    report = check_data(folder, decode=True)
    assert not report.problems
    assert (report.images, report.persons) == (5, 5)
    assert str(report).endswith("5 images, 5 usable pictures, 0 problems")


def test_splits_do_not_overwrite_each_other(folder):
    names = sorted(path.name for path in (folder / "JPEGImages").iterdir())
    assert len(names) == 5
    assert [name.split("_")[0] for name in names] == ["train"] * 3 + ["val"] * 2


def test_all_problems_are_listed(folder):
    pictures = sorted((folder / "JPEGImages").glob("train*.jpg"))
    pictures[0].unlink()
    small = np.zeros((8, 8), np.uint8)
    cv2.imwrite(str(folder / "SegmentationClass" / f"{pictures[1].stem}.png"), small)
    lists = folder / "ImageSets" / "Segmentation"
    with (lists / "train.txt").open("a") as file:
        file.write(f"{pictures[2].stem}\n../../etc/passwd\n")
    report = check_data(folder)
    assert report.counts == {"picture": 3, "listed twice": 1}
    text = str(report)
    for told in ("picture missing", "picture and labels differ in size", "the name leaves the folder"):
        assert told in text
    assert report.persons == 3
    assert main(["check", str(folder)]) == 2


def test_only_decoding_finds_cut_labels(folder):
    path = next((folder / "SegmentationClass").glob("val*.png"))
    path.write_bytes(path.read_bytes()[:-30])
    assert not check_data(folder).problems
    assert check_data(folder, decode=True).counts == {"labels": 1}


def test_only_decoding_finds_labels_that_are_no_class(folder):
    odd, empty = sorted((folder / "SegmentationClass").glob("train*.png"))[:2]
    labels = np.full((48, 64), 3, np.uint8)
    labels[:10] = 255
    labels[10:12], labels[12] = 37, 200
    cv2.imwrite(str(odd), labels)
    cv2.imwrite(str(empty), np.full((48, 64), 255, np.uint8))
    assert not check_data(folder).problems
    report = check_data(folder, decode=True)
    assert report.counts == {"class": 2}
    assert "192 pixels of 37, 200, no class of bodyparts7 (0 to 6)" in str(report)
    assert f"{empty.stem}.jpg: every pixel is 255" in str(report)


def test_cut_labels_are_told_with_the_length_of_the_file(folder):
    path = next((folder / "SegmentationClass").glob("val*.png"))
    path.write_bytes(path.read_bytes()[:120])
    assert "the file is cut short after 120 bytes" in str(check_data(folder, decode=True))


def test_folder_without_any_layout_names_all_three(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "COCO" in error
    assert "MPII" in error
    assert "ImageSets/Segmentation (VOC)" in error
