"""Detectors: the built-in one, callables of any form, and other libraries behind adapters."""

import copy
import json
import pickle
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import shared_path
from pose_stubs import ChannelPeaks

from fastpose.errors import ConfigError, DataError
from fastpose.infer.detectors import (
    PeopleDetector,
    RtmlibDetector,
    TorchvisionDetector,
    TransformersDetector,
    UltralyticsDetector,
    pick_detector,
)
from fastpose.infer.predictor import Predictor

IMAGE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
CORNERS = [[10.0, 20, 50, 100], [60, 10, 90, 110], [0, 0, 30, 30]]
BOXES = [[10.0, 20, 40, 80], [60, 10, 30, 100], [0, 0, 30, 30]]
SCORES = [0.9, 0.6, 0.2]


def predict(detector):
    return Predictor(ChannelPeaks(), flip_test=False, detector=detector)(IMAGE)[0]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes xywh."""
    width, height = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    return float(shared / (a[2] * a[3] + b[2] * b[3] - shared))


@pytest.mark.parametrize(
    ("answer", "boxes", "scores"),
    [
        pytest.param(np.array(BOXES), BOXES, [1, 1, 1], id="boxes"),
        pytest.param(BOXES, BOXES, [1, 1, 1], id="lists"),
        pytest.param(np.column_stack([BOXES, SCORES]), BOXES, SCORES, id="boxes-with-score"),
        pytest.param((np.array(BOXES, np.float32), SCORES), BOXES, np.float32(SCORES), id="pair"),
        pytest.param(np.zeros((0, 4)), [], [], id="nobody"),
        pytest.param([], [], [], id="empty-list"),
        pytest.param((np.zeros((0, 4)), np.zeros(0)), [], [], id="nobody-pair"),
        pytest.param(np.zeros((0, 5)), [], [], id="nobody-with-score"),
        pytest.param(torch.tensor(BOXES), BOXES, [1, 1, 1], id="tensor"),
    ],
)
def test_callables(answer, boxes, scores):
    seen = []
    found = predict(lambda image: seen.append(image) or answer)
    assert found.boxes.xywh.tolist() == boxes
    np.testing.assert_allclose(found.boxes.conf, scores, rtol=1e-6)
    assert np.array_equal(seen[0], IMAGE)
    assert found.keypoints.xy.shape == (len(boxes), 2, 2)


def test_boxes_that_a_detector_gets_wrong_are_skipped():
    found = predict(lambda image: [[10, 10, 40, 40], [500, 0, 9, 9], [np.nan, 0, 9, 9]])
    assert len(found) == 1
    assert len(found.skipped) == 2


@pytest.mark.parametrize(
    "answer", [None, [[1, 2, 3]], "text", np.zeros((2, 6)), ([[1, 2, 3, 4]], [1, 2])],
    ids=["none", "three", "text", "six-columns", "scores"],
)  # fmt: skip
def test_callables_that_return_no_boxes(answer):
    def mine(image):
        return answer

    with pytest.raises(DataError, match=r"detector mine: .*must return boxes \(N, 4\)"):
        predict(mine)


def test_a_detectors_own_error_is_its_own():
    def broken(image):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        predict(broken)


def test_given_boxes_go_before_the_detector():
    def never(image):
        raise AssertionError("asked")

    results = Predictor(ChannelPeaks(), detector=never)([IMAGE], [[BOXES[0]]])
    assert results[0].found_by == "given"
    assert predict(lambda image: BOXES).found_by == "<lambda>"


@pytest.mark.parametrize(
    "choice", ["yolo", "rtmlib", "rtmlib:", "people:x", 3, ""], ids=repr
)  # fmt: skip
def test_unknown_detectors(choice):
    with pytest.raises(ConfigError, match="'whole', 'people', a callable, or LIBRARY:MODEL"):
        pick_detector(choice)


def test_whole_picture():
    for choice in (None, "whole"):
        assert pick_detector(choice) == (None, "whole")
    assert predict("whole").boxes.xywh.tolist() == [[0, 0, 160, 120]]


def test_built_in_detector_finds_a_person_where_it_can():
    """A photograph of one whole, upright person: the easiest case there is."""
    root = shared_path("data", "coco_mini")
    truth = json.loads((root / "annotations" / "person_keypoints_train2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    detector, found, boxes = PeopleDetector(), 0, 0
    wanted = [a for a in truth["annotations"] if not a["iscrowd"] and a["bbox"][3] >= 100]
    for image_id in sorted({a["image_id"] for a in wanted}):
        windows, scores = detector(cv2.imread(str(root / "images" / "train2017" / names[image_id])))
        assert windows.shape == (len(scores), 4)
        assert (scores > 0.3).all()
        boxes += len(windows)
        people = [np.array(a["bbox"]) for a in wanted if a["image_id"] == image_id]
        found += sum(any(overlap(box, person) >= 0.5 for box in windows) for person in people)
    assert found == pytest.approx(6, abs=1), "what its docstring says"
    assert boxes <= 16


@pytest.mark.parametrize("shape", [(1, 1), (127, 64), (128, 63), (128, 64), (3000, 40), (40, 3000)], ids=str)
def test_built_in_detector_takes_any_size(shape):
    boxes, scores = PeopleDetector()(np.zeros((*shape, 3), np.uint8))
    assert boxes.shape == (len(scores), 4)


def test_built_in_detector_survives_a_trip_to_another_process():
    detector = PeopleDetector(0.7)
    detector(np.zeros((128, 64, 3), np.uint8))  # it holds OpenCV's object now, which cannot travel
    assert pickle.dumps(detector)
    assert copy.deepcopy(detector).min_score == 0.7


def library(monkeypatch, name: str, **contents) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Torchvision(torch.nn.Module):
    """Answers as torchvision's detection networks do."""

    def forward(self, images):
        (image,) = images
        assert image.shape == (3, 120, 160)
        np.testing.assert_allclose(image.numpy().transpose(1, 2, 0)[..., ::-1] * 255, IMAGE, atol=1e-3)
        labels = torch.tensor([1, 3, 1, 1])
        corners = torch.tensor([CORNERS[0], CORNERS[0], CORNERS[1], CORNERS[2]])
        return [{"boxes": corners, "labels": labels, "scores": torch.tensor([0.9, 0.95, 0.6, 0.2])}]


