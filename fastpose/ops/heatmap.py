"""gaussian_heatmaps: joints to target heatmaps, one launch on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose._checks import check_device, check_no_grad
from fastpose.backend import get_backend, register_operation
from fastpose.ops._arguments import check_sigma, check_sizes, check_tensors
from fastpose.ops._triton import interpreting, runs_on_triton
from fastpose.reference import heatmap as reference

torch.library.define(
    "fastpose::gaussian_heatmaps",
    "(Tensor joints, Tensor visible, int[2] heatmap_size, int[2] input_size, float sigma, "
    "bool unbiased=False)"
    " -> (Tensor heatmaps, Tensor weight)",
)


def gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    """One Gaussian of peak 1 per joint, rounded and truncated or unbiased. Nothing waits for the device.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value, NaN and infinities included.
            Centres are taken in float64 for either dtype.
        visible: (B, K), any dtype; a joint is drawn where it exceeds 0.5.
        heatmap_size, input_size: (width, height).
        sigma: in heatmap cells, positive; a rounded patch reaches `int(3 sigma)` cells to each side.
        unbiased: leave the centre between cells and fill the map, as DARK does.

    Returns:
        heatmaps: (B, K, height, width) float32.
        weight: (B, K) float32, `visible`, but 0 where the joint is dropped: a coordinate is NaN, or the patch
            misses the map (unbiased: unless `-3 sigma - 2 < centre < size + 3 sigma`).

    Raises:
        TypeError, ValueError: an argument is wrong, or `joints` requires grad, which this cannot give.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.

    Source: hrnet and DARK (arXiv:1910.06278) lib/dataset/JointsDataset.py, generate_target.
    """
    _check(joints, visible, heatmap_size, input_size, sigma)
    if _on_triton(get_backend(), joints.device):
        return _heatmap_op(joints, visible, heatmap_size, input_size, sigma, unbiased)
    return reference.gaussian_heatmaps(
        joints, visible, heatmap_size=heatmap_size, input_size=input_size, sigma=sigma, unbiased=unbiased
    )


def _check(
    joints: Tensor, visible: Tensor, heatmap_size: tuple[int, int], input_size: tuple[int, int], sigma: float
) -> None:
    check_tensors(joints=joints, visible=visible)
    check_sizes(heatmap_size=heatmap_size, input_size=input_size)
    check_sigma(sigma)
    reference.check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    check_device("visible", visible, joints.device)
    check_no_grad("joints", joints)
    check_no_grad("visible", visible)


def _on_triton(backend: str, device: torch.device) -> bool:
    return runs_on_triton("gaussian_heatmaps", "joints", backend, device.type)


def _heatmap_triton(
    joints: Tensor,
    visible: Tensor,
    heatmap_size: Sequence[int],
    input_size: Sequence[int],
    sigma: float,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    from fastpose.kernels.heatmap import launch_gaussian_heatmaps  # type: ignore[import-not-found]

    return launch_gaussian_heatmaps(joints, visible, tuple(heatmap_size), tuple(input_size), sigma, unbiased)


def _heatmap_cpu(
    joints: Tensor,
    visible: Tensor,
    heatmap_size: Sequence[int],
    input_size: Sequence[int],
    sigma: float,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    if interpreting():
        return _heatmap_triton(joints, visible, heatmap_size, input_size, sigma, unbiased)
    return reference.gaussian_heatmaps(
        joints,
        visible,
        heatmap_size=(heatmap_size[0], heatmap_size[1]),
        input_size=(input_size[0], input_size[1]),
        sigma=sigma,
        unbiased=unbiased,
    )


def _heatmap_fake(
    joints: Tensor, visible: Tensor, heatmap_size: Sequence[int], *_: object
) -> tuple[Tensor, Tensor]:
    width, height = heatmap_size
    heatmaps = joints.new_empty((*visible.shape, height, width), dtype=torch.float32)
    return heatmaps, joints.new_empty(visible.shape, dtype=torch.float32)


torch.library.impl("fastpose::gaussian_heatmaps", "cuda", _heatmap_triton)
torch.library.impl("fastpose::gaussian_heatmaps", "cpu", _heatmap_cpu)
torch.library.register_fake("fastpose::gaussian_heatmaps", _heatmap_fake)
register_operation("gaussian_heatmaps", "triton", _on_triton)
_heatmap_op = torch.ops.fastpose.gaussian_heatmaps.default
