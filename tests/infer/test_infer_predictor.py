"""One line from a source to results: crops, order, batches, boxes, and what is refused."""

import logging
import weakref

import cv2
import numpy as np
import pytest
import torch
from conftest import shared_path
from pose_stubs import TWO, ChannelPeaks, registered_small  # noqa: F401 (a fixture)

import fastpose
from fastpose.data.affine import box_to_center_scale, get_affine_transform, warp_crop
from fastpose.errors import CheckpointError, ConfigError, DataError, ImageError
from fastpose.infer.forward import forward_crops
from fastpose.infer.items import Item
from fastpose.infer.predictor import Predictor
from fastpose.infer.run_pictures import Stages, run_pictures
from fastpose.keypoints import COCO_17, MPII_16
from fastpose.models import ModelMeta, PoseModel, create_model, save_weights
from fastpose.models.prtr import PRTR

SIZE = (80, 60)


def blob(x: int, y: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A black picture (width, height) with a bright spot around (x, y), which both heatmaps peak at."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    cv2.circle(image, (x, y), 4, (255, 255, 255), cv2.FILLED)
    return image


def predictor(model: PoseModel | None = None, **more) -> Predictor:
    return Predictor(model or ChannelPeaks(), **{"flip_test": False, "detector": "whole", **more})


def spot(result) -> np.ndarray:
    return result.keypoints.xy[0].mean(axis=0)


def test_crops_become_the_official_keypoints():
    """The whole chain against its parts, called one after the other as the official code does."""
    model, rng = ChannelPeaks(), np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    boxes = np.array([[30.0, 20, 90, 180], [200, -10, 140, 80]])
    predict = Predictor(model)
    (result,) = predict(image, boxes, [0.5, 0.25])
    center, scale = box_to_center_scale(boxes, 1.0)
    crops = [
        warp_crop(image, get_affine_transform(c, s, 0.0, (64, 64)), (64, 64))[..., ::-1]
        for c, s in zip(center, scale, strict=True)
    ]
    tensors = torch.from_numpy(np.stack(crops)), torch.from_numpy(center), torch.from_numpy(scale)
    xy, score, _ = forward_crops(model, *tensors, predict.options)
    np.testing.assert_array_equal(result.keypoints.xy, xy.numpy())
    np.testing.assert_array_equal(result.keypoints.conf, score.numpy())
    assert result.boxes.xywh.tolist() == boxes.tolist()
    assert result.boxes.conf.tolist() == [0.5, 0.25]
    assert result.orig_shape == (240, 320)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_channel_order_of_the_weights(order):
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 200  # blue, in OpenCV's order
    model = ChannelPeaks(order)
    predictor(model)(image, [[8, 8, 48, 48]])
    blue = {"rgb": 2, "bgr": 0}[order]
    middle = model.inputs[0][0, :, 32, 32]
    assert middle.argmax() == blue
    assert middle[blue] == pytest.approx(
        (200 / 255 - [0.485, 0, 0.406][blue]) / [0.229, 1, 0.225][blue], abs=1e-5
    )


def test_refinement_and_its_kernel():
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:135, 220:235] = (0, 255, 255)
    image[124:140, 224:239] = (0, 180, 200)
    quarter, dark, wider = (
        predictor(**more)(image, [[180, 80, 90, 90]])[0].keypoints.xy
        for more in ({}, {"refine": "dark"}, {"refine": "dark", "blur_kernel": 17})
    )
    assert 0 < np.abs(quarter - dark).max() < 90 / 16 * 2
    assert np.abs(wider - dark).max() > 0


def test_joint_without_a_peak_is_absent():
    class Nothing(ChannelPeaks):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x[:, :2, ::4, ::4], self.value)

    for value in (torch.nan, 0.0, -1.0):
        (result,) = Predictor(Nothing(value), detector="whole")(blob(20, 20))
        assert np.isnan(result.keypoints.xy).all(), value
        assert not result.keypoints.valid.any()
        assert (result.keypoints.conf == 0).all()
        assert np.array_equal(result.plot(), blob(20, 20)), "an absent joint is not drawn"


