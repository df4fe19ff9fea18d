"""Segmentation losses against their definitions, pixel by pixel in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastpose.errors import ConfigError
from fastpose.nn.bilinear import enlarge
from fastpose.train.segmentation_losses import LOSSES, segmentation_loss

C = 4
WEIGHT = [0.5, 2.0, 0.0, 1.25]


def sample(seed: int = 0, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, C, 5, 7) and labels (2, 5, 7), a third of which are 255, C or more."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.standard_normal((2, C, 5, 7)) * spread)
    labels = rng.integers(0, C, (2, 5, 7))
    labels[rng.random(labels.shape) < 0.2] = 255
    labels[rng.random(labels.shape) < 0.15] = C
    labels[0, 0, :2] = [254, C + 1]
    return logits, torch.from_numpy(labels.astype(np.uint8))


def pixels(logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[np.ndarray, int]]:
    """(probabilities of the classes, label or -1) of every pixel."""
    found = []
    for b, y, x in np.ndindex(*labels.shape):
        scores = logits[b, :, y, x].numpy()
        powers = np.exp(scores - scores.max())
        label = int(labels[b, y, x])
        found.append((powers / powers.sum(), label if label < C else -1))
    return found


def true_ce(logits: torch.Tensor, labels: torch.Tensor, weight: list[float]) -> float:
    counted = [(p, label) for p, label in pixels(logits, labels) if label >= 0]
    total = sum(-np.log(p[label]) * weight[label] for p, label in counted)
    return total / sum(weight[label] for _, label in counted)


def true_ohem(
    logits: torch.Tensor, labels: torch.Tensor, weight: list[float], threshold: float, min_kept: int
) -> float:
    counted = sorted((p[label], label) for p, label in pixels(logits, labels) if label >= 0)
    limit = max(counted[min(min_kept, len(counted) - 1)][0], threshold)
    return float(np.mean([-np.log(p) * weight[label] for p, label in counted if p < limit]))


def true_dice(logits: torch.Tensor, labels: torch.Tensor, weight: list[float], as_seed: bool) -> float:
    everything = [(np.clip(p, 1e-7, 1 - 1e-7), label) for p, label in pixels(logits, labels)]
    counted = [(p, label) for p, label in everything if label >= 0]
    ce = sum(-np.log(p[label]) * weight[label] for p, label in counted)
    scores = []
    for c in range(C):
        tp = sum(p[c] for p, label in counted if label == c)
        fn = sum(1 - p[c] for p, label in counted if label == c)
        fp = sum(p[c] for p, label in (everything if as_seed else counted) if label != c)
        scores.append((2 * tp + 1e-5) / (2 * tp + fn + fp + 1e-5))
    return ce / len(everything if as_seed else counted) + 1 - float(np.mean(scores))


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", ["ce", "ce_dice", "ce_dice_seed"])
def test_value_is_the_definition(name: str, weight: list[float] | None) -> None:
    logits, labels = sample()
    ones = weight or [1.0] * C
    want = true_ce(logits, labels, ones)
    if name != "ce":
        want = true_dice(logits, labels, ones, as_seed=name == "ce_dice_seed")
    given = None if weight is None else torch.tensor(weight)
    got = segmentation_loss(logits, labels, name=name, weight=given)
    assert got.item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("threshold", "min_kept"),
    [(0.3, 5), (0.3, 0), (0.9, 5), (0.0, 20), (0.05, 10_000), (1.0, 131072)],
    ids=["threshold decides", "nothing kept", "most are hard", "count decides", "fewer count", "all but one"],
)
def test_hard_pixels_are_the_definition(threshold: float, min_kept: int, weight: list[float] | None) -> None:
    logits, labels = sample(1)
    want = true_ohem(logits, labels, weight or [1.0] * C, threshold, min_kept)
    given = None if weight is None else torch.tensor(weight)
    got = segmentation_loss(logits, labels, name="ohem", weight=given, threshold=threshold, min_kept=min_kept)
    assert got.item() == pytest.approx(want, rel=1e-12)


def test_pixels_as_easy_as_the_limit_are_left_out() -> None:
    # One of p = 0.75, three of exactly 0.5, none below the limit of the second smallest but the first.
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.5, 0.5], [0.75, 0.5, 0.5, 0.5]], dtype=torch.float64))
    logits = logits[None, :, None]
    labels = torch.zeros(1, 1, 4, dtype=torch.uint8)
    got = segmentation_loss(logits, labels, name="ohem", threshold=0.0, min_kept=2)
    assert got.item() == pytest.approx(-np.log(0.25), rel=1e-12)
    none = segmentation_loss(logits[..., 1:], labels[..., 1:], name="ohem", threshold=0.0, min_kept=2)
    assert none.item() == 0


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("name", LOSSES)
def test_logits_are_enlarged_to_the_labels_first(name: str, align_corners: bool) -> None:
    logits, _ = sample()
    labels = torch.randint(0, C, (2, 18, 27))
    got = segmentation_loss(logits, labels, name=name, align_corners=align_corners, threshold=0.3)
    large = enlarge(logits, (18, 27), align_corners)
    assert torch.equal(got, segmentation_loss(large, labels, name=name, threshold=0.3))
    other = segmentation_loss(logits, labels, name=name, align_corners=not align_corners, threshold=0.3)
    assert not torch.isclose(got, other, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_the_derivative(name: str) -> None:
    logits, labels = sample(2)

    def value(x: torch.Tensor) -> torch.Tensor:
        return segmentation_loss(x, labels, name=name, weight=torch.tensor(WEIGHT), threshold=0.6, min_kept=9)

    assert torch.autograd.gradcheck(value, logits.requires_grad_())


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ce_dice_seed"])
def test_pixels_that_do_not_count_change_nothing(name: str) -> None:
    logits, labels = sample()
    logits = logits.requires_grad_()
    value = segmentation_loss(logits, labels, name=name, threshold=0.4, min_kept=5)
    (gradient,) = torch.autograd.grad(value, logits)
    outside = (labels >= C)[:, None].expand_as(logits)
    assert (gradient[outside] == 0).all()
    assert (gradient[~outside] != 0).any()
    changed = torch.where(outside, torch.randn_like(logits) * 9, logits.detach())
    torch.testing.assert_close(
        segmentation_loss(changed, labels, name=name, threshold=0.4, min_kept=5), value
    )


def test_a_perfect_prediction_is_charged_for_its_border_by_the_seed_alone() -> None:
    classes = torch.arange(C).repeat(2, 6, 2)
    logits = 40.0 * torch.nn.functional.one_hot(classes, C).movedim(3, 1).double()
    labels = torch.where(torch.arange(6)[:, None] < 4, classes, 255)
    assert segmentation_loss(logits, labels, name="ce_dice").item() == pytest.approx(0, abs=1e-5)
    # Every class: 16 pixels found, 8 more on the border, so Dice is 2 * 16 / (2 * 16 + 8).
    assert segmentation_loss(logits, labels, name="ce_dice_seed").item() == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_that_counts_gives_zero_and_no_gradient(name: str, dtype: torch.dtype) -> None:
    logits = (sample()[0].to(dtype) * 40).requires_grad_()
    labels = torch.full((2, 20, 28), 255, dtype=torch.uint8)
    value = segmentation_loss(logits, labels, name=name, weight=torch.tensor(WEIGHT))
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.isfinite().all()
    if name != "ce_dice_seed":
        assert value == 0
        assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_only_a_class_of_weight_0_gives_a_finite_loss(name: str) -> None:
    logits = sample()[0].requires_grad_()
    labels = torch.full((2, 5, 7), 2)
    segmentation_loss(logits, labels, name=name, weight=torch.tensor(WEIGHT)).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_have_finite_gradients(name: str) -> None:
    logits = (sample()[0].float() * 1e4).requires_grad_()
    value = segmentation_loss(logits, sample()[1], name=name)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_prediction_that_is_not_a_number_is_seen(name: str) -> None:
    logits, labels = sample()
    labels[0, 2, 3] = 1
    logits[0, 0, 2, 3] = float("nan")
    assert segmentation_loss(logits, labels, name=name, threshold=0.1, min_kept=3).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_read_back_from_the_device(name: str) -> None:
    with FakeTensorMode():
        logits = torch.randn(2, C, 5, 7, requires_grad=True)
        labels = torch.zeros(2, 20, 28, dtype=torch.uint8)
        value = segmentation_loss(logits, labels, name=name, weight=torch.ones(C))
        value.backward()
    assert value.shape == ()


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_close_to_float64(name: str) -> None:
    logits, _ = sample()
    labels = torch.randint(0, C + 1, (2, 20, 28))
    want = segmentation_loss(logits.float().double(), labels, name=name, min_kept=100)
    got = segmentation_loss(logits.float(), labels, name=name, min_kept=100)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)


def test_255_does_not_count_even_where_it_could_be_a_class() -> None:
    logits = torch.randn(1, 300, 1, 3)
    labels = torch.tensor([[[255, 299, -1]]])
    want = -logits.log_softmax(1)[0, 299, 0, 1]
    torch.testing.assert_close(segmentation_loss(logits, labels), want)


def test_an_empty_batch_has_loss_0() -> None:
    for name in LOSSES:
        value = segmentation_loss(torch.zeros(0, C, 5, 7), torch.zeros(0, 5, 7, dtype=torch.uint8), name=name)
        assert value.isfinite(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "dice"}, "unknown segmentation loss 'dice'; known: ce, ohem, ce_dice, ce_dice_seed"),
        ({"threshold": 1.5}, "threshold must be a probability from 0 to 1, got 1.5"),
        ({"min_kept": -1}, "min_kept must be a whole number of pixels, got -1"),
        ({"min_kept": 0.5}, "min_kept must be a whole number of pixels, got 0.5"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "=".join(map(str, *value.items())),
)
def test_options_that_cannot_be_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        segmentation_loss(*sample(), **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("logits", "labels", "weight", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4).long(), None, "logits: expected (B, C, h, w)"),
        (torch.zeros(2, 3, 4, 4).int(), torch.zeros(2, 3, 4).long(), None, "floating point"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4).long(), None, "labels: expected (2, H, W)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4).long(), None, "got (2, 1, 4, 4)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), None, "labels: expected whole numbers"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4).long(), torch.ones(4), "weight: expected (3,)"),
    ],
    ids=["rank", "integers", "batch", "channels", "float labels", "weights"],
)
def test_wrong_shapes_are_explained(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        segmentation_loss(logits, labels, weight=weight)
    assert message in str(caught.value)
