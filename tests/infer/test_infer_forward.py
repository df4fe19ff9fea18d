"""The forward pass around a network: mirrored batch, channel order, and what reaches the decoder."""

import numpy as np
import pytest
import torch

from fastpose.data.affine import box_to_center_scale
from fastpose.errors import DataError
from fastpose.infer.forward import ForwardOptions, forward_crops, predict_batches
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import COCO_17, KeypointSet
from fastpose.models import ModelMeta, PoseModel
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.decode import decode_heatmaps

TWO = KeypointSet("two", ("left", "right"), ((0, 1),), (), (0.05, 0.05), (), (1.0, 1.0))


class ChannelPeaks(PoseModel):
    """Heatmap k is input channel k at a quarter of the size; remembers its inputs."""

    def __init__(self, channel_order: str = "rgb", keypoints: KeypointSet | None = TWO) -> None:
        super().__init__(ModelMeta("peaks", 2, (64, 64), channel_order, keypoints))
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return x[:, :2, ::4, ::4].clone()


def crops() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 64, 64, 3), generator=draw, dtype=torch.uint8)


def options(**more) -> ForwardOptions:
    return ForwardOptions(torch.device("cpu"), TWO.flip_index, **more)


@pytest.mark.parametrize("shift", [True, False])
def test_flip_test_is_two_forwards_averaged(shift):
    center, scale = torch.tensor([[40.0, 50.0]] * 3), torch.tensor([[0.5, 0.5]] * 3)
    model = ChannelPeaks()
    got = forward_crops(model, crops(), center, scale, options(shift=shift))
    straight, mirrored = ChannelPeaks(), ChannelPeaks()
    expected = decode_heatmaps(
        straight(normalize_crops(crops())),
        center,
        scale,
        flipped=mirrored(normalize_crops(crops()).flip(3)),
        flip_index=torch.tensor([1, 0]),
        shift=shift,
    )
    assert len(model.inputs) == 1, "one batch"
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_shift_and_flip_change_the_outcome():
    center, scale = torch.tensor([[40.0, 50.0]] * 3), torch.tensor([[0.5, 0.5]] * 3)
    rows = [
        forward_crops(ChannelPeaks(), crops(), center, scale, options(**more))[0]
        for more in ({"flip_test": False}, {"shift": False}, {"shift": True})
    ]
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("refine", ["none", "quarter", "dark"])
def test_refinement_reaches_the_decoder(refine):
    center, scale = torch.tensor([[40.0, 50.0]] * 3), torch.tensor([[0.5, 0.5]] * 3)
    settings = {"refine": refine, "blur_kernel": 5}
    got = forward_crops(ChannelPeaks(), crops(), center, scale, options(flip_test=False, **settings))
    maps = ChannelPeaks()(normalize_crops(crops()))
    expected = decode_heatmaps(maps, center, scale, **settings)
    torch.testing.assert_close(got[0], expected.keypoints, atol=1e-3, rtol=0)
    others = [other for other in ("none", "quarter", "dark") if other != refine]
    assert all(not torch.equal(got[0], decode_heatmaps(maps, center, scale, refine=o)[0]) for o in others)


def test_predictor_refines():
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:135, 220:235] = (0, 255, 255)
    image[124:140, 224:239] = (0, 100, 180)
    boxes = [[180, 80, 90, 90]]
    quarter, dark, wider = (
        Predictor(ChannelPeaks(), flip_test=False, **more)(image, boxes).keypoints
        for more in ({}, {"refine": "dark"}, {"refine": "dark", "blur_kernel": 17})
    )
    assert 0 < np.abs(quarter - dark).max() < 90 / 16 * 2
    assert np.abs(wider - dark).max() > 0


@pytest.mark.parametrize("wrong", [{"refine": "half"}, {"blur_kernel": 4}])
def test_predictor_refuses_a_wrong_refinement(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Predictor(ChannelPeaks(), **wrong)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_predictor_feeds_the_channel_order_of_the_weights(order):
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 200  # blue, in OpenCV's order
    model = ChannelPeaks(order)
    Predictor(model, flip_test=False)(image, [[8, 8, 48, 48]])
    blue = {"rgb": 2, "bgr": 0}[order]
    middle = model.inputs[0][0, :, 32, 32]
    assert middle.argmax() == blue
    assert middle[blue] == pytest.approx(
        (200 / 255 - [0.485, 0, 0.406][blue]) / [0.229, 1, 0.225][blue], abs=1e-5
    )


def test_predictor_maps_back_to_the_picture():
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:126, 220:226] = (0, 255, 255)  # red and green, the two heatmaps
    poses = Predictor(ChannelPeaks(), flip_test=False)(image, [[180, 80, 90, 90], [500, 0, 9, 9]])
    center, scale = box_to_center_scale(np.array([[180.0, 80.0, 90.0, 90.0]]), 1.0)
    cell = scale[0, 0] * 200 / 16
    assert poses.keypoints.shape == (1, 2, 2)
    assert np.abs(poses.keypoints[0] - [222.5, 122.5]).max() <= cell
    assert poses.skipped == ["box 1 [500.0, 0.0, 9.0, 9.0]: outside the picture"]
    assert np.isfinite(center).all()


def test_map_without_finite_value_is_not_a_keypoint():
    class Nothing(ChannelPeaks):
        def forward(self, x):
            return torch.full_like(x[:, :2, ::4, ::4], torch.nan)

    poses = Predictor(Nothing())(np.zeros((64, 64, 3), np.uint8))
    assert np.isnan(poses.keypoints).all()
    assert (poses.score == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "image is None"),
        (("photo.jpg",), "got str"),
        ((np.zeros((4, 4), np.uint8),), r"\(4, 4\)"),
        ((np.zeros((4, 4, 3)),), "float64"),
        ((np.zeros((0, 4, 3), np.uint8),), "sides"),
        ((np.zeros((4, 4, 3), np.uint8), [[1, 2, 3]]), "boxes"),
        ((np.zeros((4, 4, 3), np.uint8), [["a", 2, 3, 4]]), "boxes"),
        ((np.zeros((4, 4, 3), np.uint8), [[0, 0, 4, 4]], [1.0, 2.0]), "2 scores for 1 boxes"),
    ],
)
def test_predictor_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        Predictor(ChannelPeaks())(*arguments)


def test_no_boxes_no_poses():
    poses = Predictor(ChannelPeaks())(np.zeros((64, 64, 3), np.uint8), np.zeros((0, 4)))
    assert poses.keypoints.shape == (0, 2, 2)


def test_batches_are_joined_in_order():
    batch = {
        "crop": crops(),
        "center": torch.zeros(3, 2),
        "scale": torch.ones(3, 2),
        "index": torch.tensor([4, 2, 9]),
        "usable": torch.tensor([True, False, True]),
    }
    told: list[int] = []
    found = predict_batches(ChannelPeaks(), [batch, batch], options(), told.append)
    assert found.index.tolist() == [4, 2, 9] * 2
    assert found.usable.tolist() == [True, False, True] * 2
    assert found.keypoints.shape == (6, 2, 2)
    assert told == [3, 3]


def test_predictor_needs_keypoints_it_can_name():
    assert Predictor(ChannelPeaksOf17()).keypoints is COCO_17


class ChannelPeaksOf17(PoseModel):
    def __init__(self) -> None:
        super().__init__(ModelMeta("peaks", 17, (64, 64)))
