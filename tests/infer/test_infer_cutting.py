"""Crops cut on the device out of parts of pictures: the bytes of cv2 out of the whole ones, and no more."""

import cv2
import numpy as np
import pytest
import torch
from cuda_graph_on_cpu import play_cuda_on_cpu
from pose_stubs import TWO, ChannelPeaks

from fastpose.data import warp_batch
from fastpose.data.affine import box_to_center_scale, crop_transform
from fastpose.data.warp_batch import LARGEST_PART
from fastpose.errors import ConfigError, ImageError
from fastpose.infer.cutting import PersonCutter, cuts_on_device
from fastpose.infer.forward import ForwardOptions
from fastpose.infer.graphs import CropForward
from fastpose.infer.parts import PartWarp, pack, unpack
from fastpose.infer.predictor import Predictor
from fastpose.infer.stages import Crops
from fastpose.models import ModelMeta, create_model
from fastpose.nn.graph import WARMUP

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = (48, 64)
BOXES = {
    "inside": (60, 40, 50, 90),
    "left and above": (-30.5, -25.25, 70, 90),
    "right and below": (170.7, 130.3, 80, 100),
    "in the last corner": (198, 148, 2, 2),
    "one pixel": (77, 33, 1, 1),
    "a fraction of a pixel": (120.3, 64.9, 0.2, 0.1),
    "wide": (5, 70, 190, 4),
    "the whole picture": (0, 0, 200, 150),
    "larger than the picture": (-300, -200, 800, 700),
}


def picture(width: int = 200, height: int = 150, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def meta(order: str = "rgb", codec: str = "msra") -> ModelMeta:
    return ModelMeta("peaks", 2, SIZE, order, TWO, codec=codec)


def parts_of(boxes, order: str = "rgb", codec: str = "msra") -> Crops:
    return Crops.of(list(PersonCutter(meta(order, codec), parts=True)(picture(), np.array(boxes, float))))


def by_opencv(boxes, order: str, codec: str) -> np.ndarray:
    """Each crop out of the whole picture, as the official code cuts it."""
    center, scale = box_to_center_scale(np.array(boxes, float), SIZE[0] / SIZE[1])
    image = picture() if order == "bgr" else cv2.cvtColor(picture(), cv2.COLOR_BGR2RGB)
    matrices = [crop_transform(codec, c, s, 0.0, SIZE) for c, s in zip(center, scale, strict=True)]
    return np.stack([cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_LINEAR) for matrix in matrices])


@pytest.mark.parametrize("codec", ["msra", "udp"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("box", BOXES)
def test_pixels_are_those_of_opencv(box, order, codec):
    boxes = [BOXES[box]]
    cut = PartWarp(SIZE, order, CPU)(parts_of(boxes, order, codec), 1)
    expected = by_opencv(boxes, order, codec)
    assert expected.any()
    np.testing.assert_array_equal(cut.numpy(), expected)
    (plain,) = PersonCutter(meta(order, codec))(picture(), np.array(boxes, float))
    np.testing.assert_array_equal(plain.pixels, expected[0])


def test_a_batch_of_all_sizes_keeps_its_order_and_ends_in_black():
    boxes = list(BOXES.values())
    cut = PartWarp(SIZE, "rgb", CPU)(parts_of(boxes), 16)
    np.testing.assert_array_equal(cut[: len(boxes)].numpy(), by_opencv(boxes, "rgb", "msra"))
    assert cut.shape == (16, 64, 48, 3)
    assert not cut[len(boxes) :].any()


@pytest.mark.parametrize("box", BOXES)
def test_only_what_a_crop_shows_travels(box):
    """No more than a few pixels around the crop's own rectangle, nor than the crop where that is smaller."""
    image, crop_bytes = picture(), 3 * SIZE[0] * SIZE[1]
    (part,) = PersonCutter(meta(), parts=True)(image, np.array([BOXES[box]], float))
    assert not np.shares_memory(part.pixels, image), "the picture can be let go of"
    assert part.pixels.nbytes <= LARGEST_PART * crop_bytes
    low, high = part.center - 100 * part.scale, part.center + 100 * part.scale
    width, height = np.minimum(high, (200, 150)) - np.maximum(low, 0) + 6
    assert part.pixels.nbytes <= max(3 * width * height, crop_bytes)


def test_a_part_much_larger_than_its_crop_travels_as_the_crop():
    image = picture(900, 700)
    (part,) = PersonCutter(meta(), parts=True)(image, np.array([[0, 0, 900, 700.0]]))
    assert part.pixels.shape == (64, 48, 3)
    center, scale = box_to_center_scale(np.array([[0, 0, 900, 700.0]]), SIZE[0] / SIZE[1])
    matrix = crop_transform("msra", center[0], scale[0], 0.0, SIZE)
    expected = cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_array_equal(PartWarp(SIZE, "rgb", CPU)(Crops.of([part]), 1)[0].numpy(), expected)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_fields_lie_in_one_buffer_at_round_addresses(size):
    crops = parts_of(list(BOXES.values())[:size])
    packed = pack(crops, size)
    fields = unpack(packed, size)
    assert {name: x.data_ptr() % 16 for name, x in fields.items()} == dict.fromkeys(fields, 0)
    assert {x.untyped_storage().data_ptr() for x in fields.values()} == {packed.data_ptr()}
    assert len(fields["images"]) == sum(part.size for part in crops.pixels)
    np.testing.assert_array_equal(fields["matrices"], crops.matrix)
    np.testing.assert_array_equal(fields["origins"], crops.origin)
    for part, start, (width, height) in zip(crops.pixels, fields["offsets"], fields["sizes"], strict=True):
        found = fields["images"][start : start + part.size].view(height, width, 3)
        np.testing.assert_array_equal(found, part)


@pytest.fixture
def folder(tmp_path):
    """Pictures of several sizes, one of them cut short."""
    for number in range(9):
        image = picture(60 + 31 * number, 170 - 13 * number, number)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.GaussianBlur(image, (9, 9), 3))
    broken = tmp_path / "4.png"
    broken.write_bytes(broken.read_bytes()[:-50])
    return tmp_path


@pytest.mark.parametrize("codec", ["msra", "udp"])
@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "threads"])
def test_results_are_the_same_wherever_crops_are_cut(folder, workers, codec):
    """The network sees the same bits in the same batches, and one bad picture costs one result."""
    rng = np.random.default_rng(1)
    boxes = [
        rng.uniform((-20, -20, 1, 1), (50, 60, 120, 130), (count, 4)) for count in [1, 0, 3, 7, 2, 5] * 2
    ]
    runs = []
    for warp in ("cpu", "gpu"):
        model = ChannelPeaks(size=SIZE)
        model.meta = meta("rgb", codec)
        predict = Predictor(model, device="cpu", batch_size=4, workers=workers, warp=warp)
        runs.append((model, predict(folder, boxes[:9])))
    (one, expected), (other, got) = runs
    assert one.batches == other.batches
    assert sum(one.batches) >= 2 * 4
    for a, b in zip(one.inputs, other.inputs, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a.keypoints.xy, b.keypoints.xy)
        np.testing.assert_array_equal(a.keypoints.conf, b.keypoints.conf)
        assert str(a.error) == str(b.error)
    assert [result.path.stem for result in got if isinstance(result.error, ImageError)] == ["4"]


