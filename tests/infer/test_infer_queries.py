"""Queries to keypoints against scipy's assignment and OpenCV's affine map, one sample at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastpose.data.affine import box_to_center_scale, get_affine_transform, transform_points, warp_crop
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.infer.queries import decode_queries
from fastpose.keypoints import KeypointSet
from fastpose.models import ModelMeta, PoseModel
from fastpose.nn.normalize import normalize_crops

BATCH, QUERIES, JOINTS = 3, 8, 5
SIZE = (96, 128)
FLIP = (0, 2, 1, 4, 3)
NAMES = ("nose", "left eye", "right eye", "left ear", "right ear")
FIVE = KeypointSet("five", NAMES, ((1, 2), (3, 4)), (), (0.05,) * 5, (), (1.0,) * 5)


def prediction() -> dict[str, Any]:
    logits, coords = torch.randn(BATCH, QUERIES, JOINTS + 1) * 2, torch.rand(BATCH, QUERIES, 2)
    return {"pred_logits": logits, "pred_coords": coords, "aux_outputs": []}


def boxes() -> tuple[Tensor, Tensor]:
    return torch.rand(BATCH, 2) * 300, (torch.rand(BATCH, 1) + 0.5) * torch.tensor([[0.75, 1.0]])


def plain(
    output: dict[str, Any], center: Tensor, scale: Tensor, *, mirror: bool = False, background: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (B, K, 2) in image pixels and probabilities (B, K), joints in their own order."""
    keypoints, scores = np.zeros((BATCH, JOINTS, 2)), np.zeros((BATCH, JOINTS))
    for i in range(BATCH):
        logits = output["pred_logits"][i].double().numpy()
        shares = np.exp(logits if background else logits[:, :JOINTS])
        shares = (shares / shares.sum(1, keepdims=True))[:, :JOINTS]
        queries, joints = linear_sum_assignment(-shares)
        places = output["pred_coords"][i].double().numpy()[queries]
        if mirror:
            places[:, 0] = 1 - places[:, 0]
        back = get_affine_transform(center[i].numpy(), scale[i].numpy(), 0.0, SIZE, inverse=True)
        keypoints[i, joints] = transform_points(places * SIZE, back)
        scores[i, joints] = shares[queries, joints]
    return keypoints, scores


def check_agrees(found: Any, keypoints: np.ndarray, scores: np.ndarray) -> None:
    assert found.valid.all()
    assert (found.keypoints.dtype, found.score.dtype) == (torch.float32, torch.float32)
    np.testing.assert_allclose(found.keypoints.numpy(), keypoints, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.score.numpy(), scores, rtol=1e-5)


@pytest.mark.parametrize("background", [False, True], ids=["joints", "with background"])
def test_joints_take_the_likeliest_queries(background: bool) -> None:
    output, (center, scale) = prediction(), boxes()
    found = decode_queries(output, center, scale, SIZE, background=background)
    check_agrees(found, *plain(output, center, scale, background=background))


@pytest.mark.parametrize("kind", ["tuple", "list", "tensor"])
def test_mirrored_queries_are_averaged_in_the_image(kind: str) -> None:
    output, flipped, (center, scale) = prediction(), prediction(), boxes()
    order: Any = {"tuple": FLIP, "list": list(FLIP), "tensor": torch.tensor(FLIP)}[kind]
    found = decode_queries(output, center, scale, SIZE, flipped=flipped, flip_index=order)
    keypoints, scores = plain(output, center, scale)
    other, other_scores = plain(flipped, center, scale, mirror=True)
    check_agrees(found, (keypoints + other[:, FLIP]) / 2, (scores + other_scores[:, FLIP]) / 2)


def test_inputs_stay_as_they_are() -> None:
    """The official fliplr_joints changes what it is given."""
    output, flipped, (center, scale) = prediction(), prediction(), boxes()
    tensors = [output["pred_coords"], flipped["pred_coords"], flipped["pred_logits"], center, scale]
    before = [tensor.clone() for tensor in tensors]
    decode_queries(output, center, scale, SIZE, flipped=flipped, flip_index=FLIP)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_queries_that_are_not_finite_are_avoided() -> None:
    output, (center, scale) = prediction(), boxes()
    output["pred_logits"][0, :2] = torch.nan
    found = decode_queries(output, center, scale, SIZE)
    assert found.valid.all()
    assert found.keypoints.isfinite().all()