def test_torchvision(monkeypatch):
    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        if name == "unknown":
            raise ValueError("Unknown model unknown")
        return Torchvision()

    library(monkeypatch, "torchvision", models=SimpleNamespace(get_model=get_model))
    for detector in ("torchvision:fasterrcnn", TorchvisionDetector(Torchvision(), min_score=0.5)):
        found = predict(detector)
        assert found.boxes.xywh.tolist() == BOXES[:2]
        np.testing.assert_allclose(found.boxes.conf, SCORES[:2], rtol=1e-6)
    assert asked == [("fasterrcnn", "DEFAULT")]
    with pytest.raises(ConfigError, match="Unknown model"):
        pick_detector("torchvision:unknown")


def test_ultralytics(monkeypatch):
    class Yolo:
        names = {0: "car", 1: "Person"}  # noqa: RUF012 (as the library has it)

        def __init__(self, file):
            self.file = file

        def predict(self, image, classes, conf, device, verbose):
            assert (classes, conf, device, verbose) == ([1], 0.25, None, False)
            assert np.array_equal(image, IMAGE)
            host = SimpleNamespace(xyxy=np.float32(CORNERS[:2]), conf=np.float32(SCORES[:2]))
            return [SimpleNamespace(boxes=SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: host)))]

    library(monkeypatch, "ultralytics", YOLO=Yolo)
    for detector in ("ultralytics:yolo11n.pt", UltralyticsDetector(Yolo("x"))):
        found = predict(detector)
        assert found.boxes.xywh.tolist() == BOXES[:2]
        np.testing.assert_allclose(found.boxes.conf, SCORES[:2], rtol=1e-6)
    nobody = Yolo("x")
    nobody.names = ["cat", "dog"]
    with pytest.raises(ConfigError, match="no class called person"):
        UltralyticsDetector(nobody)


def test_rtmlib(monkeypatch):
    made = []

    def yolox(file, score_thr, device):
        made.append(file)
        return lambda image: np.array(CORNERS)

    library(monkeypatch, "rtmlib", YOLOX=yolox)
    assert predict("rtmlib:folder/yolox.onnx").boxes.xywh.tolist() == BOXES
    assert made == ["folder/yolox.onnx"]
    several = RtmlibDetector(lambda image: (np.array(CORNERS), np.array([0, 5, 0])))
    assert predict(several).boxes.xywh.tolist() == [BOXES[0], BOXES[2]]
    assert len(predict(RtmlibDetector(lambda image: np.array([])))) == 0
    assert len(predict(RtmlibDetector(lambda image: (np.array([]), np.array([]))))) == 0


class Processor:
    """Answers as an image processor of transformers does."""

    def __call__(self, images, return_tensors):
        assert np.array_equal(images[..., ::-1], IMAGE)
        return type("Inputs", (dict,), {"to": lambda self, device: self})(pixel_values=torch.zeros(1))

    def post_process_object_detection(self, outputs, threshold, target_sizes):
        assert (outputs, threshold, list(target_sizes)) == ("outputs", 0.5, [(120, 160)])
        labels, scores = torch.tensor([7, 7, 2]), torch.tensor(SCORES)
        return [{"boxes": torch.tensor(CORNERS), "labels": labels, "scores": scores}]


class Transformer(torch.nn.Module):
    config = SimpleNamespace(id2label={2: "cat", 7: "person"})

    def forward(self, pixel_values):
        return "outputs"


def test_transformers(monkeypatch):
    def of_folder(name):
        if name == "gone":
            raise OSError("gone is not a local folder")
        return Processor()

    processors = SimpleNamespace(from_pretrained=of_folder)
    networks = SimpleNamespace(from_pretrained=lambda name: Transformer())
    library(monkeypatch, "transformers", AutoImageProcessor=processors, AutoModelForObjectDetection=networks)
    for detector in ("transformers:someone/detr", TransformersDetector(Transformer(), Processor())):
        found = predict(detector)
        assert found.boxes.xywh.tolist() == BOXES[:2]
        np.testing.assert_allclose(found.boxes.conf, SCORES[:2], rtol=1e-6)
    with pytest.raises(ConfigError, match="gone is not a local folder"):
        pick_detector("transformers:gone")
    with pytest.raises(ConfigError, match="image processor"):
        TransformersDetector(Transformer())


@pytest.mark.parametrize("name", ["torchvision", "ultralytics", "rtmlib", "transformers"])
def test_missing_library(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        pick_detector(f"{name}:model")


def test_broken_library(monkeypatch, tmp_path):
    """As torchvision for another torch, which fails with a RuntimeError."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "rtmlib.py").write_text("import what_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (("torchvision", "nms does not exist"), ("rtmlib", "what_it_needs")):
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(ConfigError, match=message):
            pick_detector(f"{name}:model")


def test_adapters_import_nothing_before_they_are_asked():
    names = "torchvision", "ultralytics", "rtmlib", "transformers", "pandas", "PIL"
    code = f"import sys, fastpose.infer.predictor; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
