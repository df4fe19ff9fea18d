"""The Triton kernel of the fused sum's outputs: its arithmetic in the interpreter, its code for GPUs."""

from collections.abc import Callable, Sequence

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
    vectors,
    weight,
)  # fmt: skip
from torch import Tensor

from fastpose.reference import fuse_steps as reference

triton = pytest.importorskip("triton")

from fastpose.kernels.configs import ForwardConfig  # noqa: E402

from fastpose.kernels import fuse_forward  # noqa: E402 (imports Triton)

SCRIPT = """
from fastpose.kernels.configs import ForwardConfig
from fastpose.kernels.fuse_forward import launch_forward_row
outputs = {}
for name, (_, arguments) in inputs.items():
    config = ForwardConfig(16, 16, 16, 1, 1) if name.startswith("small-tiles") else None
    outputs[name] = launch_forward_row(*arguments, config)
"""


def row(
    shape: Sequence[int],
    sources: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    images: int = 0,
    identity: bool = True,
    channels_last: bool = True,
) -> Case:
    """`sources`: (inputs, level) of each path with a weight."""
    batch, channels, height, width = shape
    xs = [image((batch, c, height >> level, width >> level), dtype, channels_last) for c, level in sources]
    weights = [weight(channels, c, dtype) for c, _ in sources]
    below = [image(shape, dtype, channels_last) for _ in range(images)]
    widths = [channels] * (len(sources) + images)
    affine = vectors(widths), vectors(widths)
    first = image(shape, dtype, channels_last) if identity else None
    return "forward_row", (first, xs, weights, below, *affine, *statistics(widths), (height, width), EPS)


def module_row(
    net: str,
    branches: int,
    index: int,
    batch: int,
    size: tuple[int, int],
    dtype: torch.dtype,
    cl: bool = True,
) -> Case:
    """Row `index` of an HRNet module whose branch 0 has `size` pixels."""
    widths = WIDTHS[net][:branches]
    shape = (batch, widths[index], size[0] >> index, size[1] >> index)
    sources = [(width, level + 1) for level, width in enumerate(widths[index + 1 :])]
    return row(shape, sources, dtype, images=index, channels_last=cl)


def mixed(case: Case) -> Case:
    """Every image but the first in another layout: NCHW, and the sources with gaps."""
    step, (identity, xs, weights, images, *rest) = case
    gaps = [torch.cat([x, x], 3)[..., : x.shape[3]] for x in xs]
    return step, (identity, gaps, weights, [x.contiguous() for x in images], *rest)


def not_finite(case: Case) -> Case:
    step, (identity, *rest) = case
    identity[0, 0, 0, 0], identity[0, 1, 0, 0] = float("nan"), float("inf")
    return step, (identity, *rest)


CASES: dict[str, Callable[[], Case]] = {
    "w18-0": lambda: module_row("w18", 4, 0, 3, (8, 16), BF16),
    "w18-1": lambda: module_row("w18", 4, 1, 3, (8, 16), F32),
    "w18-3": lambda: module_row("w18", 4, 3, 3, (8, 16), F16),
    "w18-0-of-2": lambda: module_row("w18", 2, 0, 1, (6, 10), F16),
    "w32-0": lambda: module_row("w32", 4, 0, 2, (16, 8), F32),
    "w32-1": lambda: module_row("w32", 4, 1, 2, (16, 8), BF16),
    "w32-2": lambda: module_row("w32", 4, 2, 5, (16, 8), F16),
    "w48-0": lambda: module_row("w48", 4, 0, 2, (16, 24), BF16),
    "w48-0-of-3": lambda: module_row("w48", 3, 0, 2, (12, 20), BF16),
    "w48-2": lambda: module_row("w48", 4, 2, 1, (24, 8), F32),
    "w48-3": lambda: module_row("w48", 4, 3, 2, (16, 8), BF16),
    "one-pixel": lambda: module_row("w32", 4, 0, 1, (8, 8), F32),
    "nchw-f32": lambda: module_row("w18", 4, 0, 3, (24, 16), F32, cl=False),
    "nchw-bf16": lambda: module_row("w18", 4, 1, 3, (8, 16), BF16, cl=False),
    "nchw-3": lambda: module_row("w48", 4, 3, 2, (16, 8), F16, cl=False),
    "layer1": lambda: row((1, 256, 6, 5), [(64, 0)], BF16),
    "layer1-two-paths": lambda: row((3, 256, 7, 3), [(64, 0), (64, 0)], BF16, identity=False),
    "layer1-f32": lambda: row((1, 256, 6, 5), [(64, 0), (64, 0)], F32, identity=False),
    "order": lambda: row((2, 20, 8, 8), [(24, 2), (8, 0), (40, 1)], F32, images=1),
    "images-alone": lambda: row((2, 20, 3, 5), [], F32, images=2, identity=False),
    "level-4": lambda: row((2, 20, 16, 32), [(24, 4), (8, 1)], F32),
    "mixed": lambda: mixed(module_row("w18", 3, 1, 2, (8, 16), F32)),
    "not-finite": lambda: not_finite(module_row("w18", 2, 0, 1, (8, 8), F32)),
    "small-tiles": lambda: module_row("w18", 4, 0, 2, (16, 8), F32),
    "small-tiles-1": lambda: module_row("w18", 4, 1, 2, (16, 8), BF16),
    "empty": lambda: module_row("w18", 3, 1, 0, (8, 16), BF16),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    torch.manual_seed(42)
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("fuse_forward"))


