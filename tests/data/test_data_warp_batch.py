"""Parts of pictures: the device sees every pixel that the crop does, and makes the loader's own crop."""

import cv2
import numpy as np
import pytest
import torch

from fastpose import backend
from fastpose.data import warp_batch
from fastpose.data.affine import get_affine_transform, warp_crop
from fastpose.data.region import Cutter, Region, whole_picture
from fastpose.data.warp_batch import (
    PART,
    PARTS,
    WarpFeed,
    collate_parts,
    cut_part,
    empty_part,
    visible_part,
    warps_on_device,
)
from fastpose.errors import ConfigError, DataError
from fastpose.ops import warp_crops

SIZE = (96, 128)
CPU = torch.device("cpu")
CUTTER = Cutter()


def noise(rng, width, height):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def training_samples(count, seed=0):
    """Pictures, matrices and mirrors as training draws them, persons at and over the border included."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        width, height = rng.integers(1, 500, 2)
        centre = rng.uniform(-0.2, 1.2, 2) * [width, height]
        scale = np.full(2, rng.lognormal(-0.2, 0.9))
        turn = rng.uniform(-90, 90) if index % 3 else 0.0
        matrix = get_affine_transform(centre, scale, turn, SIZE)
        if index % 10 == 9:
            matrix = rng.normal(size=(2, 3)) * 10.0 ** rng.uniform(-6, 6)
        yield noise(rng, width, height), matrix, bool(index % 2)


def cut(image, matrix, flipped=False, **options):
    return cut_part(whole_picture(image), matrix, SIZE, cutter=CUTTER, flipped=flipped, **options)


def expected_crop(image, matrix, flipped):
    return warp_crop(np.ascontiguousarray(image[:, ::-1]) if flipped else image, matrix, SIZE)


def warp_parts(parts, **options):
    batch = collate_parts(parts)
    named = {name: batch[name] for name in ("sizes", "offsets", "origins", "flip")}
    return warp_crops(batch["pixels"], batch["matrices"], **named, output_size=SIZE, **options)


@pytest.mark.parametrize("seed", range(4))
def test_parts_give_the_crops_of_whole_pictures(seed):
    samples = list(training_samples(40, seed))
    parts = [cut(image, matrix, flipped) for image, matrix, flipped in samples]
    got = warp_parts(parts, dtype=torch.uint8)
    expected = np.stack([expected_crop(*sample) for sample in samples])
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(expected.any((1, 2, 3))) > 25
    assert sum(part["pixels"].size for part in parts) < sum(image.size for image, _, _ in samples)


@pytest.mark.parametrize("mode", ["opencv", "bilinear"])
def test_nothing_outside_the_part_is_read(mode):
    """The rest of the picture may be anything."""
    rng = np.random.default_rng(1)
    for image, matrix, _ in training_samples(30):
        height, width = image.shape[:2]
        left, top, right, bottom = visible_part(matrix, SIZE, (width, height))
        other = noise(rng, width, height)
        other[top:bottom, left:right] = image[top:bottom, left:right]
        crops = [
            warp_crops(
                torch.from_numpy(picture)[None],
                torch.from_numpy(matrix)[None],
                output_size=SIZE,
                mode=mode,
            )
            for picture in (image, other)
        ]
        assert torch.equal(*crops)


def test_part_is_no_larger_than_needed():
    matrix = get_affine_transform(np.array([200.0, 150.0]), np.array([0.48, 0.64]), 0.0, SIZE)
    left, top, right, bottom = visible_part(matrix, SIZE, (640, 480))  # one to one: columns 152 to 247
    assert (left, top) == (151, 85)
    assert (right, bottom) == (250, 216)  # the last position's right neighbour and one to spare


def test_large_parts_travel_as_crops():
    image = noise(np.random.default_rng(2), 900, 700)
    matrix = get_affine_transform(np.array([450.0, 350.0]), np.array([3.0, 4.0]), 20.0, SIZE)
    for flipped in (False, True):
        small = cut(image, matrix, flipped)
        whole = cut(image, matrix, flipped, largest=1e9)
        assert small["pixels"].shape == (128, 96, 3)
        assert whole["pixels"].size > 4 * small["pixels"].size
        got = warp_parts([small, whole], dtype=torch.uint8)
        np.testing.assert_array_equal(got[0], expected_crop(image, matrix, flipped))
        assert torch.equal(got[0], got[1])


def test_part_is_a_copy_that_keeps_no_picture_alive():
    image = noise(np.random.default_rng(3), 60, 50)
    part = cut(image, np.eye(2, 3))
    assert not np.shares_memory(part["pixels"], image)
    assert part["pixels"].base is None


def test_matrix_must_be_finite():
    matrix = np.array([[1, 0, np.nan], [0, 1, 0]])
    with pytest.raises(DataError, match=r"matrix: expected finite numbers, got \[\[1.0, 0.0, nan\]"):
        cut(noise(np.random.default_rng(4), 9, 9), matrix)


def test_batch_has_one_buffer_and_the_other_fields_stacked():
    samples = [
        cut(image, matrix, flipped) | {"index": np.array(i, np.int64)}
        for i, (image, matrix, flipped) in enumerate(training_samples(3))
    ]
    samples.insert(1, empty_part() | {"index": np.array(7, np.int64)})
    batch = collate_parts(samples)
    assert set(batch) == {*PARTS, "index"}
    assert not set(PART) - {"pixels", "flip"} & set(batch)
    assert batch["index"].tolist() == [0, 7, 1, 2]
    kinds = {"pixels": torch.uint8, "offsets": torch.int64, "sizes": torch.int32, "matrices": torch.float64,
             "origins": torch.int32, "flip": torch.bool}  # fmt: skip
    assert {name: batch[name].dtype for name in PARTS} == kinds
    assert batch["sizes"][1].tolist() == [0, 0]
    for sample, start, (width, height) in zip(
        samples, batch["offsets"].tolist(), batch["sizes"].tolist(), strict=True
    ):
        part = batch["pixels"][start : start + 3 * width * height].view(height, width, 3)
        np.testing.assert_array_equal(part, sample["pixels"])
    assert batch["pixels"].numel() == sum(sample["pixels"].size for sample in samples)


def test_parts_of_a_region_are_those_of_its_picture():
    """Regions that hold what the crop shows and little else, as a crop cache keeps them."""
    seen = 0
    for image, matrix, flipped in training_samples(40):
        height, width = image.shape[:2]
        left, top, right, bottom = visible_part(matrix, SIZE, (width, height))
        if flipped:
            left, right = width - right, width - left
        if left < right:
            # Without the spare pixels, which no crop of the loader reads.
            left, top = left + (left > 0), top + (top > 0)
            right, bottom = right - (right < width), bottom - (bottom < height)
        region = Region(image[top:bottom, left:right], (left, top), (width, height))
        got = warp_parts([cut_part(region, matrix, SIZE, cutter=CUTTER, flipped=flipped)], dtype=torch.uint8)
        expected = expected_crop(image, matrix, flipped)
        np.testing.assert_array_equal(got[0], expected)
        seen += expected.any()
    assert seen > 25


def test_means_of_pixels_travel_as_crops():
    image = noise(np.random.default_rng(5), 80, 60)
    region = Region(image, (20, 40), (400, 300), factor=2)
    matrix = get_affine_transform(np.array([90.0, 100.0]), np.array([0.5, 0.7]), 20.0, SIZE)
    for flipped in (False, True):
        part = cut_part(region, matrix, SIZE, cutter=CUTTER, flipped=flipped)
        expected = CUTTER.cut(region, matrix, SIZE, flipped=flipped)
        assert expected.any() or flipped
        np.testing.assert_array_equal(warp_parts([part], dtype=torch.uint8)[0], expected)


def batch_and_crops(channel_order="rgb"):
    """A batch of parts, the last one empty, and what the loader makes of the same samples."""
    samples = list(training_samples(12))
    parts = [cut(*sample) | {"index": np.array(i)} for i, sample in enumerate(samples)]
    batch = collate_parts([*parts, empty_part() | {"index": np.array(99)}])
    crops = np.stack([*(expected_crop(*sample) for sample in samples), np.zeros((128, 96, 3), np.uint8)])
    if channel_order == "rgb":
        crops = np.stack([cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for crop in crops])
    return batch, torch.from_numpy(crops)


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_feed_gives_the_batch_of_the_loader(channel_order):
    batch, crops = batch_and_crops(channel_order)
    got = WarpFeed(SIZE, device=CPU, channel_order=channel_order)(batch)
    assert set(got) == {"crop", "index"}
    assert torch.equal(got["crop"], crops)
    assert got["index"] is batch["index"]
    assert set(batch) == {*PARTS, "index"}


def test_feed_takes_colours_from_the_batch():
    batch, crops = batch_and_crops()
    feed = WarpFeed(SIZE, device=CPU)
    gain, shift = torch.full((13, 3), 0.5), torch.full((13, 3), 20.0)
    got = feed(batch | {"gain": gain, "shift": shift})
    assert set(got) == {"crop", "index"}
    assert torch.equal(got["crop"], (crops * 0.5 + 20).round().to(torch.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_feed_on_a_gpu_gives_the_bits_of_the_cpu():
    batch, crops = batch_and_crops()
    pinned = {name: tensor.pin_memory() for name, tensor in batch.items()}
    feed = WarpFeed(SIZE, device=torch.device("cuda"))
    for given in (pinned, {name: tensor.cuda() for name, tensor in batch.items()}):
        assert torch.equal(feed(given)["crop"].cpu(), crops)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_colours_on_a_gpu_have_the_bits_of_the_cpu():
    batch, _ = batch_and_crops()
    draw = torch.Generator().manual_seed(0)
    batch |= {
        "gain": torch.rand(13, 3, generator=draw) * 2,
        "shift": torch.rand(13, 3, generator=draw) * 99 - 50,
    }
    got = WarpFeed(SIZE, device=torch.device("cuda"))(batch)["crop"].cpu()
    assert torch.equal(got, WarpFeed(SIZE, device=CPU)(batch)["crop"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_feed_on_a_gpu_while_the_stream_before_is_busy():
    """Memory of one batch must not become that of the next before the crops have been used."""
    batch, crops = batch_and_crops()
    feed = WarpFeed(SIZE, device=torch.device("cuda"))
    busy = torch.randn(4096, 4096, device="cuda")
    copies = []
    for turn in range(6):
        order = torch.arange(13).roll(turn)
        turned = {name: tensor if name == "pixels" else tensor[order] for name, tensor in batch.items()}
        for _ in range(8):
            busy = (busy @ busy).clamp(-1, 1)
        copies.append(feed(turned)["crop"].clone())
    for turn, copy in enumerate(copies):
        assert torch.equal(copy.cpu(), crops.roll(turn, 0))


@pytest.mark.parametrize(
    ("setting", "used", "expected"),
    [("cpu", "triton", False), ("gpu", "reference", True), ("auto", "triton", True),
     ("auto", "reference", False), ("auto", "none", False)],
)  # fmt: skip
def test_auto_warps_on_a_device_that_has_the_kernel(monkeypatch, setting, used, expected):
    monkeypatch.setattr(warp_batch, "op_status", lambda device: {"warp_crops": (used, "")})
    assert warps_on_device(setting, CPU) is expected


def test_a_cpu_warps_in_the_loader():
    with backend.use_backend("auto"):
        assert not warps_on_device("auto", CPU)


def test_setting_is_checked():
    with pytest.raises(ConfigError, match=r"data.warp must be cpu, gpu or auto, got 'tpu'"):
        warps_on_device("tpu", CPU)
