"""decode_heatmaps: heatmaps to keypoints in one pass, on the CPU (OpenMP) or on a GPU (one launch)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose import _ext
from fastpose._checks import check_device, check_no_grad, check_shape, check_tensor
from fastpose.backend import get_backend, log_fallback, register_operation
from fastpose.errors import BackendUnavailableError
from fastpose.reference import decode as reference
from fastpose.reference.dark import blur_weights
from fastpose.reference.decode import REFINEMENTS, Decoded
from fastpose.reference.udp import udp_to_image

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # DType in csrc/decode/decode.h
_COMPILED = REFINEMENTS[:3]  # Refine in csrc/decode/decode.h
_Outputs = tuple[Tensor, Tensor, Tensor]

torch.library.define(
    "fastpose::decode_heatmaps",
    "(Tensor heatmaps, Tensor? flipped, Tensor? flip_index, Tensor? center, Tensor? scale, "
    "bool shift, str refine, int blur_kernel) -> (Tensor keypoints, Tensor score, Tensor valid)",
)


def decode_heatmaps(
    heatmaps: Tensor,
    center: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    flipped: Tensor | None = None,
    flip_index: Sequence[int] | Tensor | None = None,
    shift: bool = True,
    refine: str = "quarter",
    blur_kernel: int = 11,
    unit: str = "size",
) -> Decoded:
    """Keypoints of a batch of heatmaps, mapped back to the image. Copies no map, and waits for no device.

    Args:
        heatmaps: (B, K, H, W), not empty but for B, floating point, any strides; float32 arithmetic.
        center, scale: (B, 2) centre of the crop box in image pixels and its size / 200 px, of which only the
            width counts; None for coordinates in heatmap pixels.
        flipped: (B, K, H, W) raw output of the network on the mirrored batch, averaged in.
        flip_index: K indices, needed with `flipped` (`KeypointSet.flip_index`). A sequence or CPU tensor is
            copied to a GPU by its first call alone, which waits. An int64 tensor there is not checked: an
            entry out of range makes its joint invalid.
        shift: move the mirrored-back maps one pixel to the right before averaging.
        refine: "none", "quarter" (of a pixel, towards the higher neighbour), "dark" (arXiv:1910.06278), or
            "quarter_each" and "dark_udp" of mmpose, which only PyTorch computes, with copies of the maps.
        blur_kernel: taps of the blur of "dark" and "dark_udp", odd, 1 to 63: 11 for targets of sigma 2, 17
            for sigma 3.
        unit: how a map lies on its crop box: "size", or "size-1" for the weights of UDP (arXiv:1911.07524).

    Returns:
        keypoints (B, K, 2) float32 (x, y), never NaN; score (B, K) float32 peak value; valid (B, K) bool.
        Only finite values compete, and the lowest flat index wins a tie. A peak that is not positive gives
        heatmap (0, 0), mapped like any point; a map without a finite value also score 0 and valid False.

    Raises:
        TypeError, ValueError, BackendUnavailableError: an argument is wrong, or `cpp` cannot take it.

    Source: hrnet and DARK lib/core/inference.py, get_final_preds; hrnet lib/core/function.py, validate.
    """
    _check(heatmaps, center, scale, flipped)
    order = None if flipped is None else _flip_tensor(flip_index, heatmaps)
    how: dict[str, Any] = {"shift": shift, "refine": refine, "blur_kernel": blur_kernel}
    reference.check_refinement(refine, blur_kernel)
    reference.check_unit(unit)
    if not _runs_natively(get_backend(), heatmaps.dtype, str(heatmaps.device), refine):
        how |= {"flipped": flipped, "flip_index": order, "unit": unit}
        return reference.decode_heatmaps(heatmaps, center, scale, **how)
    if unit == "size" or center is None or scale is None:
        return Decoded(*_decode_op(heatmaps, flipped, order, center, scale, **how))
    xy, score, valid = _decode_op(heatmaps, flipped, order, None, None, **how)
    return Decoded(udp_to_image(xy, center, scale, heatmaps.shape[3], heatmaps.shape[2]), score, valid)


def _check(heatmaps: Tensor, center: Tensor | None, scale: Tensor | None, flipped: Tensor | None) -> None:
    check_tensor("heatmaps", heatmaps, 4)
    check_no_grad("heatmaps", heatmaps)
    batch, joints, height, width = heatmaps.shape
    if joints == 0 or not 0 < height * width < 2**30:
        shape = tuple(heatmaps.shape)
        raise ValueError(f"heatmaps: expected (B, K, H, W) with K > 0 and 0 < H * W < 2^30, got {shape}")
    if (center is None) != (scale is None):
        raise ValueError("center and scale: give both, or neither for coordinates in heatmap pixels")
    for name, value in (("center", center), ("scale", scale)):
        if value is not None:
            check_tensor(name, value, 2)
            check_shape(name, value, (batch, 2))
            check_device(name, value, heatmaps.device)
    if flipped is not None:
        check_tensor("flipped", flipped, 4)
        check_no_grad("flipped", flipped)
        check_shape("flipped", flipped, heatmaps.shape)
        check_device("flipped", flipped, heatmaps.device)
        if flipped.dtype != heatmaps.dtype:
            raise TypeError(f"flipped: expected {heatmaps.dtype} like heatmaps, got {flipped.dtype}")


def _flip_tensor(flip_index: Sequence[int] | Tensor | None, heatmaps: Tensor) -> Tensor:
    joints = heatmaps.shape[1]
    if flip_index is None:
        raise ValueError("flip_index: needed with flipped, got None; pass KeypointSet.flip_index")
    if not isinstance(flip_index, Tensor):
        order = tuple(int(k) for k in flip_index)
        _check_permutation(order, joints)
        return _order_on(order, heatmaps)
    check_shape("flip_index", flip_index, (joints,))
    if flip_index.dtype.is_floating_point or flip_index.dtype == torch.bool:
        raise TypeError(f"flip_index: expected integers, got {flip_index.dtype}")
    if flip_index.device == heatmaps.device or not (_is_real(flip_index) and flip_index.device.type == "cpu"):
        return flip_index.to(heatmaps.device, torch.int64)
    order = tuple(flip_index.tolist())
    _check_permutation(order, joints)
    return _order_on(order, heatmaps)


def _order_on(order: tuple[int, ...], heatmaps: Tensor) -> Tensor:
    # A graph that is traced holds its own constant; a fake one must not be found by later calls.
    make = _kept_order if _is_real(heatmaps) else _make_order
    return make(order, heatmaps.device)


def _is_real(x: Tensor) -> bool:
    return type(x) is Tensor and not torch.compiler.is_compiling()


@functools.lru_cache(maxsize=32)
def _kept_order(order: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for later calls, whatever their mode
        return _make_order(order, device)


def _make_order(order: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(order, dtype=torch.int64, device=device)


def _check_permutation(order: Sequence[int], joints: int) -> None:
    if sorted(order) != list(range(joints)):
        raise ValueError(f"flip_index: expected a permutation of {joints} joints, got {tuple(order)}")


@torch.compiler.assume_constant_result  # the answer is the same for the life of the process
def _runs_natively(backend: str, dtype: torch.dtype, device_name: str, refine: str = "none") -> bool:
    if backend == "reference":
        return False
    device = torch.device(device_name)
    reason = _ext.missing(device.type)
    if dtype not in _DTYPES:
        reason = f"fastpose._C has no code for {dtype} heatmaps"
    elif refine not in _COMPILED:
        reason = f"fastpose._C has no code for refine={refine}"
    elif not reason and device.type == "cuda":
        reason = _ext.cuda_refusal(device.index or 0)
    if reason and backend == "cpp":
        raise BackendUnavailableError(f"cpp: decode_heatmaps: {reason}; `auto` would use the reference")
    if reason:
        log_fallback("decode_heatmaps", reason)
    return not reason


def _decode_native(
    heatmaps: Tensor,
    flipped: Tensor | None,
    flip_index: Tensor | None,
    center: Tensor | None,
    scale: Tensor | None,
    shift: bool,
    refine: str,
    blur_kernel: int,
) -> _Outputs:
    module, reason = _ext.load()
    if module is None:
        raise BackendUnavailableError(f"cpp: {reason}")
    if flip_index is not None and flip_index.device.type == "cpu":
        _check_permutation(flip_index.tolist(), heatmaps.shape[1])
    inputs = {  # named, so that they outlive the call
        "heatmaps": heatmaps,
        "flipped": flipped,
        "flip_index": None if flip_index is None else flip_index.contiguous(),
        "center": None if center is None else center.float().contiguous(),
        "scale": None if scale is None else scale.float().contiguous(),
    }
    outputs = Decoded(*_empty_outputs(heatmaps))
    batch, joints, height, width = heatmaps.shape
    params = module.DecodeParams(
        **{name: 0 if value is None else value.data_ptr() for name, value in inputs.items()},
        **{name: value.data_ptr() for name, value in outputs._asdict().items()},
        heatmap_strides=heatmaps.stride(),
        flipped_strides=(0, 0, 0, 0) if flipped is None else flipped.stride(),
        batch=batch,
        joints=joints,
        height=height,
        width=width,
        dtype=_DTYPES[heatmaps.dtype],
        shift=shift,
        refine=_COMPILED.index(refine),
        blur=_blur_weights(blur_kernel),
    )
    _launch(module, params, heatmaps.device)
    return outputs.keypoints, outputs.score, outputs.valid


@functools.cache
def _blur_weights(kernel: int) -> tuple[float, ...]:
    return blur_weights(kernel)


def _launch(module: Any, params: Any, device: torch.device) -> None:
    if device.type == "cpu":
        module.decode_cpu(params, torch.get_num_threads())
        return
    error = module.decode_cuda(params, device.index, torch.cuda.current_stream(device).cuda_stream)
    if error != 0:
        raise RuntimeError(f"decode_heatmaps on {device}: {module.cuda_error_text(error)}")


def _empty_outputs(heatmaps: Tensor) -> _Outputs:
    shape = heatmaps.shape[:2]
    keypoints = heatmaps.new_empty((*shape, 2), dtype=torch.float32)
    score = heatmaps.new_empty(shape, dtype=torch.float32)
    return keypoints, score, heatmaps.new_empty(shape, dtype=torch.bool)


def _decode_fake(heatmaps: Tensor, *_: object) -> _Outputs:
    return _empty_outputs(heatmaps)


torch.library.impl("fastpose::decode_heatmaps", ("cpu", "cuda"), _decode_native)
torch.library.register_fake("fastpose::decode_heatmaps", _decode_fake)
_decode_op = torch.ops.fastpose.decode_heatmaps.default
register_operation(
    "decode_heatmaps", "cpp", lambda backend, device: _runs_natively(backend, torch.float32, str(device))
)
