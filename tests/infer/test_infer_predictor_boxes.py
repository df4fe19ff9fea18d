"""Boxes and coordinates of any kind: skipped with a reason or used, never a crash."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pose_stubs import TWO, ChannelPeaks

from fastpose.data.affine import box_to_center_scale, get_affine_transform
from fastpose.errors import DataError, FastposeError
from fastpose.infer.boxes_in import usable_boxes
from fastpose.infer.predictor import Predictor
from fastpose.infer.result import Boxes, Keypoints, Result

WIDTH, HEIGHT = 80, 60
IMAGE = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
PREDICTOR = Predictor(ChannelPeaks(), detector="whole")

ANY = st.one_of(
    st.floats(width=64),
    st.floats(-200, 200),
    st.integers(-100, 100).map(float),
    st.sampled_from([0.0, -0.0, 1.0, 0.999, 5e-324, 1e-30, 1e5, 100_001.0, 1e9, 1e30, -1e30, 1e308, np.inf]),
)
BOX = st.tuples(ANY, ANY, ANY, ANY)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        pytest.param([10, 10, 0, 5], "less than one pixel", id="no-width"),
        pytest.param([10, 10, 5, 0], "less than one pixel", id="no-height"),
        pytest.param([10, 10, -5, 5], "less than one pixel", id="negative"),
        pytest.param([10, 10, 0.5, 5], "less than one pixel", id="half-pixel"),
        pytest.param([10, 10, 5e-324, 5], "less than one pixel", id="denormal"),
        pytest.param([np.nan, 10, 5, 5], "not finite", id="nan"),
        pytest.param([10, 10, np.inf, 5], "not finite", id="inf"),
        pytest.param([80, 10, 5, 5], "outside", id="right-of-it"),
        pytest.param([-5, 10, 5, 5], "outside", id="left-of-it"),
        pytest.param([10, 60, 5, 5], "outside", id="below-it"),
        pytest.param([1e9, 10, 5, 5], "outside", id="1e9"),
        pytest.param([-1e30, 10, 5, 5], "outside", id="minus-1e30"),
        pytest.param([0, 0, 1e9, 5], "more than", id="1e9-wide"),
    ],
)
def test_boxes_that_are_skipped_and_why(box, reason):
    (result,) = PREDICTOR(IMAGE, [[0, 0, 80, 60], box, [79, 59, 1, 1]], [0.5, 0.6, 0.7])
    assert len(result) == 2
    assert result.boxes.conf.tolist() == [0.5, 0.7]
    (line,) = result.skipped
    assert line.startswith("box 1 [")
    assert reason in line


@settings(max_examples=150, deadline=None)
@given(st.lists(BOX, max_size=4))
def test_any_boxes(rows):
    (result,) = PREDICTOR(IMAGE, np.array(rows).reshape(-1, 4))
    assert len(result) + len(result.skipped) == len(rows)
    assert np.isfinite(result.boxes.xywh).all()
    points = result.keypoints
    assert (np.isfinite(points.xy).all(axis=2) == points.valid).all()
    assert np.isfinite(points.conf).all()
    assert result.plot().shape == IMAGE.shape


@settings(max_examples=400, deadline=None)
@given(BOX, st.integers(1, 32_767), st.integers(1, 32_767))
def test_a_usable_box_has_a_regular_matrix(row, width, height):
    found = usable_boxes([row], None, width, height)
    assert len(found.boxes) + len(found.skipped) == 1
    for box in found.boxes:
        center, scale = box_to_center_scale(box, 0.75)
        matrix = get_affine_transform(center, scale, 0.0, (48, 64))
        assert np.isfinite(matrix).all()
        assert abs(np.linalg.det(matrix[:, :2])) > 1e-12
        x, y, w, h = box
        assert x < width
        assert y < height
        assert x + w > 0
        assert y + h > 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, ANY), min_size=2, max_size=2), BOX)
def test_any_coordinates_can_be_drawn_and_written(joints, box):
    triples = np.array(joints)[None]
    points = Keypoints(triples[..., :2], triples[..., 2], np.ones((1, 2), bool), (HEIGHT, WIDTH))
    assert (np.abs(points.xy[points.valid]) <= 1e6).all()
    assert np.isnan(points.xy[~points.valid]).all()
    rows = usable_boxes([box, [0, 0, 9, 9]], None, WIDTH, HEIGHT).boxes[:1]
    boxes = Boxes(rows, np.ones(1), (HEIGHT, WIDTH))
    result = Result("a", (HEIGHT, WIDTH), boxes, points, TWO, pixels=IMAGE)
    assert result.plot().shape == IMAGE.shape
    assert "people" in result.to_json()
    assert len(result.to_coco()[0]["keypoints"]) == 6


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_value_for_boxes_is_used_or_refused(value):
    try:
        (result,) = PREDICTOR(IMAGE, value)
    except FastposeError:
        return
    assert len(result) + len(result.skipped) <= 12


def test_mapping_of_other_paths_is_not_taken_for_the_picture(tmp_path, caplog, monkeypatch):
    pictures = [tmp_path / f"{name}.png" for name in ("a", "b")]
    for path in pictures:
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"other\.png is not the source"):
        PREDICTOR(pictures[0], {str(tmp_path / "other.png"): [[1, 2, 30, 40]]})
    monkeypatch.chdir(tmp_path)
    (result,) = PREDICTOR("a.png", {str(pictures[0]): [[1, 2, 30, 40]]})
    assert result.boxes.xywh.tolist() == [[1, 2, 30, 40]]
    boxes = {str(path): [[0, 0, 30, 40]] for path in (*pictures, tmp_path / "gone.png")}
    with caplog.at_level(logging.WARNING, logger="fastpose"):
        assert len(PREDICTOR(pictures, boxes)) == 2
    assert "boxes of 1 pictures were not used, such as" in caplog.text


def test_boxes_of_one_picture_are_not_split_over_several():
    images = [np.zeros((64, 64, 3), np.uint8)] * 2
    with pytest.raises(DataError, match=r"shape \(2, 4\) is that of one picture"):
        PREDICTOR(images, np.ones((2, 4)) * 20)


BOXES = [[0, 0, 30, 30]]


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        cv2.imwrite(str(path), IMAGE)
    return paths


def as_generator(values):
    return (value for value in values)


SOURCES = {
    "list": lambda folder: [IMAGE] * 2,
    "generator": lambda folder: as_generator([IMAGE] * 2),
    "array": lambda folder: np.stack([IMAGE] * 2),
    "paths": lambda folder: files(folder, 2),
    "folder": lambda folder: files(folder, 2)[0].parent,
    "list-with-a-folder": lambda folder: [files(folder, 2)[0].parent],
}


@pytest.mark.parametrize("wrap", [list, as_generator], ids=["list", "generator"])
@pytest.mark.parametrize("entries", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["at-once", "stream"])
@pytest.mark.parametrize("source", SOURCES)
def test_entries_are_as_many_as_pictures(tmp_path, source, stream, entries, wrap):
    """Fewer and more are refused, in boxes and in scores, with the numbers of both where they are known."""
    told = f"{'more than 2' if wrap is as_generator else '3'} entries for 2 pictures"
    if entries == 1:
        known = wrap is list and source not in ("generator", "list-with-a-folder")
        told = "1 entry for 2 pictures" if known else "none for .*; several pictures need one entry each"
    for name, values in (
        ("boxes", (wrap([BOXES] * entries),)),
        ("box_score", (wrap([BOXES] * 2), wrap([[0.5]] * entries))),
    ):
        pictures = SOURCES[source](tmp_path)
        with pytest.raises(DataError, match=f"^{name}: {told}"):
            list(PREDICTOR(pictures, *values, stream=stream))


def test_numbers_that_are_known_are_refused_before_a_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(PREDICTOR, "forward", None)
    for source in ("list", "array", "paths", "folder"):
        with pytest.raises(DataError, match="3 entries for 2 pictures"):
            PREDICTOR(SOURCES[source](tmp_path), [BOXES] * 3, stream=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_entries_left_over_are_told_after_the_last_result(tmp_path, workers):
    predict = Predictor(ChannelPeaks(), detector="whole", workers=workers, batch_size=1)
    results = predict(as_generator(files(tmp_path, 3)), [BOXES] * 4, stream=True)
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="4 entries for 3 pictures"):
        next(results)
    for entries in ([BOXES] * 3, as_generator([BOXES] * 3), [BOXES, None, BOXES]):
        assert len(predict(as_generator(files(tmp_path, 3)), entries)) == 3
