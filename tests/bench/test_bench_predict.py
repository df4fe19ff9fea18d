"""The rows of predictions: every side finds the same keypoints, and a side that does not fails its row."""

import functools

import numpy as np
import pytest

import bench.bench_predict as throughput
import bench.bench_predict_latency as latency
import bench.ways
from bench.measure import measure
from bench.official_decode import final_preds
from bench.predict_pictures import Pipeline, encoded, make_plain, network_of, share_near
from bench.predict_sides import CropLoop, PictureLoop
from bench.rows import all_rows
from fastpose.models.hrnet import HRNet, HRNetConfig
from fastpose.models.meta import ModelMeta

SIZE = (64, 96)


CPU_ROWS = {row.id: row for row in (*throughput.rows, *latency.rows) if row.device == "cpu" and row.threads}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One block and one module of each kind of layer, and two pictures."""
    config = HRNetConfig(8, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    create = lambda name, joints: HRNet(config, ModelMeta(name, joints))  # noqa: E731
    monkeypatch.setattr(bench.ways, "create_model", create)
    monkeypatch.setattr(throughput, "encoded", lambda count: encoded(2))


def check_row(row):
    return measure(row, seconds=0, seed=3, check_only=True)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_cpu_rows_pass_their_checks(row):
    assert check_row(CPU_ROWS[row])["id"] == row


@pytest.mark.parametrize("flip", [True, False], ids=["flip", "plain"])
def test_a_picture_at_a_time_is_a_crop_at_a_time(flip):
    """Batches of a picture's people change nothing but the rounding."""
    network = make_plain(network_of("hrnet_w18_small", SIZE, "cpu"), "cpu")
    pictures = [latency.crowd(3), *encoded(1)]
    together = PictureLoop(network, SIZE, "cpu", flip=flip)(pictures)
    assert together.shape == (sum(len(picture.boxes) for picture in pictures), 17, 2)
    one_by_one = CropLoop(network, SIZE, "cpu")(pictures)
    assert (share_near(together, one_by_one) > 0.95) is flip


def test_crops_cut_on_the_device_are_a_side_with_the_same_keypoints():
    network = network_of("hrnet_w18_small", SIZE, "cpu")
    sides = [
        Pipeline(network, encoded(2), device="cpu", amp="none", batch_size=4, warp=warp)
        for warp in ("cpu", "gpu")
    ]
    assert [side.predictor.cut.parts for side in sides] == [False, True]
    np.testing.assert_array_equal(*(side() for side in sides))


def test_a_crowd_has_so_many_people_at_different_places():
    boxes = latency.crowd(8).boxes
    assert boxes.shape == (8, 4)
    assert len(np.unique(boxes, axis=0)) == 8


@pytest.mark.parametrize(
    "kind", ["jpeg-w18-small-128x96", "latency-w18-small-128x96-b1", "latency-jpeg-w18-small-128x96-b1"]
)
def test_wrong_keypoints_fail_their_rows(monkeypatch, kind):
    """A rival that decodes three pixels off, from JPEG bytes and from crops."""

    def moved(maps, center, scale):
        found, score = final_preds(maps, center, scale)
        return found + 3, score

    monkeypatch.setattr("bench.predict_sides.final_preds", moved)
    monkeypatch.setattr(latency, "final_preds", moved)
    with pytest.raises(AssertionError, match="of the keypoints are the same"):
        check_row(CPU_ROWS[f"predict/cpu/{kind}"])


def test_rows_from_jpeg_bytes_and_of_the_forward_alone():
    """Throughput and latency on both devices, batches of 1, 4 and 8, and the forward alone."""
    known = all_rows()
    for model, batch in (("w32", 1), ("w32", 4), ("w32", 8)):
        for kind in ("latency", "latency-jpeg"):
            assert known[f"predict/cuda/{kind}-{model}-256x192-b{batch}"].group == "end_to_end"
    assert "predict/cuda/jpeg-w48-256x192" in known
    for batch in (1, 4, 8):
        assert f"predict/cpu/latency-jpeg-w18-small-128x96-b{batch}" in known
    forward = [name for name in known if "latency-forward" in name]
    assert {name[-2:] for name in forward} == {"b4", "b8"}
    assert "forward/cuda/w32-256x192-b1" in known


def test_the_forward_alone_is_measured_against_compiled_graphs(monkeypatch):
    made = {}
    monkeypatch.setattr(latency, "forward_case", lambda *given, **more: made.update(given=given, **more))
    row = all_rows()["predict/cuda/latency-forward-w48-256x192-b8"]
    assert isinstance(row.build, functools.partial)
    row.build()
    device, model, size, batch, ways = made["given"]
    assert (device, model, size, batch) == ("cuda", "hrnet_w48", (192, 256), 8)
    first, *others = ways.values()
    assert first.graph
    assert [way.compile for way in others] == ["max-autotune"]
