"""The Triton kernels of moments over pixels: their arithmetic in the interpreter, their code for GPUs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from interpreter import run_interpreted
from launches import recorded
from resources import CAPABILITIES, compile_many
from step_cases import (
    BF16,
    EPS,
    F16,
    F32,
    SHARED,
    WIDTHS,
    Case,
    check_against_reference,
    image,
    mapped,
    replays,
    statistics,
    weight,
)  # fmt: skip
from torch import Tensor

from fastpose.reference import fuse_steps as reference

triton = pytest.importorskip("triton")

from fastpose.kernels.configs import moments_config  # noqa: E402

from fastpose.kernels import moments, pixel_products  # noqa: E402 (they import Triton)

SCRIPT = """
from fastpose.kernels import moments
from fastpose.kernels.configs import MomentsConfig
outputs = {}
for name, (step, arguments) in inputs.items():
    config = MomentsConfig(16, 16, 6, 1, 1, False) if name.endswith("small-tiles") else None
    config = MomentsConfig(16, 16, 1, 1, 1, False) if name == "long-chunk" else config
    outputs[name] = getattr(moments, "launch_" + step)(*arguments, config=config)
"""


def gram(shape: Sequence[int], dtype: torch.dtype, channels_last: bool = True, mean: float = 0.5) -> Case:
    return "input_moments", (image(shape, dtype, channels_last, mean),)


def cross(
    shape: Sequence[int], outputs: Sequence[int], dtype: torch.dtype, channels_last: bool = True
) -> Case:
    batch, inputs, height, width = shape
    pooled = [image((batch, c, height, width), dtype, channels_last) for c in outputs]
    weights = [weight(c, inputs, dtype) for c in outputs]
    x, centre = image(shape, dtype, channels_last), torch.randn(inputs)  # any, not only the mean of x
    return "cross_moments", (x, centre, pooled, weights, *statistics(outputs), EPS)


def mixed(case: Case) -> Case:
    """The pooled gradients in NCHW, x in channels_last."""
    step, (x, mean, pooled, *rest) = case
    return step, (x, mean, [p.contiguous() for p in pooled], *rest)


def constant(case: Case) -> Case:
    """Variances of exactly 0 of a number that float32 sums would round."""
    step, (x,) = case
    return step, (torch.full_like(x, 1.1),)


LONG_CHUNK_VALUE = 0.25 * (1 + 2.0**-20)


def long_chunk() -> Case:
    """4096 pixels of one chunk, of which 16 at a time add up to 4 + 2^-18 and their squares to 1 + 2^-19.

    A running sum of 4096 of either loses those last digits, and always downwards. Half of the channels change
    their sign from pixel to pixel, so that the error of the squares does not meet that of the mean.
    """
    x = torch.full((1, 16, 64, 64), LONG_CHUNK_VALUE)
    x[:, 8:, :, ::2] *= -1
    return "input_moments", (x,)


CASES: dict[str, Callable[[], Case]] = {
    "gram-w18-1": lambda: gram((3, 36, 8, 16), BF16),
    "gram-w18-3-nchw": lambda: gram((5, 144, 4, 3), F32, False),
    "gram-w32-1": lambda: gram((2, 64, 8, 4), F16),
    "gram-w48-1": lambda: gram((1, 96, 16, 9), BF16),
    "gram-w48-2": lambda: gram((2, 192, 4, 6), BF16, False),
    "gram-layer1": lambda: gram((3, 64, 16, 13), F32),
    "gram-144-chunks": lambda: gram((8, 20, 96, 96), BF16),
    "gram-small-tiles": lambda: gram((2, 40, 5, 7), F32),
    "gram-one-pixel": lambda: gram((2, 18, 1, 1), F32),
    "gram-shifted": lambda: gram((2, 24, 16, 16), F32, mean=-1.0),
    "cross-w18-3": lambda: cross((3, 144, 2, 3), (18, 36, 72), F32),
    "cross-w32-1": lambda: cross((2, 64, 8, 4), (32,), F16),
    "cross-w48-2": lambda: cross((2, 192, 4, 3), (48, 96), BF16),
    "cross-nchw": lambda: cross((3, 72, 4, 3), (18, 36), BF16, False),
    "cross-layer1": lambda: cross((1, 64, 6, 5), (256, 256), BF16),
    "cross-two-chunks": lambda: cross((3, 24, 16, 13), (20, 40), F32),
    "cross-144-chunks": lambda: cross((8, 20, 96, 96), (18,), BF16),
    "cross-small-tiles": lambda: cross((2, 40, 5, 7), (20, 18, 33), F32),
    "cross-one-pixel": lambda: cross((1, 36, 1, 1), (18,), F32),
    "cross-mixed": lambda: mixed(cross((2, 40, 4, 6), (24, 16), F32)),
    "cross-4100-inputs": lambda: cross((1, 4100, 1, 2), (16,), F32),
    "cross-empty": lambda: cross((0, 40, 4, 6), (24, 16), BF16),
}
SINGLE: dict[str, Callable[[], Case]] = {
    "far": lambda: gram((2, 24, 16, 16), F32, mean=30.0),
    "constant": lambda: constant(gram((2, 40, 16, 16), F32)),
    "single": lambda: gram((1, 20, 1, 1), BF16),
    "long-chunk": long_chunk,
    "empty": lambda: gram((0, 36, 8, 16), BF16),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    torch.manual_seed(42)
    return {name: make() for name, make in (CASES | SINGLE).items()}


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("moments"))


@pytest.mark.parametrize("name", CASES)
def test_matches_reference(cases, interpreted, name):
    check_against_reference(interpreted[name], cases[name])


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("gram")])
def test_covariance_is_its_own_transpose_bit_for_bit(interpreted, name):
    cov = interpreted[name][1]
    assert torch.equal(cov, cov.T)


def test_constant_images_have_no_negative_variance(cases, interpreted):
    mean, cov = interpreted["constant"]
    torch.testing.assert_close(mean, torch.full((40,), 1.1), atol=0, rtol=1e-6)
    assert cov.diagonal().min() >= 0
    assert cov.abs().max() < 1e-6
    mean, cov = interpreted["single"]
    assert torch.equal(mean, cases["single"][1][0].flatten().float())
    assert torch.equal(cov, torch.zeros(20, 20))


def test_error_is_a_rounding_of_the_second_moment(cases, interpreted):
    """Far from 0 the covariance is a small difference; docs/ops/fuse.md says how far is too far."""
    (x,) = cases["far"][1]
    _, expected = reference.input_moments(x.double())
    _, cov = interpreted["far"]
    assert (cov - expected).abs().max() <= 5e-7 * 30**2


def test_long_chunks_lose_no_digits(interpreted):
    mean, cov = interpreted["long-chunk"]
    expected = torch.zeros(16, 16)
    expected[8:, 8:] = LONG_CHUNK_VALUE**2
    torch.testing.assert_close(mean[:8], torch.full((8,), LONG_CHUNK_VALUE), atol=1e-9, rtol=0)
    torch.testing.assert_close(cov, expected, atol=1e-8, rtol=0)


def test_no_pixels_have_no_moments(interpreted):
    mean, cov = interpreted["empty"]
    assert mean.shape == (36,)
    assert cov.shape == (36, 36)
    assert mean.isnan().all()
    assert cov.isnan().all()


@pytest.fixture
def jobs():
    """What the launchers launch, in the order of the calls, instead of running it."""
    with recorded(moments, pixel_products) as jobs, torch.device("meta"):
        yield jobs


def launch(case: Case) -> Any:
    return getattr(moments, f"launch_{case[0]}")(*case[1])


def launch_net(net: str, dtype: torch.dtype = BF16, channels_last: bool = True) -> None:
    """The sources of a module of four branches for 64 inputs of 192 x 256 pixels."""
    if net == "layer1":
        launch(gram((64, 64, 64, 48), dtype, channels_last))
        for paths in (1, 2):
            launch(cross((64, 64, 64, 48), [256] * paths, dtype, channels_last))
        return
    widths = WIDTHS[net]
    for level in (1, 2, 3):
        shape = (64, widths[level], 64 >> level, 48 >> level)
        launch(gram(shape, dtype, channels_last))
        launch(cross(shape, widths[:level], dtype, channels_last))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("net", ["w18", "w32", "w48", "layer1"])
def test_compiles_without_spills(jobs, monkeypatch, capability, net):
    monkeypatch.setattr(moments, "capability", lambda device: capability)
    launch_net(net)
    assert {job["kernel"].__name__ for job in jobs} == {
        "fuse_product_kernel", "fuse_covariance_kernel", "fuse_cross_kernel",
    }  # fmt: skip
    for used in compile_many(job | {"capability": capability, "variant": net} for job in jobs):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize("net", ["w48", "layer1"])
@pytest.mark.parametrize(
    ("capability", "dtype", "channels_last"),
    [(80, F32, True), (90, F16, True), (80, BF16, False), (100, F32, False)],
    ids=["f32-80", "f16-90", "bf16-nchw-80", "f32-nchw-100"],
)
def test_other_types_and_layouts_compile_without_spills(
    jobs, monkeypatch, capability, net, dtype, channels_last
):
    monkeypatch.setattr(moments, "capability", lambda device: capability)
    launch_net(net, dtype, channels_last)
    products = [job for job in jobs if job["kernel"].__name__ == "fuse_product_kernel"]
    variant = f"{net} {str(dtype).removeprefix('torch.')} {'channels_last' if channels_last else 'NCHW'}"
    for used in compile_many(job | {"capability": capability, "variant": variant} for job in products):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_products_load_asynchronously_and_use_tensor_cores(jobs, monkeypatch, capability):
    monkeypatch.setattr(moments, "capability", lambda device: capability)
    launch_net("layer1")
    launch_net("w48")
    products = [job for job in jobs if job["kernel"].__name__ == "fuse_product_kernel"]
    for used in compile_many(job | {"capability": capability, "variant": "products"} for job in products):
        assert "cp.async.cg.shared.global" in used.ptx  # 16 bytes each
        assert "mma" in used.ptx
        assert "ld.global" not in used.ptx


@pytest.mark.parametrize("shape", [(1, 18, 1, 1), (1, 4100, 2, 2)], ids=["one-pixel", "4100-channels"])
def test_compiles_for_odd_sizes(jobs, shape):
    launch(gram(shape, BF16))
    launch(cross(shape, (16,), BF16))
    assert len(jobs) == 4
    for used in compile_many(job | {"capability": 90, "variant": f"{shape}"} for job in jobs):
        assert used.spills == 0


def test_grids_of_many_pixels_fit_cuda(jobs):
    """The recorder holds every grid against CUDA's limits."""
    launch(gram((4096, 64, 512, 256), BF16))
    assert len(jobs) == 2


