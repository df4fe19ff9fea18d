"""`fastpose predict` with a segmentation network: files, names, options, and what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from segmentation_stubs import PAINTS, PLAIN, Paints, painted, paints, registered_paints, some_labels

from fastpose.classes import BODY_PARTS, ClassSet
from fastpose.cli import main
from fastpose.data.segmentation_png import decode_labels
from fastpose.data.voc import write_voc
from fastpose.infer.export.run import export_model
from fastpose.infer.segmentation_predictor import Segmenter
from fastpose.models import SegmentationMeta, create_model, save_weights

__all__ = ["registered_paints"]

pytestmark = pytest.mark.usefixtures("registered_paints")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    save_weights(paints(classes=PAINTS), path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two folders with a picture of one name each, and one that is broken."""
    for seed, place in enumerate(("a", "b")):
        (tmp_path / place).mkdir()
        cv2.imwrite(str(tmp_path / place / "photo.png"), painted(some_labels(seed=seed)))
    (tmp_path / "b" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def predict(*words) -> int:
    return main(["predict", *map(str, words)])


def labels_in(path) -> np.ndarray:
    return decode_labels(path.read_bytes(), str(path), PAINTS)


def noise(path):
    """A picture whose every pixel is a little of all classes."""
    cv2.imwrite(str(path), np.random.default_rng(2).integers(0, 255, (30, 40, 3), np.uint8))
    return path


def test_labels_and_overlays_of_pictures_from_two_folders(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(weights.parent, photos / "a", photos / "b", "--out", out) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "labels/classes.json", "labels/photo-2.png", "labels/photo.png", "labels/pictures.json",
        "photo-2.png", "photo.png",
    ]  # fmt: skip
    sources = json.loads((out / "labels" / "pictures.json").read_text())
    assert sources == {
        "photo.png": str(photos / "a" / "photo.png"), "photo-2.png": str(photos / "b" / "photo.png"),
    }  # fmt: skip
    for name, seed in (("photo.png", 0), ("photo-2.png", 1)):
        np.testing.assert_array_equal(labels_in(out / "labels" / name), some_labels(seed=seed))
        np.testing.assert_array_equal(cv2.imread(str(out / "labels" / name)), painted(some_labels(seed=seed)))
        overlay = cv2.imread(str(out / name))
        assert overlay.shape[0] > 30, "a legend below"
        assert overlay.shape[1] == 40
    assert ClassSet.from_dict(json.loads((out / "labels" / "classes.json").read_text())) == PAINTS
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 1
    assert "b/broken.jpg: not an image" in printed
    each = [np.bincount(some_labels(seed=seed).ravel(), minlength=4) / 1200 for seed in (0, 1)]
    assert (abs(each[0] - each[1]) > 0.01).any(), "the last picture alone must not do"
    shares = [f"{name} {share:.1%}" for name, share in zip(PAINTS.names, np.mean(each, axis=0), strict=True)]
    (line,) = [
        line for line in printed.splitlines() if line.startswith("3 pictures, 1 skipped; of all pixels ")
    ]
    assert sorted(line.partition("pixels ")[2].split(", ")) == sorted(shares)


def test_no_picture_that_can_be_read_is_an_error(weights, photos, tmp_path, capsys):
    assert predict(weights, photos / "b" / "broken.jpg", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert "skipped: " in printed.out
    assert "none of 1 pictures could be read" in printed.err


def test_results_do_not_overwrite_pictures(weights, photos, tmp_path):
    place = photos / "a"
    assert predict(weights, place / "photo.png", "--out", place) == 0
    np.testing.assert_array_equal(cv2.imread(str(place / "photo.png")), painted(some_labels()))
    np.testing.assert_array_equal(labels_in(place / "labels" / "photo-2.png"), some_labels())
    assert (place / "photo-2.png").is_file()


def test_results_do_not_overwrite_files_beside_the_pictures(weights, photos):
    place = photos / "a"
    (place / "photo.png").rename(place / "photo.bmp")
    (place / "photo.png").write_bytes(b"of somebody else")
    assert predict(weights, place / "photo.bmp", "--out", place) == 0
    assert (place / "photo.png").read_bytes() == b"of somebody else"
    assert (place / "photo-2.png").is_file()


def test_labels_alone(weights, photos, tmp_path):
    assert predict(weights, photos / "a", "--out", tmp_path / "out", "--no-draw", "--workers", 1) == 0
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["photo.png"]
    assert (tmp_path / "out" / "labels" / "photo.png").is_file()


def test_pictures_stand_upright_unless_told_otherwise(weights, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    image = Image.fromarray(painted(some_labels())[..., ::-1])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert predict(weights, tmp_path / "turned.png", "--out", tmp_path / "up") == 0
    np.testing.assert_array_equal(labels_in(tmp_path / "up/labels/turned.png"), np.rot90(some_labels(), -1))
    assert predict(weights, tmp_path / "turned.png", "--out", tmp_path / "stored", "--no-exif") == 0
    np.testing.assert_array_equal(labels_in(tmp_path / "stored/labels/turned.png"), some_labels())


OPTIONS = {
    "mirrored": ([], {}),
    "straight": (["--no-flip"], {"flip_test": False}),
    "scales": (["--scales", "0.5,1,1.5"], {"scales": [0.5, 1.0, 1.5]}),
    "windows": (["--window", "10", "8"], {"window": (10, 8)}),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_those_of_the_segmenter(weights, tmp_path, options, monkeypatch):
    made = []
    monkeypatch.setattr(
        "fastpose.infer.segmentation_predictor.Segmenter",
        lambda **given: made.append(Segmenter(**given)) or made[-1],
    )
    words, arguments = OPTIONS[options]
    picture = noise(tmp_path / "noise.png")
    assert predict(weights, picture, "--device", "cpu", "--out", tmp_path / "out", *words) == 0
    (own,) = made
    other = Segmenter(weights, device="cpu", **arguments)
    for field in ("flip_test", "scales", "window", "stride_rate", "upright", "dtype"):
        assert getattr(own, field) == getattr(other, field), field
    np.testing.assert_array_equal(labels_in(tmp_path / "out/labels/noise.png"), other(picture)[0].labels)


def configuration(path, data=None, **val):
    model = {"name": "paints", "align_corners": True, "channel_order": "rgb"}
    data = {"format": "figures", "input_size": [48, 64], **(data or {})}
    path.write_text(json.dumps({"model": model, "data": data, "val": val}))
    return path


def test_a_checkpoint_is_told_by_its_configuration(photos, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "fastpose.infer.segmentation_predictor.Segmenter",
        lambda **given: made.append(Segmenter(**given)) or made[-1],
    )
    torch.save(paints(7).state_dict(), tmp_path / "official.pth")
    config = configuration(tmp_path / "own.yaml", scales=[1.0, 1.25], window=[32, 32], average="exp")
    words = (tmp_path / "official.pth", photos / "a", "--out", tmp_path / "out", "--config", config)
    assert predict(*words) == 0
    assert predict(*words, "--scales", "1", "--window", "64", "48") == 0
    assert [(one.scales, one.window) for one in made] == [([1.0, 1.25], (32, 32)), ([1.0], (64, 48))]
    assert [one.average for one in made] == ["exp", "exp"]
    meta = made[0].meta
    assert (meta.model, meta.num_classes, meta.input_size, meta.align_corners) == (
        "paints",
        7,
        (48, 64),
        True,
    )
    assert made[0].classes.name == "bodyparts7"
    np.testing.assert_array_equal(labels_in(tmp_path / "out/labels/photo.png"), some_labels())


def test_classes_of_the_file_come_before_those_of_the_data(weights, photos, tmp_path, capsys):
    config = configuration(tmp_path / "own.yaml")
    assert predict(weights, photos / "a", "--out", tmp_path / "out", "--config", config) == 0
    assert "paints, 4 classes of paints, rgb" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flip_test", "words", "flips"),
    [(True, [], True), (False, [], False), (True, ["--no-flip"], False), (False, ["--no-flip"], False)],
    ids=["yes", "no", "yes, but not now", "no, nor now"],
)
def test_flip_test_of_the_configuration(weights, photos, tmp_path, monkeypatch, flip_test, words, flips):
    made = []
    monkeypatch.setattr(
        "fastpose.infer.segmentation_predictor.Segmenter",
        lambda **given: made.append(Segmenter(**given)) or made[-1],
    )
    config = configuration(tmp_path / "own.yaml", flip_test=flip_test)
    assert predict(weights, photos / "a", "--out", tmp_path / "out", "--config", config, *words) == 0
    assert [one.flip_test for one in made] == [flips]


def own_data(folder, names) -> dict:
    """Data in the layout of VOC with classes of its own."""
    classes = ClassSet("rooms", names, BODY_PARTS.colors[: len(names)])
    labels = some_labels() % len(names)
    write_voc(folder, "val", [("one.jpg", painted(labels), labels)], classes)
    return {"format": "voc", "root": str(folder)}


def test_classes_are_named_by_the_data_of_the_configuration(photos, tmp_path, caplog):
    names = ("void", "wall", "floor", "door", "bed", "lamp", "plant")
    torch.save(paints(7).state_dict(), tmp_path / "official.pth")
    config = configuration(tmp_path / "own.yaml", own_data(tmp_path / "rooms", names))
    words = (tmp_path / "official.pth", photos / "a", "--out", tmp_path / "out", "--config", config)
    assert predict(*words) == 0
    assert json.loads((tmp_path / "out/labels/classes.json").read_text())["names"] == list(names)
    assert "without names" not in caplog.text
    (tmp_path / "rooms" / "classes.json").unlink()
    for root in (tmp_path / "rooms", tmp_path / "gone", None):
        configuration(tmp_path / "own.yaml", {"format": "voc", "root": root and str(root)})
        caplog.clear()
        assert predict(*words) == 0
        assert json.loads((tmp_path / "out/labels/classes.json").read_text())["names"][0] == "class 0"
        assert "on the command line --config with a configuration whose data.root holds" in caplog.text


def test_data_with_other_classes_than_the_file_is_told(photos, tmp_path, capsys):
    torch.save(paints(7).state_dict(), tmp_path / "official.pth")
    config = configuration(tmp_path / "own.yaml", own_data(tmp_path / "rooms", ("void", "wall")))
    assert predict(tmp_path / "official.pth", photos / "a", "--config", config) == 2
    error = capsys.readouterr().err
    assert "official.pth: has 7 classes, and the set 'rooms' names 2" in error
    assert "on the command line --config" in error


@pytest.mark.parametrize(
    "more", [[], ["--scales", "1"], ["--config", "CONFIG"]], ids=["bare", "own", "config"]
)
def test_an_export_is_refused_by_name_and_before_anything_else(photos, tmp_path, capsys, more):
    model = Paints(SegmentationMeta("paints", 4, (32, 32), **PLAIN))
    path = export_model(model, tmp_path / "seg.pt2").path
    more = [configuration(tmp_path / "own.yaml") if word == "CONFIG" else word for word in more]
    assert predict(path, photos / "a" / "photo.png", "--out", tmp_path / "out", *more) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "seg.pt2" in error
    assert "predict with the weights" in error
    assert "boxes" not in error
    assert not (tmp_path / "out").exists()


def test_scales_do_not_swallow_a_picture(weights, photos, tmp_path, capsys):
    picture = photos / "a" / "photo.png"
    assert predict(weights, "--scales", "0.75,1", picture, "--out", tmp_path / "out") == 0
    with pytest.raises(SystemExit) as ended:
        predict(weights, "--scales", picture)
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "argument --scales: expected numbers with commas between them, such as 0.75,1,1.25, got" in told


POSE_ONLY = (
    ["--boxes", "boxes.json"], ["--box-score", "0.5"], ["--detector", "people"], ["--threshold", "0.3"],
    ["--refine", "dark"], ["--blur-kernel", "17"], ["--engine", "onnx"], ["--track"], ["--smooth"],
    ["--video", "out.mp4"], ["--jsonl", "out.jsonl"], ["--rate", "30"], ["--batch-size", "4"],
    ["--compile", "default"], ["--warp", "gpu"],
)  # fmt: skip


@pytest.mark.parametrize("words", POSE_ONLY, ids=lambda words: words[0])
def test_options_of_pose_networks_are_refused_by_name(weights, photos, words, capsys, tmp_path):
    assert predict(weights, photos / "a", *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"error: {words[0]}: for networks that find keypoints, and paints gives" in error
    assert not (tmp_path / "out").exists()


def test_options_of_segmentation_networks_are_refused_by_name(photos, capsys, tmp_path):
    path = tmp_path / "pose.safetensors"
    save_weights(create_model("hrnet_w18_small"), path)
    given = ["--scales", "1", "--window", "64", "64"]
    assert predict(path, photos / "a" / "photo.png", *given) == 2
    error = capsys.readouterr().err
    assert "--scales, --window: for segmentation networks, and hrnet_w18_small finds keypoints" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.jpg"], "gone.jpg: no such file or folder"),
        (["film.mp4"], "film.mp4: a video, of which a segmentation network labels single pictures"),
        (["{photo}", "--scales", "0"], "scales must be one or more numbers above 0"),
        (["{photo}", "--window", "0", "8"], "window must be (width, height)"),
        (["{photo}", "--device", "tpu"], "not a device"),
        (["{photo}", "--config", "samples/figures"], "paints"),
    ],
    ids=["missing", "video", "scales", "window", "device", "config of a pose network"],
)
def test_refusals(weights, photos, words, message, capsys, tmp_path):
    words = [word.format(photo=photos / "a" / "photo.png") for word in words]
    assert predict(weights, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_missing_and_unknown_weights_are_told(photos, tmp_path, capsys):
    assert predict(tmp_path / "gone.safetensors", photos / "a") == 2
    assert "gone.safetensors: no such file" in capsys.readouterr().err
    torch.save({}, tmp_path / "official.pth")
    assert predict(tmp_path / "official.pth", photos / "a", "--scales", "1") == 2
    assert "does not say which network it is for" in capsys.readouterr().err
