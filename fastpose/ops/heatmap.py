"""gaussian_heatmaps: joints to target heatmaps, one launch on a GPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose._checks import check_device, check_no_grad
from fastpose.backend import get_backend, log_fallback
from fastpose.errors import BackendUnavailableError
from fastpose.reference import heatmap as reference

torch.library.define(
    "fastpose::gaussian_heatmaps",
    "(Tensor joints, Tensor visible, int[2] heatmap_size, int[2] input_size, float sigma)"
    " -> (Tensor heatmaps, Tensor weight)",
)


def gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """One rounded, truncated Gaussian of peak 1 per joint. Nothing waits for the device.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value, NaN and infinities included.
            Centres are rounded in float64 for either dtype.
        visible: (B, K), any dtype; a joint is drawn where it exceeds 0.5.
        heatmap_size, input_size: (width, height).
        sigma: in heatmap cells, positive; the patch reaches `int(3 sigma)` cells to each side.

    Returns:
        heatmaps: (B, K, height, width) float32.
        weight: (B, K) float32, `visible`, but 0 where the patch misses the map or a coordinate is NaN.

    Raises:
        ValueError: an argument is wrong, or `joints` requires grad, which this cannot give.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.

    Source: hrnet lib/dataset/JointsDataset.py, generate_target.
    """
    reference.check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    check_device("visible", visible, joints.device)
    check_no_grad("joints", joints)
    check_no_grad("visible", visible)
    if get_backend() != "reference" and _runs_on_triton(get_backend(), joints.device.type):
        return _heatmap_op(joints, visible, heatmap_size, input_size, sigma)
    return reference.gaussian_heatmaps(
        joints, visible, heatmap_size=heatmap_size, input_size=input_size, sigma=sigma
    )


@torch.compiler.assume_constant_result  # the answer is the same for the life of the process
def _runs_on_triton(backend: str, device_type: str) -> bool:
    reason = ""
    if importlib.util.find_spec("triton") is None:
        reason = "triton is not installed"
    elif device_type != "cuda" and not _interpreting():
        reason = f"joints are on {device_type}, Triton needs CUDA tensors"
    if backend == "triton":
        if reason:
            raise BackendUnavailableError(f"triton: gaussian_heatmaps: {reason}; use the backend auto")
        return True
    if device_type != "cuda":
        return False  # on a CPU the reference is the implementation, and the interpreter only a test
    if reason:
        log_fallback("gaussian_heatmaps", reason)
    return not reason


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _heatmap_triton(
    joints: Tensor, visible: Tensor, heatmap_size: Sequence[int], input_size: Sequence[int], sigma: float
) -> tuple[Tensor, Tensor]:
    from fastpose.kernels.heatmap import launch_gaussian_heatmaps  # type: ignore[import-not-found]

    return launch_gaussian_heatmaps(joints, visible, tuple(heatmap_size), tuple(input_size), sigma)


def _heatmap_cpu(
    joints: Tensor, visible: Tensor, heatmap_size: Sequence[int], input_size: Sequence[int], sigma: float
) -> tuple[Tensor, Tensor]:
    if _interpreting():
        return _heatmap_triton(joints, visible, heatmap_size, input_size, sigma)
    width, height = heatmap_size
    size = (input_size[0], input_size[1])
    return reference.gaussian_heatmaps(
        joints, visible, heatmap_size=(width, height), input_size=size, sigma=sigma
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
_heatmap_op = torch.ops.fastpose.gaussian_heatmaps.default
