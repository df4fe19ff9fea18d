"""Batches of few sizes: the same joints whatever the size, compiled, captured or neither."""

import logging

import numpy as np
import pytest
import torch
from cuda_graph_on_cpu import Graph, play_cuda_on_cpu
from pose_stubs import TWO, ChannelPeaks

from fastpose.errors import ConfigError
from fastpose.infer.engines import Engine
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.infer.graphs import CropForward, bucket_of, buckets_up_to
from fastpose.infer.predictor import Predictor
from fastpose.infer.stages import Crops
from fastpose.keypoints import COCO_17
from fastpose.models import ModelMeta, create_model
from fastpose.models.prtr import PRTR
from fastpose.nn import compiling
from fastpose.nn.graph import WARMUP

CPU = torch.device("cpu")
PIXELS = 1e-3  # of a picture: other kernels for another size of batch round differently


def draw(count: int, seed: int = 0, size: int = 64) -> Crops:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (count, size, size, 3), np.uint8)
    center, scale = rng.uniform(20, 90, (count, 2)), rng.uniform(0.3, 1, (count, 2))
    return Crops(pixels, center.astype(np.float32), scale.astype(np.float32))


def options(**more) -> ForwardOptions:
    return ForwardOptions(CPU, TWO.flip_index, **more)


def expected(model, crops: Crops, how: ForwardOptions) -> list[np.ndarray]:
    given = map(torch.from_numpy, (crops.pixels, crops.center, crops.scale))
    return [tensor.numpy() for tensor in forward_crops(model, *given, how)]


def check(found, wanted) -> None:
    """Bit by bit: what a stub computes does not depend on the batch."""
    for got, value in zip((found.xy, found.conf, found.valid), wanted, strict=True):
        np.testing.assert_array_equal(got, value)
        assert got.dtype == value.dtype


@pytest.fixture
def captured(monkeypatch) -> list[Graph]:
    """A CPU that takes CUDA graphs; the graphs that are made."""
    made: list[Graph] = []

    def graph():
        made.append(Graph())
        return made[-1]

    play_cuda_on_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    return made


@pytest.mark.parametrize(
    ("count", "largest", "bucket"),
    [(1, 32, 1), (2, 32, 2), (3, 32, 4), (5, 32, 8), (8, 32, 8), (17, 32, 32), (33, 48, 48), (31, 24, 24)],
)
def test_buckets(count, largest, bucket):
    assert bucket_of(count, largest) == bucket


def test_every_number_of_crops_fits_its_bucket_with_less_than_half_to_spare():
    for largest in (1, 7, 32, 48):
        buckets = buckets_up_to(largest)
        assert buckets[-1] == largest
        for count in range(1, largest + 1):
            bucket = bucket_of(count, largest)
            assert bucket in buckets
            assert count <= bucket < 2 * count
    assert buckets_up_to(48) == [1, 2, 4, 8, 16, 32, 48]
    assert buckets_up_to(10**18) == [*(1 << n for n in range(60)), 10**18]


