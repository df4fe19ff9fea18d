"""The sum of a map and an enlarged one against the two operators it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.nn.upsample import upsample_add

FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def pair(dtype: torch.dtype = torch.float32, layout: str = "nchw", *shape: int) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = shape or (2, 5, 3, 4)
    skip, low = (
        torch.randn(batch, channels, 2 * height, 2 * width),
        torch.randn(batch, channels, height, width),
    )
    return tuple(x.to(dtype).contiguous(memory_format=FORMATS[layout]) for x in (skip, low))


def two_operators(skip: Tensor, low: Tensor) -> Tensor:
    return skip + F.interpolate(low, scale_factor=2.0, mode="nearest")


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_same_bits_and_layout_as_the_two_operators(dtype: torch.dtype, layout: str, grad: bool) -> None:
    skip, low = pair(dtype, layout)
    output = upsample_add(skip.requires_grad_(grad), low)
    assert torch.equal(output, two_operators(skip, low))
    assert output.stride() == skip.stride()
    assert output.requires_grad == grad


def test_every_coarse_pixel_reaches_its_four_fine_ones() -> None:
    low = torch.arange(6.0).view(1, 1, 2, 3)
    output = upsample_add(torch.zeros(1, 1, 4, 6), low)
    for y in range(4):
        for x in range(6):
            assert output[0, 0, y, x] == low[0, 0, y // 2, x // 2]


@pytest.mark.parametrize("layout", FORMATS)
def test_gradients_are_those_of_finite_differences(layout: str) -> None:
    inputs = [x.requires_grad_() for x in pair(torch.float64, layout, 2, 2, 2, 3)]
    assert torch.autograd.gradcheck(upsample_add, inputs)
    assert torch.autograd.gradgradcheck(upsample_add, inputs)


@pytest.mark.parametrize("needed", [(True, False), (False, True)], ids=["skip", "low"])
def test_one_input_alone_may_need_a_gradient(needed: tuple[bool, bool]) -> None:
    mine, theirs = pair(), pair()
    for a, b, need in zip(mine, theirs, needed, strict=True):
        b.copy_(a)
        a.requires_grad_(need), b.requires_grad_(need)
    gradient = torch.randn_like(mine[0])
    upsample_add(*mine).backward(gradient)
    two_operators(*theirs).backward(gradient)
    for a, b, need in zip(mine, theirs, needed, strict=True):
        assert (a.grad is not None) == need
        if need:
            torch.testing.assert_close(a.grad, b.grad)


def test_nothing_is_kept_for_the_backward_and_no_enlarged_map_is_made() -> None:
    skip, low = (x.requires_grad_() for x in pair())
    kept: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x),
        torch.profiler.profile(profile_memory=True) as profile,
    ):
        output = upsample_add(skip, low)
    assert not kept
    allocated = sum(max(0, event.self_device_memory_usage, event.self_cpu_memory_usage)
                    for event in profile.key_averages())  # fmt: skip
    assert allocated <= output.numel() * output.element_size() + 64


def test_compiles_and_batches_by_torch_func() -> None:
    torch.compiler.reset()
    skip, low = pair()
    compiled = torch.compile(upsample_add, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(skip, low), two_operators(skip, low))
    want = torch.autograd.functional.jacobian(lambda x: two_operators(skip, x).square().sum(), low)
    got = torch.func.grad(lambda x: upsample_add(skip, x).square().sum())(low)
    torch.testing.assert_close(got, want)
    assert torch.equal(
        torch.func.vmap(upsample_add)(skip[:, None], low[:, None])[:, 0], two_operators(skip, low)
    )


@pytest.mark.parametrize("shape", [(0, 2, 2, 2), (1, 1, 1, 1)], ids=str)
def test_small_and_empty_maps(shape: tuple[int, ...]) -> None:
    skip, low = (x.requires_grad_() for x in pair(torch.float32, "nchw", *shape))
    output = upsample_add(skip, low)
    assert torch.equal(output, skip + low.repeat_interleave(2, 2).repeat_interleave(2, 3))
    output.sum().backward()
    assert torch.equal(low.grad, torch.full_like(low, 4.0))


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 2, 4, 4), (1, 2, 2, 3)),
        ((1, 2, 5, 4), (1, 2, 2, 2)),
        ((2, 2, 4, 4), (1, 2, 2, 2)),
        ((2, 4, 4), (2, 2, 2)),
    ],
    ids=str,
)
def test_other_sizes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="skip must be") as caught:
        upsample_add(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    assert str(shapes[0]) in str(caught.value)
    assert str(shapes[1]) in str(caught.value)
