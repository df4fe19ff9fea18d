"""warp_crops: uint8 pictures and matrices to the network's input, one launch on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose._checks import check_device, check_no_grad, check_shape, check_tensor
from fastpose.backend import get_backend, register_operation
from fastpose.ops._triton import interpreting, runs_on_triton
from fastpose.reference import warp as reference
from fastpose.reference.warp import Mode

torch.library.define(
    "fastpose::warp_crops",
    "(Tensor images, Tensor matrices, Tensor? sizes, Tensor? offsets, Tensor? origins, Tensor? flip, "
    "Tensor? gain, Tensor? shift, int[2] output_size, float[] mean, float[] std, ScalarType dtype, "
    "bool fixed, bool reverse_channels) -> Tensor",
)
_INTEGERS = (torch.int32, torch.int64)
_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def warp_crops(
    images: Tensor,
    matrices: Tensor,
    *,
    output_size: tuple[int, int],
    sizes: Tensor | None = None,
    offsets: Tensor | None = None,
    origins: Tensor | None = None,
    flip: Tensor | None = None,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
    mode: Mode = "opencv",
    reverse_channels: bool = False,
) -> Tensor:
    """Warp, mirror, colour and normalise a batch in one pass; black outside. Nothing waits for the device.

    Args:
        images: uint8, pictures of different sizes one after another, (N,), rows without gaps; or a padded
            batch (B, H, W, 3).
        matrices: (B, 2, 3) float32 or float64 from picture pixels to crop pixels, as cv2.warpAffine takes
            them and fastpose.data.affine gives them; inverted here, in float64.
        output_size: (width, height) of the crops.
        sizes: (B, 2) int32 or int64, (width, height) of each picture; not needed for a padded batch.
        offsets: (B,) int32 or int64, first byte of each picture in a flat `images`.
        origins: (B, 2) int32 or int64: what is in `images` is a part of a larger picture, whose corner lies
            at this (x, y) of the picture that the matrix is for (the mirrored one if `flip`).
        flip: (B,) bool, the matrix is for the mirrored picture.
        gain, shift: (B, 3) floating point, finite: grey levels become `gain * grey + shift`, cut to 0..255;
            in the order of the output's channels.
        mean, std: of each output channel, as parts of 255; not for uint8.
        dtype: float32, bfloat16, float16, or uint8 for grey levels.
        mode: "opencv", bit for bit cv2.warpAffine of OpenCV 4 before colour; "bilinear" without its
            roundings.
        reverse_channels: RGB from BGR, or back.

    Returns:
        (B, 3, height, width) in channels_last memory, (grey / 255 - mean) / std; or (B, height, width, 3)
        uint8. A picture that offsets and sizes place outside `images`, wholly or in part, is black.

    Raises:
        TypeError, ValueError: an argument is wrong, or requires grad, which this cannot give.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.

    Source: hrnet lib/dataset/JointsDataset.py, cv2.warpAffine with INTER_LINEAR.
    """
    check_tensor("matrices", matrices, 3)
    batch = _check_pictures(images, sizes, offsets, len(matrices))
    _check_samples(images, batch, matrices, sizes, offsets, origins, flip, gain, shift)
    _check_options(output_size, mean, std, dtype, mode)
    tensors = images, matrices, sizes, offsets, origins, flip, gain, shift
    run = _warp_op if _on_triton(get_backend(), images.device) else _warp_reference
    return run(*tensors, output_size, mean, std, dtype, mode == "opencv", reverse_channels)


def _on_triton(backend: str, device: torch.device) -> bool:
    return runs_on_triton("warp_crops", "images", backend, device.type)


def _check_pictures(images: object, sizes: object, offsets: object, matrices: int) -> int:
    """How many pictures there are; as many as matrices in a flat buffer."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a torch.Tensor, got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected uint8, got {images.dtype}")
    if images.ndim == 1:
        if sizes is None or offsets is None:
            raise ValueError("sizes, offsets: a flat images needs both; or pass a padded (B, H, W, 3) batch")
        return matrices
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images: expected (N,) or (B, H, W, 3), got {tuple(images.shape)}")
    if offsets is not None:
        raise ValueError("offsets: only for a flat `images`; leave it out for a padded batch")
    return images.shape[0]