@pytest.mark.parametrize("flip_test", [False, True], ids=["plain", "flip"])
def test_replays_find_what_the_network_finds(captured, flip_test):
    """Sizes in any order, each batch of other pictures; the stub sees full buckets, black at the end."""
    model = ChannelPeaks()
    how = options(flip_test=flip_test, refine="dark")
    forward = CropForward(model, how, largest=8)
    assert forward.reason == ""
    for seed, count in enumerate([3, 4, 8, 3, 1, 5, 3, 4, 2, 3, 7, 8, 6, 5, 1, 1, 1, 1]):
        crops = draw(count, seed)
        check(forward(crops)(), expected(ChannelPeaks(), crops, how))
    assert {len(x) // (1 + flip_test) for x in model.inputs} == {1, 2, 4, 8}
    assert len(captured) == 3, "sizes 1, 4 and 8 came often enough"
    assert sum(graph.replays for graph in captured) == 18 - 3 * WARMUP - 1


def test_rows_that_fill_a_bucket_are_black(captured):
    model = ChannelPeaks()
    CropForward(model, options(flip_test=False), largest=8)(draw(5))
    (inputs,) = model.inputs
    black = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    assert len(inputs) == 8
    other = ChannelPeaks()
    CropForward(other, options(flip_test=False))(Crops(black.numpy(), *np.ones((2, 3, 2), np.float32)))
    assert torch.equal(inputs[5:], other.inputs[0][:3])


def test_joints_stay_when_the_next_batch_is_run(captured):
    """All replays write one memory; what was read belongs to the reader."""
    forward = CropForward(ChannelPeaks(), options(), largest=4)
    first, second = draw(4, 1), draw(4, 2)
    for _ in range(WARMUP + 1):
        forward(first)()
    found = forward(first)()
    forward(second)()
    check(found, expected(ChannelPeaks(), first, options()))


def test_warming_up_captures(captured):
    predict = Predictor(ChannelPeaks(), device="cpu", batch_size=8)
    assert predict.warm_up(1, 3, 4) is predict
    assert len(captured) == 2
    before = [graph.replays for graph in captured]
    predict(np.zeros((50, 40, 3), np.uint8), [[0, 0, 20, 30]])
    assert [graph.replays for graph in captured] == [before[0] + 1, before[1]]


@pytest.mark.parametrize("network", ["hrnet", "queries"])
def test_networks_do_not_depend_on_the_bucket(captured, network):
    """One crop alone and among others, ungraphed and replayed: the same to rounding."""
    if network == "hrnet":
        model = create_model("hrnet_w18_small", 17, input_size=(64, 64))
        model.reset_parameters("kaiming")
        how = ForwardOptions(CPU, COCO_17.flip_index)
    else:
        body = torch.nn.Conv2d(3, 2048, 32, stride=32)
        meta = ModelMeta("queries", 2, (64, 64), keypoints=TWO)
        model, how = PRTR(body, meta, channels=32, layers=1, num_queries=4), options()
    forward = CropForward(model.eval(), how, largest=4)
    crops = draw(4)
    wanted = expected(model, crops, how)[0]
    for count in (4, 3, 1):
        part = Crops(crops.pixels[:count], crops.center[:count], crops.scale[:count])
        for _ in range(WARMUP + 2 if count == 1 else 1):
            found = forward(part)()
            near = np.abs(found.xy - wanted[:count]).max(axis=2) < PIXELS
            assert near.mean() > 0.95, "an untrained network has peaks that rounding chooses between"
    assert forward.reason == ""
    assert len(captured) == 1


def test_without_graphs_no_row_is_added():
    model = ChannelPeaks()
    forward = CropForward(model, options(), largest=8)
    assert "cpu" in forward.reason
    crops = draw(5)
    check(forward(crops)(), expected(ChannelPeaks(), crops, options()))
    assert model.batches == [10]


def test_graphs_switched_off(captured, caplog):
    with caplog.at_level(logging.INFO, "fastpose"):
        predict = Predictor(ChannelPeaks(), device="cpu", graph=False).warm_up(2)
    assert predict.forward.reason == "it was switched off"
    assert not captured
    assert not caplog.records


def test_network_that_cannot_be_captured_runs_on(captured, caplog):
    class Reading(ChannelPeaks):
        def forward(self, x):
            assert x.max().item() < 1e9
            return super().forward(x)

    forward = CropForward(Reading(), options(), largest=4)
    crops = draw(3)
    with caplog.at_level(logging.INFO, "fastpose"):
        for _ in range(WARMUP + 2):
            check(forward(crops)(), expected(ChannelPeaks(), crops, options()))
    assert "operation not permitted" in forward.reason
    (record,) = caplog.records
    assert record.message.startswith("the network runs without a CUDA graph: its capture failed")


def test_compiled_network_is_compiled_once_for_each_bucket(monkeypatch):
    sizes: list[int] = []

    def backend(module, examples):
        sizes.append(next(len(x) for x in examples if isinstance(x, torch.Tensor) and x.ndim == 4))
        return module.forward

    monkeypatch.setitem(compiling.MODES, True, {"backend": backend})
    torch._dynamo.reset()

    class Pure(ChannelPeaks):
        def forward(self, x):
            return x[:, :2, ::4, ::4] * 2

    forward = CropForward(Pure().eval(), options(flip_test=False), largest=8, compile=True)
    for seed, count in enumerate([3, 4, 5, 8, 3, 7]):
        crops = draw(count, seed)
        check(forward(crops)(), expected(Pure(), crops, options(flip_test=False)))
    assert sizes == [4, 8]


def test_wrong_settings(monkeypatch):
    with pytest.raises(ConfigError, match="compile: expected False, True"):
        Predictor(ChannelPeaks(), compile="fast")
    engine = Engine.__new__(Engine)
    torch.nn.Module.__init__(engine)
    engine.source = "a.onnx"
    with pytest.raises(ConfigError, match=r"a\.onnx is an exported network"):
        CropForward(engine, options(), compile=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_on_a_gpu():
    """Replays in flight behind each other against plain calls, on the device itself."""
    model = create_model("hrnet_w18_small", 17, input_size=(64, 64)).cuda()
    model.reset_parameters("kaiming")
    device = torch.device("cuda")
    how = ForwardOptions(device, COCO_17.flip_index)
    forward = CropForward(model.eval(), how, largest=8)
    forward.warm_up((1, 2, 4, 8), (64, 64))
    assert forward.reason == ""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        batches = [draw(count, seed) for seed, count in enumerate((8, 5, 1, 3, 8, 2))]
        pending = [forward(batches[0])]
        for n, crops in enumerate(batches):
            if n + 1 < len(batches):
                pending.append(forward(batches[n + 1]))
            given = map(torch.from_numpy, (crops.pixels, crops.center, crops.scale))
            wanted = forward_crops(model, *given, how)[0].cpu().numpy()
            near = np.abs(pending[n]().xy - wanted).max(axis=2) < 0.5
            assert near.mean() > 0.9
