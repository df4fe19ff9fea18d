"""What a result says of its people, in arrays, text and pictures."""

import copy
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from pose_stubs import TWO, ChannelPeaks

import fastpose
from fastpose.errors import ConfigError, DataError, ImageError, OutputError
from fastpose.infer.result import Boxes, Keypoints, Result

SHAPE = (60, 80)


def result(count: int = 2, **more) -> Result:
    """People with joints at (20, 30) and (40, 50), 3 further for each; the last one lacks the second."""
    shift = 3 * np.arange(count)
    xy = np.array([[20, 30], [40, 50]], np.float32) + shift[:, None, None]
    valid = np.ones((count, 2), bool)
    if count:
        valid[-1, 1] = False
    boxes = Boxes(np.array([[10, 20, 30, 40]]) + shift[:, None] * [1.0, 1, 0, 0], np.full(count, 0.5), SHAPE)
    values = {"name": "a.png", "orig_shape": SHAPE, "boxes": boxes, "keypoint_set": TWO}
    values |= {"pixels": np.full((*SHAPE, 3), 60, np.uint8), "path": Path("folder/a.png")}
    return Result(keypoints=Keypoints(xy, np.full((count, 2), 0.8), valid, SHAPE), **values | more)


def test_boxes_in_all_forms():
    boxes = result().boxes
    assert boxes.xyxy.tolist() == [[10, 20, 40, 60], [13, 23, 43, 63]]
    np.testing.assert_allclose(boxes.xywhn[0], [10 / 80, 20 / 60, 30 / 80, 40 / 60])
    np.testing.assert_allclose(boxes.xyxyn[0], [10 / 80, 20 / 60, 40 / 80, 60 / 60])
    assert boxes.id is None
    assert len(boxes) == len(result()) == 2


def test_absent_joints_are_nan_and_not_valid():
    points = result().keypoints
    assert points.xy.dtype == points.conf.dtype == points.xyn.dtype == np.float32
    np.testing.assert_allclose(points.xyn[0], [[20 / 80, 30 / 60], [40 / 80, 50 / 60]], rtol=1e-6)
    assert np.isnan(points.xy[1, 1]).all()
    assert points.valid.tolist() == [[True, True], [True, False]]
    assert points.conf[1, 1] == 0


@pytest.mark.parametrize(
    ("xy", "conf"),
    [
        ((1e30, 5), 0.9),
        ((5, -1e30), 0.9),
        ((np.inf, 5), 0.9),
        ((5, np.nan), 0.9),
        ((5, 5), np.nan),
        ((5, 5), 0.0),
        ((5, 5), -1.0),
        ((5, 5), np.inf),
    ],
    ids=str,
)
def test_joints_that_are_nowhere_are_flagged(xy, conf):
    points = Keypoints(np.array([[xy]], np.float64), np.array([[conf]]), np.ones((1, 1), bool), SHAPE)
    assert not points.valid.any()
    assert np.isnan(points.xy).all()
    assert points.conf.tolist() == [[0.0]]


def test_denormal_coordinates_are_places():
    points = Keypoints(np.full((1, 1, 2), 1e-40), np.full((1, 1), 0.5), np.ones((1, 1), bool), SHAPE)
    assert points.valid.all()
    assert (np.abs(points.xy) < 1e-30).all()


def test_summary_and_json_agree():
    found = result()
    first, second = found.summary()
    assert first["box"] == [10, 20, 30, 40]
    assert first["score"] == pytest.approx(0.5 * 0.8, rel=1e-6)
    assert first["keypoints"]["left"] == pytest.approx({"x": 20, "y": 30, "score": 0.8})
    assert second["keypoints"]["right"] is None
    record = json.loads(found.to_json())
    assert record["people"] == json.loads(json.dumps([first, second]))
    assert (record["width"], record["height"], record["error"]) == (80, 60, None)
    tracked = result(boxes=Boxes(found.boxes.xywh, found.boxes.conf, SHAPE, np.array([7, 9])))
    assert [person["id"] for person in tracked.summary()] == [7, 9]


def test_coco_rows():
    rows = result().to_coco()
    assert [row["image_id"] for row in rows] == ["a", "a"]
    assert rows[1]["keypoints"] == pytest.approx([23, 33, 0.8, 0, 0, 0], abs=1e-4)


def test_nobody_is_an_empty_result_in_every_form(tmp_path):
    nobody = result(0)
    assert len(nobody) == 0
    assert nobody.keypoints.xy.shape == nobody.keypoints.xyn.shape == (0, 2, 2)
    assert nobody.boxes.xyxy.shape == nobody.boxes.xyxyn.shape == (0, 4)
    assert nobody.summary() == nobody.to_coco() == nobody.save_crop(tmp_path) == []
    assert json.loads(nobody.to_json())["people"] == []
    assert np.array_equal(nobody.plot(), nobody.image)


def test_plot_draws_people_and_leaves_the_picture_alone():
    found = result()
    before = found.image.copy()
    drawn = found.plot()
    assert np.array_equal(found.image, before)
    assert (drawn[30, 20] != 60).any()
    assert not np.array_equal(drawn, found.plot(boxes=False)), "boxes are drawn"
    assert np.array_equal(result(found_by="whole").plot(), found.plot(boxes=False))
    assert np.array_equal(found.plot(threshold=0.9, boxes=False), before)
    other = found.plot(np.zeros((*SHAPE, 3), np.uint8))
    assert (other == 0).mean() > 0.5