@pytest.mark.parametrize("stream", [False, True], ids=["list", "stream"])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_order_is_kept_and_crops_share_batches(batch_size, stream):
    """Pictures with 2, 0, 1, 5 people in turn: results in order, whatever the batch."""
    model, rng = ChannelPeaks(), np.random.default_rng(1)
    spots = rng.integers(10, 50, (14, 2))
    counts = [(2, 0, 1, 5)[i % 4] for i in range(len(spots))]
    boxes = [np.repeat([[0, 0, *SIZE]], count, axis=0) for count in counts]
    pictures = (blob(x, y) for x, y in spots)
    results = list(predictor(model, batch_size=batch_size)(pictures, boxes, stream=stream))
    assert [len(result) for result in results] == counts
    assert [result.index for result in results] == list(range(len(spots)))
    for result, xy in zip(results, spots, strict=True):
        for person in result.keypoints.xy:
            assert np.abs(person.mean(axis=0) - xy).max() < 7
    assert max(model.batches) <= batch_size
    if batch_size == 8:
        assert model.batches == [8, 8, 8, 2], "26 people fill all batches but the last"


def test_memory_is_bounded_by_batches():
    """A result comes before more than `batch_size` pictures are read, even where nobody is found."""
    read = []

    def pictures():
        for number in range(30):
            read.append(number)
            yield blob(20, 20)

    nobody = predictor(detector=lambda image: np.zeros((0, 4)), batch_size=4)
    people = predictor(batch_size=4)
    first_only = predictor(
        detector=lambda image: np.zeros((0, 4)) if read[-1] else [[0, 0, *SIZE]], batch_size=4
    )
    for predict, most in ((nobody, 1), (people, 4), (first_only, 4)):
        read.clear()
        for position, result in enumerate(predict(pictures(), stream=True)):
            assert result.index == position
            assert len(read) - position <= most


def test_waiting_pictures_are_bounded_in_bytes(monkeypatch):
    model = ChannelPeaks()
    monkeypatch.setattr("fastpose.infer.run_pictures.KEPT_BYTES", 3 * blob(1, 1).nbytes)
    list(predictor(model)([blob(20, 20)] * 10, stream=True))
    assert model.batches == [4, 4, 2]


