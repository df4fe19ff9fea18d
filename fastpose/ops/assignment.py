"""assign_joints: one query for each joint at the least total cost, on the CPU or in one launch on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose import _ext
from fastpose._checks import check_no_grad, check_tensor
from fastpose.backend import get_backend, log_fallback, register_operation
from fastpose.errors import BackendUnavailableError
from fastpose.reference import assignment as reference

_DTYPES = {torch.float32: 0, torch.float64: 1}  # CostType in csrc/assignment/assignment.h
_MOST = 2**31 - 1

torch.library.define("fastpose::assign_joints", "(Tensor cost) -> Tensor")


def assign_joints(cost: Tensor) -> Tensor:
    """The queries that the joints of every problem get, no query twice, at the least sum of costs.

    On a GPU nothing waits for the device, where the extension was built with CUDA and neither Q nor J is
    above 768; else the costs make one trip to the host and back, which a CUDA graph cannot hold.

    Args:
        cost: (N, Q, J), floating point, any strides; summed in float64. Q and J may be in any relation.

    Returns:
        (N, J) int64 query of each joint. With fewer queries than joints every query is used, and -1 marks the
        joints left without one. A cost that is NaN, infinite or beyond 1e100 either way is avoided: as few of
        them are taken as can be, and the rest is as cheap as it can be. The same costs give the same
        assignment on every backend.

    Raises:
        TypeError, ValueError, BackendUnavailableError: an argument is wrong, or `cpp` cannot take it.

    Source: Crouse 2016; prtr lib/models/matcher.py (scipy.optimize.linear_sum_assignment).
    """
    check_tensor("cost", cost, 3)
    check_no_grad("cost", cost)
    if max(cost.shape[1:]) > _MOST:
        raise ValueError(f"cost: expected Q and J below 2^31, got shape {tuple(cost.shape)}")
    if not _runs_natively(get_backend(), str(cost.device)):
        return reference.assign_joints(cost)
    return _assign_op(cost if cost.dtype in _DTYPES else cost.float())


@torch.compiler.assume_constant_result  # the answer is the same for the life of the process
def _runs_natively(backend: str, device_name: str) -> bool:
    if backend == "reference":
        return False
    kind = torch.device(device_name).type
    reason = _ext.missing("cpu" if kind == "cuda" else kind)  # what has no CUDA code goes to the host
    if reason and backend == "cpp":
        raise BackendUnavailableError(f"cpp: assign_joints: {reason}; `auto` would use the reference")
    if reason:
        log_fallback("assign_joints", reason)
    return not reason


def _assign_native(cost: Tensor) -> Tensor:
    module, reason = _ext.load()
    if module is None:
        raise BackendUnavailableError(f"cpp: {reason}")
    if cost.is_cuda and not _fits_gpu(module, cost):
        return _assign_native(cost.cpu()).to(cost.device)
    problems, queries, joints = cost.shape
    query = _assign_fake(cost)
    params = module.AssignParams(
        cost=cost.data_ptr(),
        query=query.data_ptr(),
        strides=cost.stride(),
        problems=problems,
        queries=queries,
        joints=joints,
        type=_DTYPES[cost.dtype],
    )
    _launch(module, params, cost.device)
    return query


def _fits_gpu(module: Any, cost: Tensor) -> bool:
    if _ext.missing("cuda") or _ext.cuda_refusal(cost.device.index or 0):
        return False
    return max(cost.shape[1:]) <= module.max_cuda_columns


def _launch(module: Any, params: Any, device: torch.device) -> None:
    if device.type == "cpu":
        module.assign_cpu(params, torch.get_num_threads())
        return
    error = module.assign_cuda(params, device.index, torch.cuda.current_stream(device).cuda_stream)
    if error != 0:
        raise RuntimeError(f"assign_joints on {device}: {module.cuda_error_text(error)}")


def _assign_fake(cost: Tensor) -> Tensor:
    return cost.new_empty((cost.shape[0], cost.shape[2]), dtype=torch.int64)


torch.library.impl("fastpose::assign_joints", ("cpu", "cuda"), _assign_native)
torch.library.register_fake("fastpose::assign_joints", _assign_fake)
_assign_op = torch.ops.fastpose.assign_joints.default
register_operation("assign_joints", "cpp", lambda backend, device: _runs_natively(backend, str(device)))