@pytest.mark.parametrize(
    ("shape", "channels_last", "message"),
    [
        ((65536, 16, 256, 128), True, "images: expected at most 2139095040 pixels"),
        ((1, 32769, 2, 2), True, "images: expected at most 32768 channels"),
        ((1, 4096, 1024, 512), False, "images: expected fewer than 2147483648 values in each.*channels_last"),
    ],
    ids=["pixels", "channels", "nchw"],
)
def test_what_32_bits_cannot_count_is_refused(jobs, shape, channels_last, message):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(shape, dtype=BF16, memory_format=layout)
    with pytest.raises(ValueError, match=message):
        moments.launch_input_moments(x)
    assert not jobs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
def test_cuda_error_of_long_chunks_is_a_rounding_of_the_second_moment(dtype):
    """Means 30 times the deviation, chunks of 4096 pixels; docs/ops/fuse.md gives the error."""
    torch.manual_seed(0)
    x = image((8, 64, 64, 32), dtype, mean=30.0)
    _, expected = reference.input_moments(x.double())
    config = dataclasses.replace(moments_config(90, 64, dtype, True), programs=1)
    assert config.chunk(8 * 64 * 32, 1) == 4096
    mean, cov = moments.launch_input_moments(x.cuda(), config)
    torch.testing.assert_close(mean.cpu().double(), x.double().mean((0, 2, 3)), atol=0, rtol=1e-6)
    assert (cov.cpu() - expected).abs().max() <= 5e-7 * 30**2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_cuda_matches_reference(cases, name):
    step, arguments = cases[name]
    check_against_reference(launch((step, mapped(arguments, Tensor.cuda))), cases[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "name", ["gram-w48-1", "gram-144-chunks", "cross-w18-3", "cross-w48-2", "cross-layer1"]
)
def test_cuda_graph_replays_with_other_inputs_bit_for_bit(cases, name):
    step, arguments = cases[name]
    assert replays(getattr(moments, f"launch_{step}"), arguments)