def test_pixels_are_let_go_once_they_are_cut():
    """Large photographs with few people each do not wait for the batch."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def read(item):
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        image = blob(20, 20)
        alive.append(weakref.ref(image))
        return image

    predict = predictor(batch_size=100)
    stages = Stages(
        read,
        predict.find,
        predict.cut,
        predict.forward,
        lambda picture: picture.item.index,
        batch_size=100,
    )
    items = [Item(index, "x", lambda: blob(20, 20)) for index in range(12)]
    assert list(run_pictures(items, stages)) == list(range(12))
    assert most <= 1


def test_one_bad_picture_costs_one_result(tmp_path):
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(good), blob(20, 30))
    bad.write_bytes(good.read_bytes()[:-30])
    members = [str(good), bad, None, tmp_path / "gone.png", blob(20, 30).astype(float), {"a": 1}, good]
    results = predictor()(members)
    assert [type(result.error) for result in results] == [type(None), *[ImageError] * 5, type(None)]
    assert "cut short" in str(results[1].error)
    assert "cv2.imread" in str(results[2].error)
    for result in results[1:6]:
        assert len(result) == 0
        assert result.keypoints.xy.shape == (0, 2, 2)
        assert result.error.__traceback__ is None, "its frames would keep the bytes of the file"
        with pytest.raises(ImageError):
            result.plot()
    assert np.allclose(spot(results[0]), spot(results[6]))


def test_boxes_stay_with_their_pictures_when_one_cannot_be_read():
    boxes = [[[0, 0, 30, 30]], [[1, 1, 20, 20]], [[10, 10, 40, 40]]]
    results = predictor()([blob(10, 10), None, blob(30, 30)], boxes)
    assert [result.boxes.xywh.tolist() for result in results] == [boxes[0], [], boxes[2]]


def test_a_single_bad_picture_is_an_error(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    for source in (path, str(path), None, np.zeros((4, 4, 3)), tmp_path / "gone.png"):
        with pytest.raises(ImageError):
            predictor()(source)


def test_boxes_by_json_mapping_and_entry(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), blob(20, 30))
    table = tmp_path / "boxes.json"
    table.write_text('[{"image_id": 7, "file_name": "b.png", "bbox": [0, 0, 50, 50], "score": 0.5}]')
    by_json = predictor()(tmp_path, table)
    assert [len(result) for result in by_json] == [0, 1]
    assert by_json[1].image_id == 7
    assert by_json[1].boxes.conf.tolist() == [0.5]
    by_path = predictor()(tmp_path, {tmp_path / "b.png": [[0, 0, 50, 50]]})
    assert [result.found_by for result in by_path] == ["whole", "given"]
    by_entry = predictor()(tmp_path, [None, [[0, 0, 50, 50]]], [None, [0.5]])
    assert [result.found_by for result in by_entry] == ["whole", "given"]
    assert by_entry[1].keypoints.xy.tolist() == by_json[1].keypoints.xy.tolist()


@pytest.mark.parametrize(
    ("boxes", "score", "message"),
    [
        pytest.param([[1, 2, 3]], None, "boxes", id="three-columns"),
        pytest.param([["a", 2, 3, 4]], None, "boxes", id="text"),
        pytest.param([[0, 0, 4, 4]], [1.0, 2.0], "2 scores for 1 box", id="scores"),
        pytest.param([[0, 0, 4, 4]], [np.nan], "finite", id="nan-score"),
        pytest.param(None, [1.0], "without boxes", id="score-alone"),
        pytest.param("boxes.json", [1.0], "go with them", id="json-and-score"),
        pytest.param("gone.json", None, "a json of boxes belongs to picture files", id="json-for-array"),
        pytest.param({3: []}, None, "mapping", id="mapping-of-numbers"),
        pytest.param(object(), None, "boxes", id="object"),
        pytest.param(np.zeros((2, 2, 4)), None, "boxes", id="three-dimensions"),
    ],
)
def test_wrong_boxes(boxes, score, message):
    with pytest.raises(DataError, match=message):
        predictor()(blob(20, 20), boxes, score)


@pytest.mark.parametrize(
    "boxes", [[[[0, 0, 4, 4]]], 3, [[[0, 0, 4, 4]], [[0, 0]]]], ids=["few", "int", "bad"]
)
def test_wrong_boxes_for_several_pictures(boxes):
    with pytest.raises(DataError, match="boxes"):
        predictor()([blob(20, 20)] * 2, boxes)


def test_no_boxes_no_people():
    (result,) = predictor()(blob(20, 20), np.zeros((0, 4)))
    assert result.keypoints.xy.shape == (0, 2, 2)
    assert len(result) == 0
    assert result.plot().shape == (60, 80, 3)


def test_the_default_says_that_it_takes_the_whole_picture(caplog):
    predict = Predictor(ChannelPeaks())
    with caplog.at_level(logging.WARNING, "fastpose"):
        predict(blob(20, 20), [[0, 0, 40, 40]])
        assert not caplog.records
        (result,) = predict(blob(20, 20))
        predict(blob(20, 20))
    assert len(caplog.records) == 1, "once"
    assert "taken as one person" in caplog.text
    assert result.boxes.xywh.tolist() == [[0, 0, 80, 60]]
    assert result.found_by == "whole"


def test_speed_names_the_stages():
    (result,) = predictor()(blob(20, 20))
    assert set(result.speed) == {"read", "detect", "crop", "forward"}
    assert all(spent >= 0 for spent in result.speed.values())


@pytest.mark.parametrize("joints", [16, 17])
@pytest.mark.usefixtures("registered_small")
def test_name_with_weights_file_and_run_folder_are_one_network(tmp_path, joints):
    keypoints = {16: MPII_16, 17: COCO_17}[joints]
    network = create_model("small", joints, input_size=(64, 64), keypoints=keypoints)
    save_weights(network, tmp_path / "best.safetensors")
    torch.save(network.state_dict(), tmp_path / "official.pth")
    named = {"weights": tmp_path / "official.pth", "keypoints": keypoints, "input_size": (64, 64)}
    expected = predictor(network)(blob(20, 20))[0].keypoints.xy
    assert np.isfinite(expected).any()
    for model, more in (
        (tmp_path, {}),
        (str(tmp_path / "best.safetensors"), {}),
        ("small", named),
        ("small", {"weights": tmp_path}),
    ):
        predict = fastpose.Predictor(model, flip_test=False, detector="whole", **more)
        assert predict.keypoints == keypoints
        np.testing.assert_array_equal(predict(blob(20, 20))[0].keypoints.xy, expected)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        pytest.param("hrnet_w23", {}, ConfigError, "did you mean 'hrnet_w32'", id="unknown"),
        pytest.param("hrnet_w32", {}, ConfigError, "give weights=FILE", id="untrained"),
        pytest.param("hrnet_w32", {"weights": "gone.pth"}, CheckpointError, "no such file", id="gone"),
        pytest.param("gone/w.safetensors", {}, CheckpointError, "no such file", id="gone-file"),
        pytest.param("w" * 5000, {}, ConfigError, "unknown model", id="long-name"),
        pytest.param("w" * 5000 + ".pth", {}, CheckpointError, "no such file", id="long-path"),
        pytest.param("nul\0.pth", {}, CheckpointError, "no such file", id="nul"),
        pytest.param(torch.nn.Linear(1, 1), {}, ConfigError, "got Linear", id="foreign-network"),
        pytest.param(ChannelPeaks(), {"weights": "w.pth"}, ConfigError, "only with the name", id="both"),
        pytest.param(
            "w.safetensors",
            {"weights": "w.safetensors"},
            ConfigError,
            "weights: only with the name of a model, and 'w.safetensors' is none",
            id="file-twice",
        ),
        pytest.param(".", {}, CheckpointError, "no run folder.*no best.safetensors", id="folder"),
        pytest.param(7, {}, ConfigError, "got int", id="number"),
        pytest.param(ChannelPeaks(), {"refine": "half"}, ValueError, "refine", id="refine"),
        pytest.param(ChannelPeaks(), {"blur_kernel": 4}, ValueError, "blur_kernel", id="kernel"),
        pytest.param(ChannelPeaks(), {"batch_size": 0}, ConfigError, "batch_size", id="batch"),
        pytest.param(ChannelPeaks(), {"device": "tpu"}, ConfigError, "device", id="device"),
        pytest.param(ChannelPeaks(), {"detector": "yolo"}, ConfigError, "LIBRARY:MODEL", id="detector"),
    ],
)
def test_wrong_predictors(model, options, error, message):
    with pytest.raises(error, match=message):
        Predictor(model, **options)


def test_keypoints_that_nobody_named():
    class Peaks(PoseModel):
        def __init__(self, joints):
            super().__init__(ModelMeta("peaks", joints, (64, 64)))

    assert Predictor(Peaks(17)).keypoints is COCO_17
    with pytest.raises(CheckpointError, match="5 joints"):
        Predictor(Peaks(5))
    assert predictor().keypoints is TWO


def test_network_that_gives_several_outputs():
    """The last heatmaps count, as of an hourglass."""

    class Stacked(ChannelPeaks):
        def forward(self, x):
            last = super().forward(x)
            return torch.stack([torch.rand_like(last), last], dim=1)

        def heatmaps(self, output):
            return list(output.unbind(1))

    xy = [predictor(model)(blob(20, 30))[0].keypoints.xy for model in (ChannelPeaks(), Stacked())]
    np.testing.assert_array_equal(*xy)


def test_network_of_queries():
    body = torch.nn.Conv2d(3, 2048, 32, stride=32)
    network = PRTR(
        body, ModelMeta("queries", 2, (64, 64), keypoints=TWO), channels=32, layers=1, num_queries=4
    )
    boxes = np.array([[10.0, 5, 30, 40], [50, 20, 20, 20]])
    (result,) = Predictor(network)(blob(20, 30), boxes)
    center, scale = box_to_center_scale(boxes, 1.0)
    assert result.keypoints.valid.all()
    assert ((result.keypoints.conf > 0) & (result.keypoints.conf <= 1)).all()
    assert (np.abs(result.keypoints.xy - center[:, None]) <= scale[:, None] * 100 + 1e-3).all(), "in the crop"


def test_photographs_end_to_end():
    root = shared_path("data", "coco_sample")
    (detections,) = (root / "person_detection_results").glob("COCO_val2017*.json")
    predict = Predictor(ChannelPeaks(), upright=False, batch_size=8)
    results = predict(root / "images" / "val2017", detections)
    assert sum(map(len, results)) == 118
    assert [result.image_id for result in results] == [785, 40083, 196141, 197388]
    assert all(result.skipped == [] for result in results)
    with pytest.raises(ImageError, match=r"SOURCES\.md"):
        predict(shared_path("data", "SOURCES.md"))
