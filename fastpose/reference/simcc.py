"""SimCC (arXiv:2107.03332): a joint as one classification over bins an axis. Targets, loss and decoding.

An axis of n input pixels has `round(n * split_ratio)` bins, and the joint at pixel x is of bin
`round(x * split_ratio)`, halves to the even bin. Plain PyTorch is the implementation on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.reference.decode import Decoded, to_image

Bins = tuple[Tensor, Tensor]


def count_bins(input_size: tuple[int, int], split_ratio: float) -> tuple[int, int]:
    """Bins of x and of y."""
    return round(input_size[0] * split_ratio), round(input_size[1] * split_ratio)


def simcc_targets(
    joints: Tensor,
    visible: Tensor,
    *,
    input_size: tuple[int, int],
    bins: tuple[int, int],
    sigma: tuple[float, float] | None = (6.0, 6.0),
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a joint's bins should hold.

    With `sigma` a Gaussian over the whole axis whose sum, far from the ends, is 1. Without it the joint's bin
    holds `1 - smoothing` and all others share `smoothing` equally.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), floating point; any value, NaN and infinities included.
        visible: (B, K), a joint is drawn where it exceeds 0.5.
        input_size: (width, height) in pixels; bins: of x and of y.
        sigma: of x and of y, in bins, positive; or None.
        smoothing: 0 to 1, without `sigma`.

    Returns:
        x (B, K, bins[0]) and y (B, K, bins[1]) float32, and weight (B, K) float32, `visible`, but 0 where a
        coordinate is NaN or the joint is dropped: with `sigma` where 3 of it do not reach the axis, else
        where its bin is not there. Dropped joints have targets of 0.

    Raises:
        ValueError: a shape, a size, sigma or smoothing is wrong.

    Source: mmpose codecs/simcc_label.py.
    """
    _check_targets(joints, visible, input_size, bins, sigma, smoothing)
    bin_of = [(joints[..., i].double() * (bins[i] / input_size[i])).round() for i in (0, 1)]
    reach = (0.0, 0.0) if sigma is None else (3.0 * sigma[0], 3.0 * sigma[1])
    past = 0.0 if sigma is None else 1.0
    inside = torch.ones_like(visible, dtype=torch.bool)
    for i in (0, 1):
        inside = inside & (bin_of[i] - reach[i] < bins[i]) & (bin_of[i] + reach[i] + past >= 0)
    weight = torch.where(inside, visible.float(), 0.0)
    x, y = (_axis(bin_of[i], bins[i], None if sigma is None else sigma[i], smoothing) for i in (0, 1))
    drawn = (weight > 0.5)[..., None]
    return torch.where(drawn, x, 0.0), torch.where(drawn, y, 0.0), weight


def _axis(bin_of: Tensor, bins: int, sigma: float | None, smoothing: float) -> Tensor:
    """(B, K) bins of joints -> (B, K, bins) float32."""
    distance = torch.arange(bins, device=bin_of.device) - bin_of[..., None]
    if sigma is None:
        return torch.where(distance == 0, 1.0 - smoothing, smoothing / max(bins - 1, 1))
    height = 1 / (sigma * math.sqrt(2 * math.pi))
    return (height * torch.exp(-0.5 * (distance / sigma).square())).float()


def simcc_loss(
    pred: Bins,
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: tuple[float, float] | None = (6.0, 6.0),
    smoothing: float = 0.0,
) -> Tensor:
    """Divergence of the targets from the softmax of the network's bins.

        mean over samples and joints of weight (mean_x t (log t - log p) + mean_y t (log t - log p))

    as mmpose's KLDiscretLoss, which sums over the samples of a process instead.

    Args:
        pred: x (B, K, bins of x) and y (B, K, bins of y), floating point logits; read as float32, or float64.
        joints: (B, K, 2) in input pixels; weight: (B, K), a joint above 0 counts with it.
        input_size, sigma, smoothing: as in `simcc_targets`.

    Returns:
        Scalar, float32, or float64 for such a `pred`; NaN for an empty batch.

    Raises:
        ValueError: an argument is wrong.
    """
    _check_bins(pred)
    bins = pred[0].shape[2], pred[1].shape[2]
    *targets, drawn = simcc_targets(
        joints, (weight > 0).float(), input_size=input_size, bins=bins, sigma=sigma, smoothing=smoothing
    )
    total = []
    for logits, target in zip(pred, targets, strict=True):
        shares = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
        total.append(F.kl_div(shares, target.to(shares), reduction="none").mean(-1))
    return ((total[0] + total[1]) * (drawn * weight)).mean()


def flip_bins(pred: Bins, flip_index: Sequence[int] | Tensor, shift: int = 0) -> Bins:
    """Bins of a mirrored crop in the frame of the crop: x reversed, left and right joints swapped.

    `shift` is by how many bins x then moves to the left, its last bins staying: `split_ratio - 1` puts the
    joint of pixel x where it is without the mirror; mmpose leaves it 0.
    """
    x, y = (_reorder(axis, flip_index) for axis in pred)
    mirrored = x.flip(-1)
    if shift:
        mirrored = torch.cat((mirrored[..., shift:], mirrored[..., -shift:]), dim=-1)
    return mirrored, y


