"""MPII: offsets, scale and the layout."""

import json

import numpy as np
import pytest
from conftest import shared_path

from fastpose.data.mpii import read_mpii
from fastpose.errors import DataError
from fastpose.keypoints import MPII_16


def entry(**change):
    joints = [[float(10 + k), float(20 + k)] for k in range(16)]
    person = {
        "image": "a.jpg",
        "center": [50.0, 60.0],
        "scale": 0.5,
        "joints": joints,
        "joints_vis": [1] * 15 + [0],
    }
    return {**person, **change}


@pytest.fixture
def read(tmp_path):
    def run(entries, **options):
        (tmp_path / "annot").mkdir(exist_ok=True)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "annot" / "valid.json").write_text(
            entries if isinstance(entries, str) else json.dumps(entries)
        )
        return read_mpii(tmp_path, "valid", **options)

    return run


def test_sample():
    table = read_mpii(shared_path("data", "mpii_sample"), "train")
    assert len(table) == len(table.image_ids) == 5
    assert table.keypoints is MPII_16
    assert np.allclose(table.center[0], [966 - 1, 340 + 15 * 4.718488 - 1])
    assert np.allclose(table.scale[0], 4.718488 * 1.25)
    assert table.joints[0, 0].tolist() == [803, 710]
    assert table.visible.sum() > 60
    assert table.images.read(str(table.file_names[0])).ndim == 3


def test_offsets(read):
    table = read([entry(), entry(image="b.jpg"), entry()])
    assert table.center.tolist() == [[49, 66.5]] * 3
    assert table.scale.tolist() == [[0.625, 0.625]] * 3
    assert table.joints[0, 0].tolist() == [9, 19]
    assert table.visible[0].tolist() == [1] * 15 + [0]
    assert table.image_index.tolist() == [0, 1, 0]
    assert table.file_names.tolist() == ["a.jpg", "b.jpg"]
    assert table.box[0].tolist() == [-1, 9, 100, 100]
    assert table.annotation_id.tolist() == [0, 1, 2]


def test_missing_center_is_not_padded(read):
    table = read([entry(center=[-1.0, 60.0])])
    assert table.center.tolist() == [[-2, 59]]
    assert table.scale.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("aspect_ratio", "expected"), [(1.0, [1, 1]), (0.5, [1, 2]), (2.0, [2, 1])])
def test_square_grows_to_the_aspect_ratio(read, aspect_ratio, expected):
    table = read([entry()], aspect_ratio=aspect_ratio)
    assert np.allclose(table.scale[0], np.array(expected) * 0.625)


def test_test_split_has_no_joints(read):
    person = entry()
    del person["joints"], person["joints_vis"]
    table = read([person])
    assert not table.joints.any()
    assert not table.visible.any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"joints": [[1, 2]] * 15}, "joints: not a list of 16 pairs"),
        ({"joints": [[1, 2]] * 15 + [[1]]}, "joints: 31 numbers"),
        ({"joints_vis": [1] * 15}, "joints_vis: 15 numbers"),
        ({"center": [1]}, "center: 1 numbers"),
        ({"scale": 0}, "scale is not a positive number"),
        ({"scale": "1"}, "scale is not a positive number"),
        ({"image": None}, "image is not a file name"),
        ({"image": "../a.jpg"}, "leaves the image root"),
    ],
    ids=str,
)
def test_malformed_entries_are_counted_or_named(read, change, reason):
    table = read([entry(), entry(**change)])
    assert (len(table), sum(table.skipped.values())) == (1, 1)
    assert reason in next(iter(table.skipped))
    with pytest.raises(DataError, match=rf"valid\.json: entry 1: .*{reason}"):
        read([entry(), entry(**change)], on_bad="stop")


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "json list of persons"), ("[1]", "entry 0"), ("[]", "no usable")]
)
def test_wrong_files_are_named(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_layout_names_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"annot/train\.json"):
        read_mpii(tmp_path, "train")
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot" / "train.json").write_text("[]")
    with pytest.raises(DataError, match=r"images/ and .*images\.zip"):
        read_mpii(tmp_path, "train")
