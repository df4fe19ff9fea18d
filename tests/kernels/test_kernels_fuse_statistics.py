"""The Triton kernels of batch statistics: their arithmetic in the interpreter, their code for GPUs."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from interpreter import run_interpreted
from launches import recorded
from resources import CAPABILITIES, compile_many
from step_cases import (
    BF16,
    F16,
    F32,
    SHARED,
    WIDTHS,
    Case,
    check_against_reference,
    image,
    mapped,
    replays,
    weight,
)
from torch import Tensor

triton = pytest.importorskip("triton")

from fastpose.kernels import fuse_statistics  # noqa: E402 (imports Triton)

SCRIPT = """
from fastpose.kernels import fuse_statistics
outputs = {}
for name, (step, arguments) in inputs.items():
    fuse_statistics.MAX_CHUNKS = 2 if name == "channels-long-chunks" else 512
    outputs[name] = getattr(fuse_statistics, "launch_" + step)(*arguments)
"""


def channels(
    shapes: Sequence[Sequence[int]], dtype: torch.dtype, channels_last: bool = True, mean: float = 0.5
) -> Case:
    return "channel_statistics", ([image(shape, dtype, channels_last, mean) for shape in shapes],)


def paths(inputs: int, outputs: Sequence[int], dtype: torch.dtype) -> Case:
    x = torch.randn(2 * inputs, inputs)
    return "path_statistics", (
        torch.randn(inputs),
        x.T @ x / len(x),
        [weight(c, inputs, dtype) for c in outputs],
    )


def other_layouts(case: Case) -> Case:
    """The first in channels_last, the others in NCHW and with gaps."""
    step, ((first, second, third),) = case
    gaps = torch.cat([third, third], 3)[..., : third.shape[3]]
    return step, ([first, second.contiguous(), gaps],)


CASES: dict[str, Callable[[], Case]] = {
    "channels-w18-1": lambda: channels([(3, 36, 8, 16)], BF16),
    "channels-w18-3": lambda: channels([(5, 144, 4, 3)] * 3, F32),
    "channels-w48-2": lambda: channels([(2, 192, 8, 6)] * 2, F16),
    "channels-w48-3-nchw": lambda: channels([(7, 384, 3, 1)] * 3, BF16, False),
    "channels-shapes": lambda: channels([(2, 20, 8, 8), (2, 24, 4, 4), (2, 20, 8, 8)], F32),
    "channels-offset": lambda: channels([(3, 32, 20, 13)], F32, mean=300.0),
    "channels-many-chunks": lambda: channels([(4, 18, 48, 32)] * 2, BF16),
    "channels-long-chunks": lambda: channels([(4, 18, 48, 33)] * 2, F32),
    "channels-odd-size": lambda: channels([(1, 64, 5, 7)], F32, False),
    "channels-two-pixels": lambda: channels([(2, 18, 1, 1)], F32),
    "channels-layouts": lambda: other_layouts(channels([(2, 20, 4, 6)] * 3, F32)),
    "channels-none": lambda: channels([], F32),
    "paths-w18-3": lambda: paths(144, (18, 36, 72), F32),
    "paths-w32-1": lambda: paths(64, (32,), F16),
    "paths-w48-2": lambda: paths(192, (48, 96), BF16),
    "paths-layer1": lambda: paths(64, (256, 256), BF16),
    "paths-odd": lambda: paths(20, (17, 3), F32),
    "paths-none": lambda: paths(20, (), F32),
}
SINGLE: dict[str, Callable[[], Case]] = {
    "single": lambda: channels([(1, 20, 1, 1)], BF16),
    "empty": lambda: channels([(0, 20, 8, 8)] * 2, BF16),
    "negative": lambda: ("path_statistics", (torch.zeros(20), -torch.eye(20), [weight(18, 20, F32)])),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    torch.manual_seed(42)
    return {name: make() for name, make in (CASES | SINGLE).items()}


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("fuse_statistics"))


@pytest.mark.parametrize("name", CASES)
def test_matches_reference(cases, interpreted, name):
    check_against_reference(interpreted[name], cases[name])


def test_variance_is_never_negative(cases, interpreted):
    (mean, var), *_ = interpreted["single"]
    assert torch.equal(mean, cases["single"][1][0][0].flatten().float())
    assert torch.equal(var, torch.zeros(20))
    assert torch.equal(interpreted["negative"][0][1], torch.zeros(18))


def test_no_pixels_have_no_statistics(interpreted):
    assert [x.shape for x in interpreted["empty"]] == [(2, 20)] * 2
    assert all(x.isnan().all() for x in interpreted["empty"])


@pytest.fixture
def jobs():
    """What the launchers launch, in the order of the calls, instead of running it."""
    with recorded(fuse_statistics) as jobs, torch.device("meta"):
        yield jobs


def launch(case: Case) -> Any:
    return getattr(fuse_statistics, f"launch_{case[0]}")(*case[1])


def launch_net(net: str, dtype: torch.dtype = BF16, channels_last: bool = True) -> None:
    """A module of four branches for 64 inputs of 192 x 256 pixels."""
    if net == "layer1":
        for count in (1, 2):
            launch(paths(64, [256] * count, dtype))
        return
    widths = WIDTHS[net]
    for level in (1, 2, 3):
        shape = (64, widths[level], 64 >> level, 48 >> level)
        launch(channels([shape] * level, dtype, channels_last))
        launch(paths(widths[level], widths[:level], dtype))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("net", ["w18", "w32", "w48", "layer1"])
def test_compiles_without_spills(jobs, capability, net):
    launch_net(net)
    assert len({job["kernel"].__name__ for job in jobs}) == (2 if net == "layer1" else 4)
    for used in compile_many(job | {"capability": capability, "variant": net} for job in jobs):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize(
    ("capability", "dtype", "channels_last"),
    [(80, F32, True), (90, F16, True), (80, BF16, False), (100, F32, False)],
    ids=["f32-80", "f16-90", "bf16-nchw-80", "f32-nchw-100"],
)
def test_other_types_and_layouts_compile_without_spills(jobs, capability, dtype, channels_last):
    launch_net("w48", dtype, channels_last)
    variant = f"w48 {str(dtype).removeprefix('torch.')} {'channels_last' if channels_last else 'NCHW'}"
    for used in compile_many(job | {"capability": capability, "variant": variant} for job in jobs):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


def test_compiles_for_one_pixel(jobs):
    launch(channels([(1, 18, 1, 1)], BF16))
    assert len(jobs) == 2
    for used in compile_many(job | {"capability": 90, "variant": "one pixel"} for job in jobs):
        assert used.spills == 0


def test_what_32_bits_cannot_count_is_refused(jobs):
    x = torch.empty((65536, 16, 256, 128), dtype=BF16, memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="images: expected at most 2139095040 pixels"):
        fuse_statistics.launch_channel_statistics([x])
    assert not jobs


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_images_are_loaded_asynchronously(jobs, capability):
    launch_net("w48")
    images = [job for job in jobs if job["kernel"].__name__ == "fuse_channel_kernel"]
    assert len(images) == 3
    for used in compile_many(job | {"capability": capability, "variant": "w48"} for job in images):
        assert "cp.async.cg.shared.global" in used.ptx  # 16 bytes each


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_cuda_matches_reference(cases, name):
    step, arguments = cases[name]
    check_against_reference(launch((step, mapped(arguments, Tensor.cuda))), cases[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["channels-w18-3", "channels-many-chunks", "paths-w18-3", "paths-w48-2"])
def test_cuda_graph_replays_with_other_inputs_bit_for_bit(cases, name):
    step, arguments = cases[name]
    assert replays(getattr(fuse_statistics, f"launch_{step}"), arguments)