def test_graphs_are_warmed_up_and_replayed_with_parts(monkeypatch):
    """Each number of parts takes the graph of its bucket, whatever the sizes of the pictures."""
    play_cuda_on_cpu(monkeypatch)
    wanted, played = ChannelPeaks(size=SIZE), ChannelPeaks(size=SIZE)
    cutter = PersonCutter(meta(), parts=True)
    warp, sizes = PartWarp(SIZE, "rgb", CPU), []
    forward = CropForward(
        played,
        ForwardOptions(CPU, TWO.flip_index),
        largest=4,
        warp=lambda crops, size: sizes.append(size) or warp(crops, size),
    )
    forward.warm_up((1, 4), SIZE)
    assert sizes == [1] * (WARMUP + 1) + [4] * (WARMUP + 1), "on the way that parts take"
    steps = forward._steps
    assert (steps.captured, len(steps._shapes)) == (2, 2)
    plain = Predictor(wanted, device="cpu", graph=False, warp="cpu")
    for seed, count in enumerate((1, 4, 3, 1)):
        image = picture(90 + 17 * seed, 80, seed)
        boxes = np.random.default_rng(seed).uniform(10, 50, (count, 4))
        found = forward(Crops.of(list(cutter(image, boxes))))()
        np.testing.assert_array_equal(found.xy, plain(image, boxes)[0].keypoints.xy)
    assert len(steps._shapes) == 2
    assert len(played.inputs) == 2 * (WARMUP + 1), "all else was replayed"


@pytest.mark.parametrize(
    ("setting", "device", "used", "expected"),
    [("cpu", CUDA, "triton", False), ("gpu", CPU, "reference", True), ("auto", CUDA, "triton", True),
     ("auto", CUDA, "reference", False), ("auto", CPU, "triton", False)],
)  # fmt: skip
def test_auto_cuts_on_a_gpu_that_has_the_kernel(monkeypatch, setting, device, used, expected):
    monkeypatch.setattr(warp_batch, "op_status", lambda device: {"warp_crops": (used, "")})
    assert cuts_on_device(setting, device) is expected


def test_wrong_settings():
    with pytest.raises(ConfigError, match="warp: expected 'auto', 'cpu' or 'gpu', got 'tpu'"):
        Predictor(ChannelPeaks(), device="cpu", warp="tpu")
    forward = CropForward(ChannelPeaks(size=SIZE), ForwardOptions(CPU, TWO.flip_index))
    with pytest.raises(ValueError, match="parts of pictures need warp=PartWarp"):
        forward(parts_of([BOXES["inside"]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parts_on_a_gpu_while_the_batch_before_is_computed():
    """Memory of one batch must not become that of the next before its crops have been used."""
    warp, boxes = PartWarp(SIZE, "rgb", CUDA), list(BOXES.values())
    busy, cut = torch.randn(4096, 4096, device="cuda"), []
    for turn in range(6):
        for _ in range(8):
            busy = (busy @ busy).clamp(-1, 1)
        cut.append(warp(parts_of(boxes[turn:] + boxes[:turn]), 12).clone())
    expected = by_opencv(boxes, "rgb", "msra")
    for turn, crops in enumerate(cut):
        np.testing.assert_array_equal(crops[: len(boxes)].cpu().numpy(), np.roll(expected, -turn, 0))
        assert not crops[len(boxes) :].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_predictions_on_a_gpu_cut_there(folder):
    model = create_model("hrnet_w18_small", 17, input_size=(64, 64))
    model.reset_parameters("kaiming")
    boxes = [np.array([[5.0, 5, 50, 60], [-9, 20, 60, 50]])] * 9
    runs = [
        Predictor(model, device="cuda", batch_size=8, warp=warp).warm_up(1, 2, 4, 8)(folder, boxes)
        for warp in ("cpu", "auto")
    ]
    near = [np.abs(a.keypoints.xy - b.keypoints.xy) < 0.5 for a, b in zip(*runs, strict=True) if not a.error]
    assert np.concatenate(near).mean() > 0.95, "an untrained network has peaks that rounding chooses between"
