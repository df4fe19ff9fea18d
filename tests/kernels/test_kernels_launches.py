"""A recorded launch compiles to what Triton's own launch would: its types, alignment and constants."""

import sys

import pytest
import torch
from launches import recorded
from resources import compile_for

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")


@triton.jit
def sum_fwd_kernel(p_inputs, p_mask, shares, count, step, p_y, BLOCK: tl.constexpr):
    o_x = tl.arange(0, BLOCK) * step
    b_y = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(len(p_inputs)):
        b_y += tl.load(p_inputs[i] + o_x, mask=o_x < count, other=0.0).to(tl.float32) * shares[i]
    if p_mask is not None:
        b_y *= tl.load(p_mask + o_x, mask=o_x < count, other=0.0)
    tl.store(p_y + o_x, b_y, mask=o_x < count)


def launch(count: int, step: int) -> None:
    x = torch.empty(count, device="meta")
    inputs = x.to(torch.bfloat16), x
    sum_fwd_kernel[(1,)](inputs, None, (0.5, 2.0), count, step, x, BLOCK=1024, num_warps=8)


def test_records_what_was_launched():
    with recorded(sys.modules[__name__]) as jobs:
        launch(4096, 1)
    (job,) = jobs
    assert job["signature"] == {
        "p_inputs": ("*bf16", "*fp32"), "shares": ("fp32", "fp32"), "count": "i32", "p_y": "*fp32",
    }  # fmt: skip
    assert job["constants"] == {"p_mask": None, "step": 1, "BLOCK": 1024}
    assert job["aligned"] == [("p_inputs", 0), ("p_inputs", 1), ("count",), ("p_y",)]
    assert job["num_warps"] == 8


@pytest.mark.parametrize(("count", "step", "vector"), [(4096, 1, True), (4095, 1, False), (4096, 2, False)])
def test_compiles_with_the_alignment_of_the_launch(count, step, vector):
    with recorded(sys.modules[__name__]) as jobs:
        launch(count, step)
    assert ("st.global.v4" in compile_for(capability=90, **jobs[0]).ptx) == vector


@pytest.mark.parametrize(("start", "vector"), [(0, True), (8, True), (18, False)])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_alignment_is_that_of_the_tensor(device, start, vector):
    """The second row of [2, 18] begins at 72 bytes."""
    x = torch.empty(4096 + start, device=device)[start:]
    with recorded(sys.modules[__name__]) as jobs:
        sum_fwd_kernel[(1,)]((x, x), None, (0.5, 2.0), 4096, 1, x, BLOCK=1024, num_warps=8)
    assert (("p_inputs", 1) in jobs[0]["aligned"]) == (("p_y",) in jobs[0]["aligned"]) == vector
    assert ("st.global.v4" in compile_for(capability=90, **jobs[0]).ptx) == vector


def test_kernels_are_there_again_afterwards():
    kernel = sum_fwd_kernel
    with recorded(sys.modules[__name__]):
        assert sum_fwd_kernel is not kernel
    assert sum_fwd_kernel is kernel


def test_an_empty_grid_is_refused():
    with recorded(sys.modules[__name__]), pytest.raises(AssertionError, match="sum_fwd_kernel: empty grid"):
        sum_fwd_kernel[(0,)]


def test_a_grid_that_cuda_does_not_launch_is_refused():
    with recorded(sys.modules[__name__]), pytest.raises(AssertionError, match="sum_fwd_kernel: grid"):
        sum_fwd_kernel[(1, 65536)]
