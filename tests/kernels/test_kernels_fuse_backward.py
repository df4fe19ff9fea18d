"""The Triton kernels of the fused sum's backward: arithmetic in the interpreter, code for GPUs."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from interpreter import run_interpreted
from launches import recorded
from resources import CAPABILITIES, Resources, compile_many
from step_cases import (
    BF16,
    EPS,
    F16,
    F32,
    SHARED,
    WIDTHS,
    Case,
    check_against_reference,
    flat,
    image,
    mapped,
    replays,
)  # fmt: skip
from torch import Tensor

triton = pytest.importorskip("triton")

from fastpose.kernels import fuse_backward, fuse_gradients, fuse_weights  # noqa: E402 (they import Triton)

SCRIPT = """
from fastpose.kernels import fuse_backward, fuse_gradients, fuse_weights
torch.use_deterministic_algorithms(True)  # torch.empty holds NaN
launchers = vars(fuse_backward) | vars(fuse_gradients) | vars(fuse_weights)
outputs, sizes = {}, (fuse_backward.PROGRAMS, fuse_backward.SUM_PARTS)
for name, (step, arguments) in inputs.items():
    few = name == "row-few-programs"  # of several tiles each, whose sums are added in several steps
    fuse_backward.PROGRAMS, fuse_backward.SUM_PARTS = (5, 2) if few else sizes
    outputs[name] = launchers["launch_" + step](*arguments)