def _reorder(axis: Tensor, order: Sequence[int] | Tensor) -> Tensor:
    """Joints in another order; numbers of Python are not copied to the device, which a CUDA graph forbids."""
    if isinstance(order, Tensor):
        return axis.index_select(1, order.to(axis.device))
    return torch.stack([axis[:, k] for k in order], dim=1)


def decode_simcc(
    pred: Bins,
    center: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    input_size: tuple[int, int],
    flipped: Bins | None = None,
    flip_index: Sequence[int] | Tensor | None = None,
    shift: bool = False,
) -> Decoded:
    """Keypoints of the highest bins, mapped back to the image.

    Args:
        pred: x (B, K, bins of x) and y (B, K, bins of y), floating point; read as float32.
        center, scale: (B, 2) centre of the crop box in image pixels and its size / 200 px, of which only the
            width counts; None for coordinates in input pixels.
        input_size: (width, height) of the crop in pixels.
        flipped: the same of the mirrored crops, averaged in.
        flip_index: K indices, needed with `flipped` (`KeypointSet.flip_index`).
        shift: align the mirrored bins exactly, as in `flip_bins`; mmpose does not.

    Returns:
        keypoints (B, K, 2) float32 (x, y); score (B, K) float32, the lower of the two maxima, logits as they
        are; valid (B, K) bool. Only finite values compete, and the lowest bin wins a tie. A joint whose score
        is not positive is at input (0, 0), where mmpose says bin -1; one without a finite value in x or in y
        has score 0 and valid False.

    Raises:
        ValueError: shapes do not fit, or one of a pair is missing.

    Source: mmpose codecs/utils/post_processing.py, get_simcc_maximum; models/utils/tta.py, flip_vectors.
    """
    _check_bins(pred)
    if (center is None) != (scale is None):
        raise ValueError("center and scale: give both, or neither for coordinates in input pixels")
    ratios = [axis.shape[2] / pixels for axis, pixels in zip(pred, input_size, strict=True)]
    axes = [axis.float() for axis in pred]
    if flipped is not None:
        axes = _average(axes, flipped, flip_index, round(ratios[0] - 1) if shift else 0)
    tops = [_highest(axis) for axis in axes]
    valid = tops[0][2] & tops[1][2]
    score = torch.where(valid, torch.minimum(tops[0][1], tops[1][1]), 0.0)
    places = [torch.where(score > 0, top[0], 0) / ratio for top, ratio in zip(tops, ratios, strict=True)]
    xy = torch.stack(places, dim=-1).float()
    if center is not None and scale is not None:
        xy = to_image(xy, center, scale, *input_size)
    return Decoded(xy, score, valid)


def _average(
    axes: list[Tensor], flipped: Bins, flip_index: Sequence[int] | Tensor | None, shift: int
) -> list[Tensor]:
    if flip_index is None:
        raise ValueError("flip_index: needed with flipped, got None; pass KeypointSet.flip_index")
    shapes = [tuple(axis.shape) for axis in axes]
    if [tuple(axis.shape) for axis in flipped] != shapes:
        raise ValueError(f"flipped: expected shapes {shapes}, got {[tuple(axis.shape) for axis in flipped]}")
    if len(flip_index) != shapes[0][1]:
        raise ValueError(f"flip_index: expected {shapes[0][1]} joints, got {len(flip_index)}")
    mirrored = flip_bins((flipped[0].float(), flipped[1].float()), flip_index, shift)
    return [(axis + other) * 0.5 for axis, other in zip(axes, mirrored, strict=True)]


def _highest(axis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest bin of the largest finite value, that value, and whether there is one: (B, K) each."""
    finite = axis.isfinite()
    index = axis.masked_fill(~finite, -torch.inf).argmax(-1, keepdim=True)
    valid = finite.any(-1)
    return index.squeeze(-1), torch.where(valid, axis.gather(-1, index).squeeze(-1), 0.0), valid


def _check_bins(pred: Bins) -> None:
    shapes = [tuple(axis.shape) for axis in pred]
    if [len(shape) for shape in shapes] != [3, 3] or shapes[0][:2] != shapes[1][:2] or 0 in shapes[0][1:]:
        raise ValueError(f"pred: expected x (B, K, bins) and y (B, K, bins), got {shapes}")
    if shapes[1][2] == 0:
        raise ValueError(f"pred: expected bins, got {shapes}")


def _check_targets(
    joints: Tensor,
    visible: Tensor,
    input_size: tuple[int, int],
    bins: tuple[int, int],
    sigma: tuple[float, float] | None,
    smoothing: float,
) -> None:
    if joints.ndim != 3 or joints.shape[-1] != 2 or not joints.is_floating_point():
        raise ValueError(
            f"joints: expected (B, K, 2) floating point, got {tuple(joints.shape)} {joints.dtype}"
        )
    if visible.shape != joints.shape[:2]:
        raise ValueError(f"visible: expected {tuple(joints.shape[:2])}, got {tuple(visible.shape)}")
    for name, size in (("input_size", input_size), ("bins", bins)):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"{name}: expected two positive numbers, got {tuple(size)}")
    if sigma is not None and not (len(sigma) == 2 and all(0 < value < math.inf for value in sigma)):
        raise ValueError(f"sigma: expected two positive numbers of bins or None, got {sigma}")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: expected a number from 0 to 1, got {smoothing}")
    if smoothing and sigma is not None:
        raise ValueError(f"smoothing: only without sigma, got both ({smoothing} and {sigma})")
