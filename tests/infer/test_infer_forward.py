"""The forward pass around a network: mirrored batch, channel order, and what reaches the decoder."""

import pytest
import torch
from pose_stubs import TWO, ChannelPeaks

from fastpose.infer.forward import ForwardOptions, forward_crops, predict_batches
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.decode import decode_heatmaps


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
