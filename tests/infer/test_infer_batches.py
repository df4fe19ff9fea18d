"""Batches of columns in, batches of columns out."""

import numpy as np
import pytest
from pose_stubs import ChannelPeaks
from shard_pictures import SIZE, boxes, png, spot

from fastpose.errors import DataError
from fastpose.infer.batches import BatchPredictor
from fastpose.infer.images_in import to_bgr
from fastpose.infer.shard_output import result_row

COUNT = 7


def predict(**more) -> BatchPredictor:
    return BatchPredictor(ChannelPeaks(), flip_test=False, detector="whole", device="cpu", **more)


def pictures(form: str, folder) -> list:
    import cv2

    data = [png(number) for number in range(COUNT)]
    if form == "bytes":
        return data
    if form == "image":
        return [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for one in data]
    for number, one in enumerate(data):
        (folder / f"{number}.png").write_bytes(one)
    return [str(folder / f"{number}.png") for number in range(COUNT)]


def objects(values: list) -> np.ndarray:
    column = np.empty(len(values), object)
    for index, value in enumerate(values):
        column[index] = value
    return column


@pytest.mark.parametrize("container", [list, objects, np.array], ids=["list", "objects", "array"])
@pytest.mark.parametrize("form", ["bytes", "image", "path"])
def test_columns_of_pictures(tmp_path, form, container):
    batch = {form: container(pictures(form, tmp_path)), "id": np.arange(COUNT) * 10}
    found = predict()(batch)
    own = {"path"} if form == "path" else set()
    assert found.keys() == own | {
        "id", "width", "height", "error", "boxes", "box_score", "keypoints", "score"
    }  # fmt: skip
    assert all(len(column) == COUNT for column in found.values())
    assert found["id"].tolist() == list(range(0, 70, 10))
    assert found["error"].tolist() == [None] * COUNT
    assert found["width"].tolist() == [SIZE] * COUNT
    for number, points in enumerate(found["keypoints"]):
        assert points.shape == (1, 2, 3)
        assert points.dtype == np.float32
        assert np.abs(points[0, :, :2].mean(axis=0) - spot(number)).max() < 5


def test_pixels_are_rgb():
    """As Ray reads them; the predictor itself takes OpenCV's order."""
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[..., 0] = 200
    model = ChannelPeaks("rgb")
    BatchPredictor(model, flip_test=False, detector="whole", device="cpu")({"image": [rgb]})
    assert model.inputs[0][0, :, 32, 32].argmax() == 0
    with pytest.raises(DataError):
        predict()({"picture": [rgb]})
    assert to_bgr(rgb, "x")[0, 0].tolist() == [200, 0, 0]


def test_boxes_belong_to_their_rows():
    given = objects([boxes(number) for number in range(COUNT)])
    given[4] = None
    given[5] = objects([np.array([1.0, 2, 20, 30]), np.array([0.0, 0, 10, 10])])
    given[6] = float("nan")  # a missing value of pandas
    found = predict()({"bytes": pictures("bytes", None), "boxes": given})
    assert [len(rows) for rows in found["boxes"]] == [0, 1, 2, 0, 1, 2, 1]
    assert found["boxes"][5].tolist() == [[1, 2, 20, 30], [0, 0, 10, 10]]
    assert [points.shape for points in found["keypoints"]] == [(len(b), 2, 3) for b in found["boxes"]]


def test_bad_rows_cost_themselves():
    data = [*pictures("bytes", None)[:4]]
    data[1], data[2] = b"noise", None
    found = predict()({"bytes": objects(data), "boxes": objects([boxes(1), None, None, [[1, 2]]])})
    reasons = [None, "not an image", "holds no picture", "expected (N, 4)"]
    for error, reason in zip(found["error"], reasons, strict=True):
        assert error is None if reason is None else reason in error
    assert [len(points) for points in found["keypoints"]] == [1, 0, 0, 0]
    assert found["width"].tolist() == [SIZE, 0, 0, 0]


def test_it_says_what_the_predictor_says():
    one = predict()
    found = one({"bytes": pictures("bytes", None)})
    bgr = [image[..., ::-1] for image in pictures("image", None)]
    for row, result in enumerate(one.predictor(bgr)):
        for name, value in result_row(result).items():
            np.testing.assert_array_equal(found[name][row], value)
    assert one({"bytes": [], "id": np.array([])})["keypoints"].shape == (0,)