def test_absent_joint_is_never_drawn():
    shape = (40, 40)
    points = Keypoints(np.zeros((1, 2, 2)), np.full((1, 2), 0.9), np.zeros((1, 2), bool), shape)
    canvas = np.full((*shape, 3), 60, np.uint8)
    found = Result("a", shape, Boxes(np.zeros((1, 4)), np.ones(1), shape), points, TWO, pixels=canvas)
    assert np.array_equal(found.plot(boxes=False), canvas)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_save(tmp_path, suffix):
    found = result()
    path = found.save(tmp_path / "new" / f"drawn{suffix}")
    written = cv2.imread(str(path))
    assert written.shape == (60, 80, 3)
    if suffix in (".png", ".bmp"):
        assert np.array_equal(written, found.plot())
    assert list(path.parent.iterdir()) == [path]


def test_save_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert result().save() == Path("a_pose.png")
    assert result(path=None, index=3).save() == Path("picture_000003_pose.png")
    assert result(path=Path("clip.mp4"), frame=12).save() == Path("clip_000012_pose.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_pose.png", "clip_000012_pose.png", "picture_000003_pose.png",
    ]  # fmt: skip


def test_save_refuses(tmp_path):
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), np.zeros((*SHAPE, 3), np.uint8))
    before = source.read_bytes()
    with pytest.raises(OutputError, match="is the picture that was read"):
        result(path=source).save(source)
    assert source.read_bytes() == before
    with pytest.raises(OutputError, match="kinds"):
        result().save(tmp_path / "a.gif")
    with pytest.raises(OutputError, match=r"a\.png"):
        result().save(source / "below.png")


def test_crops_are_what_lies_in_the_boxes(tmp_path):
    rows = np.array(
        [[10.6, 20.2, 30, 30], [-50, -50, 1000, 1000], [79.5, 59.5, 1, 1], [-9.5, 3, 9.6, 4], [7, 8, 0, 0]]
    )
    image = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
    found = result(5, boxes=Boxes(rows, np.ones(5), SHAPE), pixels=image)
    paths = found.save_crop(tmp_path / "crops")
    assert [path.name for path in paths] == [f"a_{k}.png" for k in range(5)]
    expected = [image[20:51, 10:41], image, image[59:60, 79:80], image[3:7, 0:1], image[8:9, 7:8]]
    for path, pixels in zip(paths, expected, strict=True):
        assert np.array_equal(cv2.imread(str(path)), pixels), path


def test_files_are_read_again_and_frames_are_not_kept(tmp_path):
    path = tmp_path / "a.png"
    image = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
    cv2.imwrite(str(path), image)
    predict = fastpose.Predictor(ChannelPeaks(), detector="whole")
    (listed,) = predict(path)
    (streamed,) = predict(path, stream=True)
    assert not isinstance(listed.pixels, np.ndarray)
    assert np.array_equal(listed.image, image)
    assert streamed.pixels is streamed.image
    assert len(pickle.dumps(listed)) < image.nbytes, "it travels without its pixels"
    assert np.array_equal(copy.deepcopy(listed).plot(), listed.plot())
    path.unlink()
    assert np.array_equal(streamed.image, image)
    with pytest.raises(ImageError, match=r"a\.png"):
        _ = listed.image
    with pytest.raises(DataError, match="stream=True"):
        result(pixels=None).plot()


def test_error_result_raises_its_error():
    broken = result(0, error=ImageError("a.png: cut short"), pixels=None)
    assert "cut short" in repr(broken)
    assert json.loads(broken.to_json())["error"] == "a.png: cut short"
    for act in (broken.plot, broken.show, broken.save):
        with pytest.raises(ImageError, match="cut short"):
            act()


def test_show_without_a_display_says_what_to_do(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(OutputError, match=r"\.save\("):
        result().show()


def test_show_hands_the_drawn_picture_to_the_viewer(monkeypatch):
    ImageShow = pytest.importorskip("PIL.ImageShow")
    shown = []
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(np.asarray(image)) or True)
    found = result()
    found.show()
    assert np.array_equal(shown[0][..., ::-1], found.plot())
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)
    with pytest.raises(OutputError, match="no program"):
        found.show()


def test_table(monkeypatch):
    """Columns and rows, with a stand-in for pandas, which is no dependency."""
    pandas = ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    table = result().to_df()
    assert {len(column) for column in table.values()} == {4}
    assert table["joint"] == ["left", "right"] * 2
    assert list(table["person"]) == [0, 0, 1, 1]
    assert table["x"][:3].tolist() == [20, 40, 23]
    assert np.isnan(table["y"][3])
    assert table["box_x"].tolist() == [10, 10, 13, 13]
    assert list(table["id"]) == [-1] * 4
    assert len(result(0).to_df()["x"]) == 0


def test_table_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        result().to_df()


def test_cpu_and_numpy_are_itself():
    found = result()
    assert found.cpu() is found
    assert found.numpy() is found
    assert found.names == ("left", "right")
    assert found.skeleton == ((0, 1),)
    assert repr(found) == "Result(a.png: 2 people, 80x60)"


@pytest.mark.parametrize("threshold", ["a", None, True, np.nan, 7, -0.1], ids=repr)
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(ConfigError, match=r"^threshold: expected a score from 0 to 1, got"):
        result().plot(np.zeros((10, 10, 3), np.uint8), threshold=threshold)
