"""Memory that nobody wrote holds NaN in every test, so that it cannot pass for a result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from interpreter import run_interpreted
from torch import Tensor

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda like: torch.empty(like.shape, dtype=like.dtype),
        lambda like: torch.empty_strided(like.shape, like.stride(), dtype=like.dtype),
        lambda like: torch.empty_like(like, memory_format=torch.channels_last),
        lambda like: like.new_empty(like.shape),
    ],
    ids=["empty", "empty_strided", "empty_like", "new_empty"],
)
def test_empty_holds_nan(make: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    assert make(torch.zeros(2, 3, 4, 5, dtype=dtype)).isnan().all()


def test_an_unwritten_output_of_a_kernel_holds_nan(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    body = """
import triton.language as tl, triton
def half_fwd_kernel(p_y, BLOCK: tl.constexpr):
    o_y = tl.arange(0, BLOCK)
    tl.store(p_y + o_y, o_y.to(tl.float32), mask=o_y < BLOCK // 2)
outputs = torch.empty(8)
triton.runtime.interpreter.InterpretedFunction(half_fwd_kernel)[(1,)](outputs, 8)
"""
    got = run_interpreted(body, None, tmp_path)
    assert isinstance(got, Tensor)
    assert got.nan_to_num(-1.0).tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
