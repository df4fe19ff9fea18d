"""Pictures through a segmentation network in windows, at scales and mirrored, against loops written out."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastpose.errors import ConfigError
from fastpose.infer import segmentation_forward
from fastpose.infer.segmentation_forward import class_probabilities, window_starts
from fastpose.models import HRNetSeg, HRNetSegConfig, SegmentationMeta, SegmentationModel
from fastpose.nn.normalize import normalize_crops

CPU = torch.device("cpu")


class Pointwise(SegmentationModel):
    """Logits at full size from each pixel alone; with `ramp` they grow from left to right of its input."""

    def __init__(self, ramp: float = 0.0) -> None:
        super().__init__(SegmentationMeta("pointwise", 4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)))
        self.ramp, self.sizes = ramp, []
        self.mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape))
        slope = torch.linspace(0, self.ramp, x.shape[3])
        return torch.einsum("kc,bchw->bkhw", self.mix, x) + slope * torch.arange(4)[:, None, None]


def pictures(count: int = 2, height: int = 23, width: int = 31) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, height, width, 3), generator=draw, dtype=torch.uint8)


def straight(model: SegmentationModel, images: torch.Tensor) -> torch.Tensor:
    return model(normalize_crops(images, model.meta.mean, model.meta.std))


def small_hrnet(**meta: object) -> HRNetSeg:
    shape = HRNetSegConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1), layer1_width=4)
    model = HRNetSeg(shape, SegmentationMeta("small", 3, **meta))
    model.reset_parameters("kaiming")
    return model


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_whole_picture_is_the_softmax_of_the_enlarged_logits(align_corners: bool) -> None:
    model = small_hrnet(align_corners=align_corners)
    got = class_probabilities(model.train(), pictures(), device=CPU)
    assert not model.training
    with torch.no_grad():
        logits = straight(model, pictures())
    large = F.interpolate(logits, size=(23, 31), mode="bilinear", align_corners=align_corners)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, large.softmax(1))


def test_mirror_image_counts_with_its_logits() -> None:
    model = Pointwise(ramp=3.0)
    got = class_probabilities(model, pictures(), device=CPU, flip=True)
    mirrored = straight(model, pictures().flip(2)).flip(3)
    torch.testing.assert_close(got, ((straight(model, pictures()) + mirrored) / 2).softmax(1))


def test_mirrored_logits_are_turned_back_before_they_are_enlarged() -> None:
    model = small_hrnet().eval()
    got = class_probabilities(model, pictures(), device=CPU, flip=True)
    with torch.no_grad():
        pair = [straight(model, pictures()), straight(model, pictures().flip(2))]
        large = [F.interpolate(x, size=(23, 31), mode="bilinear", align_corners=False) for x in pair]
    torch.testing.assert_close(got, ((large[0] + large[1].flip(3)) / 2).softmax(1))


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "flip"])
@pytest.mark.parametrize("stride_rate", [1.0, 2 / 3, 0.3], ids=lambda rate: f"{rate:.2f}")
@pytest.mark.parametrize("window", [(8, 10), (31, 5), (100, 9), (100, 100)], ids=str)
def test_windows_are_averaged_where_they_overlap(
    window: tuple[int, int], stride_rate: float, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_forward, "PASS_PIXELS", 200)
    model, images = Pointwise(ramp=4.0), pictures()
    got = class_probabilities(model, images, device=CPU, window=window, stride_rate=stride_rate, flip=flip)
    assert all(b <= 1 + flip or b * h * w <= 200 for b, _, h, w in model.sizes)
    w, h = min(window[0], 31), min(window[1], 23)
    total, count = torch.zeros(2, 4, 23, 31), torch.zeros(23, 31)
    step_y, step_x = max(1, int(h * stride_rate)), max(1, int(w * stride_rate))
    tops, lefts = {23 - h, *range(0, 23 - h, step_y)}, {31 - w, *range(0, 31 - w, step_x)}
    for y in tops:
        for x in lefts:
            part = images[:, y : y + h, x : x + w]
            logits = straight(model, part)
            if flip:
                logits = (logits + straight(model, part.flip(2)).flip(3)) / 2
            total[:, :, y : y + h, x : x + w] += logits.softmax(1)
            count[y : y + h, x : x + w] += 1
    torch.testing.assert_close(got, total / count)


def test_windows_cover_every_length_from_edge_to_edge() -> None:
    for length in range(1, 40):
        for window in range(1, 45):
            for rate in (1.0, 2 / 3, 0.25):
                starts = window_starts(length, window, rate)
                assert starts[0] == 0
                assert starts == sorted(set(starts))
                assert starts[-1] + min(window, length) == length
                assert all(b - a <= max(1, window * rate) for a, b in itertools.pairwise(starts))


def test_scales_are_averaged_as_probabilities() -> None:
    model, images = Pointwise(), pictures(count=1)
    got = class_probabilities(model, images, device=CPU, scales=(0.5, 1.0, 1.75))
    normalised = normalize_crops(images, model.meta.mean, model.meta.std)[0].permute(1, 2, 0).numpy()
    total = np.zeros((23, 31, 4))
    for size in ((16, 12), (31, 23), (54, 40)):
        scaled = cv2.resize(normalised, size, interpolation=cv2.INTER_LINEAR)
        powers = np.exp(scaled @ model.mix.numpy().T)
        found = powers / powers.sum(2, keepdims=True)
        total += cv2.resize(found, (31, 23), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), total / 3, atol=2e-5)
    assert [size[2:] for size in model.sizes] == [(12, 16), (23, 31), (40, 54)]


def official(
    model: Pointwise, window: tuple[int, int], scales: tuple[float, ...], flip: bool
) -> torch.Tensor:
    """exp(logits) in float64: their mean over windows, resized, summed over scales, over the sum of all."""
    pixels = pictures().double().permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (model.meta.mean, model.meta.std))
    model.mix = model.mix.double()

    def power(x: torch.Tensor) -> torch.Tensor:
        logits = (model(x) + model(x.flip(3)).flip(3)) / 2 if flip else model(x)
        return logits.exp()

    total = torch.zeros(2, 4, 23, 31, dtype=torch.float64)
    for scale in scales:
        height, width = int(23 * scale + 0.5), int(31 * scale + 0.5)
        x = F.interpolate((pixels - mean) / std, size=(height, width), mode="bilinear")
        w, h = min(window[0], width), min(window[1], height)
        found, count = torch.zeros(2, 4, height, width, dtype=torch.float64), torch.zeros(height, width)
        for y in {height - h, *range(0, height - h, max(1, h // 2))}:
            for left in {width - w, *range(0, width - w, max(1, w // 2))}:
                found[:, :, y : y + h, left : left + w] += power(x[:, :, y : y + h, left : left + w])
                count[y : y + h, left : left + w] += 1
        corners = model.meta.align_corners
        total += F.interpolate(found / count, size=(23, 31), mode="bilinear", align_corners=corners)
    return total / total.sum(1, keepdim=True)


EXP = {
    "scales": ((100, 100), (0.5, 1.0, 1.75), False),
    "scale alone": ((100, 100), (0.75,), False),
    "windows": ((12, 9), (1.0,), False),
    "windows, flip": ((12, 9), (1.0,), True),
    "all": ((12, 9), (0.75, 1.0, 1.5), True),
}


@pytest.mark.parametrize("spread", [1, 20], ids=["small logits", "logits that overflow"])
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("passes", EXP)
def test_exp_is_averaged_as_the_official_code_does(passes: str, align_corners: bool, spread: int) -> None:
    window, scales, flip = EXP[passes]
    model = Pointwise(ramp=6.0)
    model.meta = model.meta.with_options({"align_corners": align_corners})
    model.mix *= spread
    options = {"device": CPU, "window": window, "stride_rate": 0.5, "scales": scales, "flip": flip}
    got = class_probabilities(model, pictures(), **options, average="exp")
    assert got.dtype == torch.float32
    wanted = official(model, window, scales, flip)
    torch.testing.assert_close(got.double(), wanted, atol=1e-3 if spread > 1 else 2e-5, rtol=0)
    model.mix = model.mix.float()
    if passes in ("scales", "windows", "all"):
        assert (class_probabilities(model, pictures(), **options) - wanted).abs().max() > 0.05


def test_logits_of_the_test_above_overflow() -> None:
    model = Pointwise()
    model.mix *= 20
    assert straight(model, pictures()).exp().isinf().any()


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "flip"])
def test_averages_of_one_whole_picture_are_the_same(flip: bool) -> None:
    model = small_hrnet(align_corners=True)
    both = [
        class_probabilities(model, pictures(), device=CPU, flip=flip, average=average)
        for average in ("softmax", "exp")
    ]
    assert torch.equal(*both)


def test_pixels_far_below_all_others_have_probabilities_too() -> None:
    model = Pointwise()
    model.mix *= 1000
    got = class_probabilities(model, pictures(), device=CPU, scales=(0.5,), average="exp")
    assert got.isfinite().all()
    torch.testing.assert_close(got.sum(1), torch.ones(2, 23, 31))


@pytest.mark.parametrize("average", ["softmax", "exp"])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.5)], ids=str)
def test_probabilities_sum_to_1_and_do_not_depend_on_the_batch(
    scales: tuple[float, ...], average: str
) -> None:
    model = small_hrnet()
    options = {"device": CPU, "window": (16, 16), "scales": scales, "flip": True, "average": average}
    together = class_probabilities(model, pictures(3), **options)
    torch.testing.assert_close(together.sum(1), torch.ones(3, 23, 31))
    alone = torch.cat([class_probabilities(model, one, **options) for one in pictures(3).split(1)])
    torch.testing.assert_close(together, alone)


def test_autocast_is_close_and_gives_float32() -> None:
    model = small_hrnet()
    got = class_probabilities(model, pictures(), device=CPU, dtype=torch.bfloat16)
    assert got.dtype == torch.float32
    assert (got - class_probabilities(model, pictures(), device=CPU)).abs().max() < 0.02


@pytest.mark.parametrize("average", ["softmax", "exp"])
def test_no_picture_gives_nothing(average: str) -> None:
    options = {"device": CPU, "scales": (1.0, 1.5), "average": average}
    assert class_probabilities(Pointwise(), pictures(0), **options).shape == (0, 4, 23, 31)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": (0, 4)}, "window must be (width, height) in pixels, 'auto' or None, got (0, 4)"),
        ({"window": (8,)}, "window must be (width, height) in pixels, 'auto' or None, got (8,)"),
        ({"window": 8}, "window must be (width, height) in pixels, 'auto' or None, got 8"),
        ({"stride_rate": 0}, "stride_rate must be above 0 and at most 1, got 0"),
        ({"stride_rate": 1.5}, "stride_rate must be above 0 and at most 1, got 1.5"),
        ({"scales": ()}, "scales must be one or more numbers above 0 and at most 10, got ()"),
        ({"scales": (1.0, float("nan"))}, "scales must be one or more numbers above 0"),
        ({"scales": 1.5}, "at most 10, got 1.5"),
        ({"scales": (True,)}, "at most 10, got (True,)"),
        ({"scales": ("1",)}, "at most 10, got ('1',)"),
        ({"window": "whole"}, "'auto' or None, got 'whole'"),
        ({"average": "logits"}, "average must be 'softmax' or 'exp', got 'logits'"),
        ({"stride_rate": "half"}, "stride_rate must be above 0 and at most 1, got 'half'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "=".join(map(str, *value.items())),
)
def test_options_that_cannot_be_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        class_probabilities(Pointwise(), pictures(), device=CPU, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4).byte(), torch.zeros(4, 4, 3).byte()],
    ids=["float", "channels first", "one picture"],
)
def test_other_pictures_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: expected \(B, H, W, 3\) uint8"):
        class_probabilities(Pointwise(), images, device=CPU)