"""


def launch(step: str, arguments: tuple[Any, ...]) -> Any:
    launchers = vars(fuse_backward) | vars(fuse_gradients) | vars(fuse_weights)
    return launchers[f"launch_{step}"](*arguments)


def vectors(count: int, channels: int) -> list[Tensor]:
    return list(torch.randn(count, channels).unbind())


def variances(count: int, channels: int) -> list[Tensor]:
    return list((0.1 + torch.rand(count, channels)).unbind())


def backward_row(
    shape: Sequence[int], images: int, levels: Sequence[int], dtype: torch.dtype, channels_last: bool = True
) -> Case:
    grad = image(shape, dtype, channels_last)
    output = image(shape, dtype, channels_last).clamp_min(0)
    below = [image(shape, dtype, channels_last) for _ in range(images)]
    means, spread = vectors(images, shape[1]), variances(images, shape[1])
    return "backward_row", (grad, output, below, means, spread, list(levels), EPS)


def input_gradient(
    shape: Sequence[int],
    widths: Sequence[int],
    dtype: torch.dtype,
    channels_last: bool = True,
    masked: bool = True,
) -> Case:
    """The matrix is not symmetric here, so that a transposed one shows."""
    batch, inputs, height, width = shape
    x, identity = (image(shape, dtype, channels_last) for _ in range(2))
    pooled = [image((batch, c, height, width), dtype, channels_last) for c in widths]
    scaled = [(torch.randn(c, inputs) / c**0.5).to(dtype) for c in widths]
    matrix = (torch.randn(inputs, inputs) / inputs**0.5).to(dtype)
    return "input_gradient", (x, identity if masked else None, pooled, scaled, matrix, torch.randn(inputs))


def image_gradients(
    shape: Sequence[int], totals: Sequence[int], dtype: torch.dtype, channels_last: bool = True
) -> Case:
    count, channels = len(totals), shape[1]
    images = [image(shape, dtype, channels_last) for _ in totals]
    gammas, means = vectors(count, channels), vectors(count, channels)
    dbetas, dgammas = ([50 * v for v in vectors(count, channels)] for _ in range(2))
    statistics = means, variances(count, channels), dbetas, dgammas
    masked = image(shape, dtype, channels_last)
    return "image_gradients", (masked, images, gammas, *statistics, list(totals), EPS)


def weight_gradients(
    inputs: int, widths: Sequence[int], totals: Sequence[int], count: int, dtype: torch.dtype
) -> Case:
    """`count` pixels in this process, `totals` in all."""
    crosses = [count**0.5 * torch.randn(c, inputs) for c in widths]
    weights = [(torch.randn(c, inputs) / inputs**0.5).to(dtype) for c in widths]
    gammas, means, local_dbetas = ([torch.randn(c) for c in widths] for _ in range(3))
    dbetas, dgammas = ([count**0.5 * torch.randn(c) for c in widths] for _ in range(2))
    spread = [0.1 + torch.rand(c) for c in widths]
    x = torch.randn(2 * inputs, inputs)
    sums = local_dbetas, dbetas, dgammas, torch.randn(inputs), x.T @ x / len(x)
    return "weight_gradients", (crosses, weights, gammas, means, spread, *sums, list(totals), count, EPS)


def mixed(case: Case) -> Case:
    """Every image but the first in the other layout, those of a list with gaps."""
    step, (first, *rest) = case
    return step, (first, *(_other_layout(entry) for entry in rest))


def _other_layout(value: Any) -> Any:
    if isinstance(value, list):
        return [torch.cat([v, v], 3)[..., : v.shape[3]] if _is_image(v) else v for v in value]
    return value.contiguous() if _is_image(value) else value


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def not_finite(case: Case) -> Case:
    """Gradients of anything where the ReLU holds them back."""
    step, (grad, output, *rest) = case
    held = torch.where(torch.rand(grad.shape) > 0.5, float("nan"), float("inf"))
    return step, (torch.where(output > 0, grad, held), output, *rest)


CASES: dict[str, Callable[[], Case]] = {
    "row-w48-0": lambda: backward_row((2, 48, 16, 8), 0, (1, 2, 3), BF16),
    "row-w18-0": lambda: backward_row((3, 18, 8, 16), 0, (1, 2, 3), BF16),
    "row-w48-0-f16": lambda: backward_row((1, 48, 16, 8), 0, (1, 2, 3), F16),
    "row-w32-0-f32": lambda: backward_row((2, 32, 16, 8), 0, (1, 2, 3), F32),
    "row-w18-0-nchw": lambda: backward_row((3, 18, 8, 16), 0, (1, 2, 3), F32, False),
    "row-one-pixel": lambda: backward_row((1, 32, 8, 8), 0, (1, 2, 3), F32),
    "row-w18-1": lambda: backward_row((3, 36, 8, 12), 1, (1, 2), BF16),
    "row-w48-2": lambda: backward_row((2, 192, 4, 6), 2, (1,), F32),
    "row-w48-3-nchw": lambda: backward_row((2, 144, 3, 2), 3, (), BF16, False),
    "row-w48-3": lambda: backward_row((5, 384, 2, 1), 3, (), BF16),
    "row-gap": lambda: backward_row((2, 20, 8, 8), 1, (1, 3), F32),
    "row-coarse-only": lambda: backward_row((2, 16, 4, 8), 0, (2,), F32, False),
    "row-odd-size": lambda: backward_row((3, 64, 5, 7), 1, (), F16),
    "row-layer1": lambda: backward_row((1, 256, 6, 5), 0, (), BF16),
    "row-mixed": lambda: mixed(backward_row((2, 36, 8, 4), 2, (1,), F32)),
    "row-not-finite": lambda: not_finite(backward_row((2, 24, 8, 4), 1, (1,), F32)),
    "row-few-programs": lambda: backward_row((5, 36, 16, 16), 1, (1, 2), F32),
    "row-empty": lambda: backward_row((0, 48, 16, 8), 2, (1,), BF16),
    "input-w48-1": lambda: input_gradient((2, 96, 8, 4), (48,), BF16),
    "input-w48-3": lambda: input_gradient((3, 384, 3, 4), (48, 96, 192), BF16),
    "input-w18-3-f16": lambda: input_gradient((3, 144, 2, 3), (18, 36, 72), F16),
    "input-w18-2": lambda: input_gradient((3, 72, 5, 3), (18, 36), F32),
    "input-w32-2-nchw": lambda: input_gradient((2, 128, 4, 4), (32, 64), F32, False),
    "input-layer1": lambda: input_gradient((1, 64, 6, 5), (256, 256), BF16, masked=False),
    "input-one-pixel": lambda: input_gradient((1, 36, 1, 1), (18,), BF16, False),
    "input-mixed": lambda: mixed(input_gradient((2, 40, 4, 6), (24, 16), F32)),
    "input-empty": lambda: input_gradient((0, 96, 8, 4), (48,), BF16),
    "image-w48-1": lambda: image_gradients((2, 96, 8, 4), (64,), BF16),
    "image-w18-3": lambda: image_gradients((3, 144, 2, 3), (18, 18, 18), F32),
    "image-w18-2-nchw": lambda: image_gradients((3, 72, 5, 3), (90, 90), F16, False),
    "image-frozen": lambda: image_gradients((3, 36, 3, 3), (27, 0), F32),
    "image-mixed": lambda: mixed(image_gradients((2, 20, 3, 5), (30, 30), F32)),
    "image-none": lambda: image_gradients((2, 20, 3, 5), (), F32),
    "image-empty": lambda: image_gradients((0, 20, 3, 5), (30,), F32),
    "weight-w48-2": lambda: weight_gradients(192, (48, 96), (60, 60), 60, BF16),
    "weight-w18-3": lambda: weight_gradients(144, (18, 36, 72), (60, 60, 60), 60, F32),
    "weight-w32-1-f16": lambda: weight_gradients(64, (32,), (500,), 500, F16),
    "weight-layer1": lambda: weight_gradients(64, (256, 256), (500, 500), 500, F32),
    "weight-two-processes": lambda: weight_gradients(36, (18,), (900,), 400, F32),
    "weight-some-frozen": lambda: weight_gradients(72, (18, 36), (0, 300), 300, F32),
    "weight-all-frozen": lambda: weight_gradients(72, (18, 36), (0, 0), 300, BF16),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    torch.manual_seed(42)
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("fuse_backward"))


@pytest.mark.parametrize("name", CASES)
def test_matches_reference(cases, interpreted, name):
    check_against_reference(interpreted[name], cases[name], "fuse_backward")


@pytest.mark.parametrize("name", ["row-w48-0", "input-w48-3", "image-w18-3"])
def test_layout_is_that_of_the_first_image(interpreted, name):
    images = [x for x in flat(interpreted[name]) if x.dim() == 4]
    assert images
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in images)


def test_masked_is_the_gradient_bit_for_bit(cases, interpreted):
    grad, output = cases["row-not-finite"][1][:2]
    assert not torch.isfinite(grad).all()
    assert torch.equal(interpreted["row-not-finite"][0], torch.where(output > 0, grad, 0))


@pytest.fixture
def jobs():
    """What the launchers launch, in the order of the calls, instead of running it."""
    with recorded(fuse_backward, fuse_gradients, fuse_weights) as jobs, torch.device("meta"):
        yield jobs


def launch_modules(
    widths: Sequence[int], branches: Sequence[int], dtype: torch.dtype = BF16, channels_last: bool = True
) -> None:
    """The backward of HRNet modules with these numbers of branches, for 64 inputs of 192 x 256 pixels."""
    shapes = [(64, width, 64 >> level, 48 >> level) for level, width in enumerate(widths)]
    for count in branches:
        for row in range(count):
            launch(*backward_row(shapes[row], row, range(1, count - row), dtype, channels_last))
    for row in range(1, max(branches)):
        launch(*image_gradients(shapes[row], [7] * row, dtype, channels_last))
        launch(*input_gradient(shapes[row], widths[:row], dtype, channels_last))
        launch(*weight_gradients(widths[row], widths[:row], [7] * row, 7, dtype))


def launch_layer1(dtype: torch.dtype = BF16) -> None:
    launch(*backward_row((64, 256, 64, 48), 0, (), dtype))
    for paths in (1, 2):
        launch(*input_gradient((64, 64, 64, 48), [256] * paths, dtype, masked=False))
        launch(*weight_gradients(64, [256] * paths, [7] * paths, 7, dtype))


def compiled(jobs: list[dict[str, Any]], capability: int, variant: str) -> list[Resources]:
    """Compiles each of the jobs, those that differ in nothing once."""
    unique = {repr(job): job | {"capability": capability, "variant": variant} for job in jobs}
    return compile_many(unique.values())


@pytest.mark.parametrize(
    ("net", "capability"),
    [
        *(pytest.param(net, 90, id=f"{net}-90") for net in [*WIDTHS, "layer1"]),
        *(pytest.param(net, c, id=f"{net}-{c}") for net in ("w48", "layer1") for c in (80, 100)),
        *(
            pytest.param(net, c, id=f"{net}-{c}", marks=pytest.mark.slow)
            for net in ("w18", "w32")
            for c in (80, 100)
        ),
    ],
)
def test_compiles_without_spills(jobs, monkeypatch, net, capability):
    monkeypatch.setattr(fuse_gradients, "capability", lambda device: capability)
    if net == "layer1":
        launch_layer1()
    else:
        launch_modules(WIDTHS[net], (2, 3, 4) if (net, capability) == ("w48", 90) else (4,))
    for used in compiled(jobs, capability, net):
        assert used.spills == 0
        assert used.shared <= SHARED[capability]


@pytest.mark.parametrize(
    ("dtype", "channels_last"),
    [(F16, True), (F32, True), (BF16, False), (F32, False)],
    ids=["f16", "f32", "bf16-nchw", "f32-nchw"],
)
def test_other_types_and_layouts_compile_without_spills(jobs, monkeypatch, dtype, channels_last):
    monkeypatch.setattr(fuse_gradients, "capability", lambda device: 80)
    launch_modules(WIDTHS["w48"], (4,), dtype, channels_last)
    weights = {"fuse_weight_bwd_kernel", "fuse_matrix_bwd_kernel", "fuse_row_sum_kernel"}
    if (dtype, channels_last) != (
        F32,
        True,
    ):  # these kernels see no layout, and are compiled for bfloat16 above
        jobs[:] = [job for job in jobs if job["kernel"].__name__ not in weights]
    for used in compiled(jobs, 80, f"{dtype} {'channels_last' if channels_last else 'NCHW'}"):
        assert used.spills == 0
        assert used.shared <= SHARED[80]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_images_are_read_16_bytes_at_a_time(jobs, capability):
    launch_modules(WIDTHS["w48"], (4,))
    passes = [job for job in jobs if "p_images" in job["signature"]]
    assert len(passes) == 4 + 3  # a row each, and the images of all but the first
    for used in compiled(passes, capability, "w48"):
        assert "ld.global.v4.b32" in used.ptx
        assert "ld.global.b16" not in used.ptx


ON_GPU = ["row-w48-0", "row-w18-1", "row-w48-3-nchw", "row-gap", "input-w48-3", "input-w18-2", "image-w18-3",
          "image-frozen", "weight-w48-2", "weight-some-frozen", "weight-all-frozen"]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_cuda_matches_reference(cases, name):
    step, arguments = cases[name]
    check_against_reference(launch(step, mapped(arguments, Tensor.cuda)), cases[name], "fuse_backward")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ON_GPU)
def test_cuda_graph_replays_with_other_inputs_bit_for_bit(cases, name):
    step, arguments = cases[name]
    assert replays(lambda *static: launch(step, static), arguments)