def _check_samples(
    images: Tensor,
    batch: int,
    matrices: Tensor,
    sizes: Tensor | None,
    offsets: Tensor | None,
    origins: Tensor | None,
    flip: Tensor | None,
    gain: Tensor | None,
    shift: Tensor | None,
) -> None:
    if matrices.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"matrices: expected float32 or float64, got {matrices.dtype}")
    if (gain is None) != (shift is None):
        raise ValueError("gain, shift: expected both or neither; 1 and 0 change nothing")
    expected: list[tuple[str, Tensor | None, tuple[int, ...], Sequence[torch.dtype]]] = [
        ("matrices", matrices, (batch, 2, 3), _FLOATING),
        ("sizes", sizes, (batch, 2), _INTEGERS),
        ("offsets", offsets, (batch,), _INTEGERS),
        ("origins", origins, (batch, 2), _INTEGERS),
        ("flip", flip, (batch,), (torch.bool,)),
        ("gain", gain, (batch, 3), _FLOATING),
        ("shift", shift, (batch, 3), _FLOATING),
    ]
    for name, value, shape, dtypes in expected:
        if value is not None:
            _check_sample(name, value, shape, dtypes, images.device)
            check_no_grad(name, value)


def _check_sample(
    name: str, value: object, shape: tuple[int, ...], dtypes: Sequence[torch.dtype], device: torch.device
) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name}: expected {expected}, got {value.dtype}")
    check_shape(name, value, shape)
    check_device(name, value, device)


def _check_options(
    output_size: Sequence[int], mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, mode: str
) -> None:
    if len(output_size) != 2 or not all(0 < side <= reference.MAX_SIDE for side in output_size):
        raise ValueError(
            f"output_size: expected (width, height) from 1 to {reference.MAX_SIDE}, got {tuple(output_size)}"
        )
    for name, values, least in (("mean", mean, -math.inf), ("std", std, 0.0)):
        if len(values) != 3 or not all(math.isfinite(value) and value > least for value in values):
            kind = "positive numbers" if name == "std" else "finite numbers"
            raise ValueError(f"{name}: expected three {kind}, got {tuple(values)}")
    if dtype not in reference.DTYPES:
        raise ValueError(f"dtype: expected float32, bfloat16, float16 or uint8, got {dtype}")
    if mode not in ("opencv", "bilinear"):
        raise ValueError(f"mode: expected 'opencv' or 'bilinear', got {mode!r}")


def _warp_triton(*arguments: Any) -> Tensor:
    from fastpose.kernels.warp import Pictures, launch_warp_crops  # type: ignore[import-not-found]

    images, matrices, sizes, offsets, origins, flip, gain, shift, size, mean, std, *options = arguments
    pictures = Pictures(images, sizes, offsets, origins, flip)
    colour = None if gain is None else (gain, shift)
    return launch_warp_crops(
        pictures, matrices, colour, tuple(size), reference.normalisation(mean, std), *options
    )


def _warp_reference(*arguments: Any) -> Tensor:
    images, matrices, sizes, offsets, origins, flip, gain, shift, size, mean, std, *options = arguments
    dtype, fixed, reverse_channels = options
    return reference.warp_crops(
        images,
        matrices,
        output_size=(size[0], size[1]),
        sizes=sizes,
        offsets=offsets,
        origins=origins,
        flip=flip,
        gain=gain,
        shift=shift,
        mean=mean,
        std=std,
        dtype=dtype,
        mode="opencv" if fixed else "bilinear",
        reverse_channels=reverse_channels,
    )


def _warp_cpu(*arguments: Any) -> Tensor:
    return (_warp_triton if interpreting() else _warp_reference)(*arguments)


def _warp_fake(images: Tensor, matrices: Tensor, *arguments: Any) -> Tensor:
    *_, output_size, _, _, dtype, _, _ = arguments
    crops = images.new_empty((len(matrices), output_size[1], output_size[0], 3), dtype=dtype)
    return crops if dtype == torch.uint8 else crops.permute(0, 3, 1, 2)


torch.library.impl("fastpose::warp_crops", "cuda", _warp_triton)
torch.library.impl("fastpose::warp_crops", "cpu", _warp_cpu)
torch.library.register_fake("fastpose::warp_crops", _warp_fake)
register_operation("warp_crops", "triton", _on_triton)
_warp_op = torch.ops.fastpose.warp_crops.default