@pytest.mark.parametrize("broken", ["straight", "mirrored"])
def test_nothing_finite_is_not_a_keypoint(broken: str) -> None:
    output, flipped, (center, scale) = prediction(), prediction(), boxes()
    victim = output if broken == "straight" else flipped
    victim["pred_logits"][0] = torch.nan
    victim["pred_coords"][1] = torch.inf
    found = decode_queries(output, center, scale, SIZE, flipped=flipped, flip_index=FLIP)
    assert found.valid.any(1).tolist() == [False, False, True]
    assert (found.score[:2] == 0).all()
    at_corner = {**prediction(), "pred_coords": torch.zeros(BATCH, QUERIES, 2)}
    np.testing.assert_allclose(found.keypoints[:2], plain(at_corner, center, scale)[0][:2], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred_logits": torch.zeros(BATCH, 4, 6)}, ValueError, "pred_coords: expected shape"),
        (
            {"pred_logits": torch.zeros(BATCH, QUERIES, 10)},
            ValueError,
            "9 joints need as many queries, got 8",
        ),
        ({"pred_logits": torch.zeros(QUERIES, 6)}, ValueError, "pred_logits: expected 3 dimensions"),
        ({"pred_coords": None}, TypeError, "pred_coords: expected a torch.Tensor"),
        ({"pred_coords": torch.rand(BATCH, QUERIES, 2, requires_grad=True)}, ValueError, "requires grad"),
    ],
    ids=["queries", "joints", "dimensions", "type", "grad"],
)
def test_refuses_outputs(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decode_queries({**prediction(), **change}, *boxes(), SIZE)


@pytest.mark.parametrize("order", [None, (0, 1), (0, 1, 2, 3, 3), torch.tensor([0, 1])], ids=str)
def test_refuses_an_order_of_other_joints(order: Any) -> None:
    with pytest.raises(ValueError, match="flip_index: "):
        decode_queries(prediction(), *boxes(), SIZE, flipped=prediction(), flip_index=order)


class Pointer(PoseModel):
    """Query k is joint k, at the brightest column and row of the crop's channels; remembers its inputs."""

    output = "queries"

    def __init__(self) -> None:
        super().__init__(ModelMeta("pointer", JOINTS, SIZE, keypoints=FIVE))
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> dict[str, Any]:
        self.inputs.append(x)
        column, row = x.sum((1, 2)).argmax(1), x.sum((1, 3)).argmax(1)
        place = torch.stack(((column + 0.5) / x.shape[3], (row + 0.5) / x.shape[2]), dim=1)
        logits = 4 * torch.eye(JOINTS, JOINTS + 1).expand(len(x), -1, -1)
        last = {"pred_logits": logits, "pred_coords": place[:, None].expand(-1, JOINTS, -1)}
        return {**last, "aux_outputs": [last]}


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_forward_reads_queries(flip: bool) -> None:
    crops = torch.randint(0, 256, (BATCH, SIZE[1], SIZE[0], 3), dtype=torch.uint8)
    center, scale = boxes()
    model = Pointer()
    got = forward_crops(
        model, crops, center, scale, ForwardOptions(torch.device("cpu"), FLIP, flip_test=flip)
    )
    straight, mirrored = Pointer(), Pointer()
    inputs = normalize_crops(crops)
    more = {"flipped": mirrored(inputs.flip(3)), "flip_index": FLIP} if flip else {}
    expected = decode_queries(straight(inputs), center, scale, SIZE, **more)
    assert len(model.inputs) == 1
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_a_bright_spot_is_found_where_it_is_in_the_picture() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:124, 220:224] = 255
    center, scale = box_to_center_scale(np.array([[180.0, 80.0, 90.0, 120.0]]), SIZE[0] / SIZE[1])
    crop = warp_crop(image, get_affine_transform(center[0], scale[0], 0.0, SIZE), SIZE)
    crops, options = torch.from_numpy(crop[None]), ForwardOptions(torch.device("cpu"), FLIP)
    keypoints, score, _ = forward_crops(
        Pointer(), crops, torch.from_numpy(center), torch.from_numpy(scale), options
    )
    assert (keypoints[0] - torch.tensor([221.5, 121.5])).abs().max() < 2
    assert (score > 0.5).all()