@pytest.mark.parametrize("name", [name for name in CASES if name != "not-finite"])
def test_matches_reference(cases, interpreted, name):
    check_against_reference(interpreted[name], cases[name])


def test_nan_and_infinity_stay_where_they_are(cases, interpreted):
    step, arguments = cases["not-finite"]
    expected = getattr(reference, step)(*arguments)
    assert expected.isnan().sum() == 1
    assert expected.isinf().sum() == 1
    torch.testing.assert_close(interpreted["not-finite"], expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize(("name", "channels_last"), [("w18-0", True), ("mixed", True), ("nchw-f32", False)])
def test_layout_is_that_of_the_first_image(interpreted, name, channels_last):
    assert interpreted[name].is_contiguous(memory_format=torch.channels_last) == channels_last
    assert interpreted[name].is_contiguous() != channels_last


@pytest.fixture
def jobs():
    """What the launcher launches, in the order of the calls, instead of running it."""
    with recorded(fuse_forward) as jobs, torch.device("meta"):
        yield jobs


def launch(case: Case, config: ForwardConfig | None = None) -> Tensor:
    return fuse_forward.launch_forward_row(*case[1], config)


def launch_net(
    net: str, branches: Sequence[int], dtype: torch.dtype = BF16, channels_last: bool = True
) -> None:
    """All rows for 64 inputs of 192 x 256 pixels."""
    if net == "layer1":
        for paths in (1, 2):
            sources = [(64, 0)] * paths
            launch(row((64, 256, 64, 48), sources, dtype, identity=paths == 1, channels_last=channels_last))
        return
    for count in branches:
        for index in range(count):
            launch(module_row(net, count, index, 64, (64, 48), dtype, channels_last))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("net", ["w18", "w32", "w48", "layer1"])
def test_compiles_without_spills(jobs, monkeypatch, capability, net):
    monkeypatch.setattr(fuse_forward, "capability", lambda device: capability)
    launch_net(net, (2, 3, 4) if capability == 90 else (4,))
    assert jobs
    for used in compile_many(job | {"capability": capability, "variant": net} for job in jobs):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize("net", ["w48", "layer1"])
@pytest.mark.parametrize(
    ("capability", "dtype", "channels_last"),
    [
        (80, F32, True),
        (90, F32, True),
        (80, F16, True),
        (100, F16, True),
        (80, F32, False),
        (90, BF16, False),
    ],
    ids=["f32-80", "f32-90", "f16-80", "f16-100", "f32-nchw-80", "bf16-nchw-90"],
)
def test_other_types_and_layouts_compile_without_spills(
    jobs, monkeypatch, capability, net, dtype, channels_last
):
    monkeypatch.setattr(fuse_forward, "capability", lambda device: capability)
    launch_net(net, (4,), dtype, channels_last)
    variant = f"{net} {str(dtype).removeprefix('torch.')} {'channels_last' if channels_last else 'NCHW'}"
    for used in compile_many(job | {"capability": capability, "variant": variant} for job in jobs):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_images_are_read_and_written_16_bytes_at_a_time(jobs, monkeypatch, capability):
    monkeypatch.setattr(fuse_forward, "capability", lambda device: capability)
    launch_net("w48", (4,))
    for used in compile_many(job | {"capability": capability, "variant": "w48"} for job in jobs):
        assert used.ptx.count("st.global.v4") == used.ptx.count("st.global.")
        assert "ld.global.v4" in used.ptx
        assert "ld.global.b16" not in used.ptx
    assert "mma" in used.ptx or not jobs[-1]["constants"]["LEVELS"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [name for name in CASES if name != "not-finite"])
def test_cuda_matches_reference(cases, name):
    step, arguments = cases[name]
    check_against_reference(launch((step, mapped(arguments, Tensor.cuda))), cases[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_nan_and_infinity_stay_where_they_are(cases):
    step, arguments = cases["not-finite"]
    expected = getattr(reference, step)(*arguments)
    got = launch((step, mapped(arguments, Tensor.cuda))).cpu()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["w18-0", "w48-0", "w32-1", "w48-3", "nchw-f32", "layer1-two-paths"])
def test_cuda_graph_replays_with_other_inputs_bit_for_bit(cases, name):
    assert replays(fuse_forward.launch_forward_row, cases[name][1])
