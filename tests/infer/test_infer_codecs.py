"""The forward pass of networks of every codec: what is averaged, how it is read, where it lies."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpose_decode import udp_image_point, udp_point
from pose_stubs import TWO, ChannelPeaks

from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.models import ModelMeta, PoseModel
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.simcc import decode_simcc

CENTER, SCALE = torch.tensor([[40.0, 50.0]] * 3), torch.tensor([[0.5, 0.5]] * 3)
SIZE = (64, 64)


class Profiles(PoseModel):
    """Bins of x are the sums of input channel k over its rows, two a pixel, those of y over its columns."""

    output = "bins"

    def __init__(self) -> None:
        super().__init__(ModelMeta("profiles", 2, SIZE, keypoints=TWO, codec="simcc"))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(F.interpolate(x[:, :2].sum(axis), scale_factor=2, mode="linear") for axis in (2, 3))


class UdpPeaks(ChannelPeaks):
    """`ChannelPeaks` that says it was trained with UDP."""

    def __init__(self) -> None:
        super().__init__()
        self.meta = self.meta.with_options({"codec": "udp"})


def crops() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 64, 64, 3), generator=draw, dtype=torch.uint8)


def options(**more) -> ForwardOptions:
    return ForwardOptions(torch.device("cpu"), TWO.flip_index, **more)


@pytest.mark.parametrize("shift", [True, False])
def test_bins_of_both_pictures_are_averaged(shift):
    model = Profiles()
    got = forward_crops(model, crops(), CENTER, SCALE, options(shift=shift))
    images = normalize_crops(crops())
    expected = decode_simcc(
        model(images),
        CENTER,
        SCALE,
        input_size=SIZE,
        flipped=model(images.flip(3)),
        flip_index=[1, 0],
        shift=shift,
    )
    other = forward_crops(model, crops(), CENTER, SCALE, options(shift=not shift))
    plain = forward_crops(model, crops(), CENTER, SCALE, options(flip_test=False))
    assert not torch.equal(other[0], got[0])
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(plain[0], got[0])
    assert torch.equal(plain[0], decode_simcc(model(images), CENTER, SCALE, input_size=SIZE).keypoints)


def test_maps_of_udp_weights_are_read_in_their_unit():
    given = options(flip_test=False, refine="dark_udp", blur_kernel=5)
    got, _, _ = forward_crops(UdpPeaks(), crops(), CENTER, SCALE, given)
    maps = normalize_crops(crops())[:, :2, ::4, ::4].numpy()
    for i, k in np.ndindex(3, 2):
        point = udp_point(maps[i, k], 5)
        box = SCALE[i].numpy() * 200
        expected = udp_image_point(point, (16, 16), SIZE, CENTER[i].numpy(), box)
        np.testing.assert_allclose(got[i, k].numpy(), expected, atol=0.05)
    other, _, _ = forward_crops(ChannelPeaks(), crops(), CENTER, SCALE, given)
    assert (got - other).abs().max() > 1


def test_a_mirrored_crop_gives_mirrored_keypoints_of_udp_weights():
    given = options(shift=False, refine="none")
    # Every fourth pixel of a mirrored crop is another one, so the crop is constant over four.
    coarse = crops()[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    straight, score, _ = forward_crops(UdpPeaks(), coarse, CENTER, SCALE, given)
    mirrored, other, _ = forward_crops(UdpPeaks(), coarse.flip(2), CENTER, SCALE, given)
    back = torch.stack((2 * 40.0 - mirrored[:, [1, 0], 0], mirrored[:, [1, 0], 1]), dim=-1)
    assert torch.equal(score, other[:, [1, 0]])
    torch.testing.assert_close(back, straight, atol=1e-4, rtol=0)
