"""The rows of fused sums, losses and decoding: their checks pass and can fail, their limits are known."""

import dataclasses

import pytest
import torch

import bench.bench_decode as decode_rows
import bench.bench_fuse as fuse_rows
import bench.bench_fuse_steps as step_rows
import bench.bench_loss as loss_rows
import fastpose.nn.fuse
import fastpose.ops._fuse
from bench import fuse_sides
from bench.fuse_cases import bottleneck, branch_widths, exchange, network_shapes
from bench.measure import measure
from bench.official_loss import joints_mse, joints_ohkm
from bench.rows import Unavailable
from bench.timing import make_timer
from fastpose.nn.fuse import fuse_sums
from fastpose.reference.loss import heatmap_mse, heatmap_ohkm

SMALL = {
    "exchange": dataclasses.replace(exchange((8, 16, 24)), size=(32, 16)),
    "row0": dataclasses.replace(exchange((8, 16, 24, 32), 1), size=(32, 16)),
    "bottleneck": dataclasses.replace(bottleneck(), size=(8, 8)),
    "shortcut": dataclasses.replace(bottleneck(shortcut=True), size=(8, 8)),
}
CPU_ROWS = [row for row in (*fuse_rows.rows, *loss_rows.rows) if row.device == "cpu"]
CUDA_FILES = (decode_rows, fuse_rows, step_rows, loss_rows)


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)


@pytest.fixture
def by_moments(monkeypatch, uncompiled):
    """The candidate goes the way of the kernels, whose steps the reference takes on a CPU."""
    monkeypatch.setattr(fastpose.ops._fuse, "fuse_runs_on_triton", lambda *arguments: True)


def draw():
    return torch.Generator().manual_seed(5)


def check_fuse(direction, shape="row0", dtype=torch.bfloat16):
    case = fuse_rows.case(SMALL[shape], direction, 4, dtype, device="cpu")
    case.check(*case.inputs(draw()))
    return case


@pytest.mark.parametrize("row", CPU_ROWS, ids=str)
def test_cpu_rows_pass_their_checks(row):
    assert measure(row, seconds=0, seed=3, check_only=True)["id"] == row.id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("direction", ["eval", "forward", "backward"])
@pytest.mark.parametrize("shape", SMALL)
def test_fused_sums_pass_their_checks(by_moments, shape, direction, dtype):
    assert check_fuse(direction, shape, dtype).limit.bytes > 0


@pytest.mark.parametrize("direction", ["eval", "forward"])
def test_a_wrong_sum_fails_its_row(monkeypatch, by_moments, direction):
    monkeypatch.setattr(fuse_sides, "fuse_sums", lambda sums: [1.03 * y for y in fuse_sums(sums)])
    with pytest.raises(AssertionError, match=r"output 0: relative L2 error 0\.0[23]"):
        check_fuse(direction)


def test_wrong_running_statistics_fail_their_row(monkeypatch, by_moments):
    update = fastpose.nn.fuse.update_running_statistics

    def biased(norms, statistics):
        update(norms, [s._replace(var=1.05 * s.var) for s in statistics])

    monkeypatch.setattr(fastpose.nn.fuse, "update_running_statistics", biased)
    with pytest.raises(AssertionError, match=r"running_var: relative L2 error 0\.05"):
        check_fuse("forward")


def test_a_wrong_gradient_fails_its_row(monkeypatch, by_moments):
    def steep(sums):
        return [y + 0.1 * (y - y.detach()) for y in fuse_sums(sums)]

    monkeypatch.setattr(fuse_sides, "fuse_sums", steep)
    with pytest.raises(AssertionError, match=r"gradient of image 0: relative L2 error 0\.1"):
        check_fuse("backward")


def test_a_compiler_that_fails_costs_only_its_side(monkeypatch, by_moments):
    def broken(*arguments):
        raise RuntimeError("no valid choices")

    monkeypatch.setattr(torch, "compile", lambda run, **options: broken)
    case = fuse_rows.case(SMALL["row0"], "backward", 4, device="cpu")
    inputs = case.inputs(draw())
    case.check(*inputs)
    with pytest.raises(RuntimeError, match="no valid choices"):
        case.rivals["torch.compile"](*inputs)


def test_backward_passes_repeat_whatever_ran_between(by_moments):
    case = fuse_rows.case(SMALL["exchange"], "backward", 4, device="cpu")
    first, second = (case.inputs(draw()) for _ in range(2))
    for side in (case.candidate, *case.rivals.values()):
        before = side(*first)
        side(*second)
        again = side(*first)
        assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))


@pytest.mark.parametrize("step", step_rows.STEPS)
def test_steps_pass_their_checks(uncompiled, step):
    case = step_rows.case(SMALL["row0"], step, 4)
    case.check(*case.inputs(draw()))
    assert case.limit.bytes > 0


def test_a_wrong_step_fails_its_row(monkeypatch, uncompiled):
    right = step_rows.fuse_steps.input_gradient
    monkeypatch.setattr(step_rows.fuse_steps, "input_gradient", lambda x, *rest: right(0.9 * x, *rest))
    case = step_rows.case(SMALL["row0"], "input_gradient", 4)
    with pytest.raises(AssertionError, match="input_gradient, result 0: relative L2 error"):
        case.check(*case.inputs(draw()))


@pytest.mark.parametrize("kind", loss_rows.PASSES)
def test_losses_pass_their_checks_in_channels_last(uncompiled, kind):
    case = loss_rows.case(kind, 2, torch.bfloat16, channels_last=True, device="cpu")
    inputs = case.inputs(draw())
    assert inputs[0].is_contiguous(memory_format=torch.channels_last)
    case.check(*inputs)


@pytest.mark.parametrize(("kind", "what"), [("forward", "loss"), ("together", "gradient")])
def test_a_wrong_loss_fails_its_row(monkeypatch, uncompiled, kind, what):
    right = loss_rows.heatmap_loss_and_gradient
    monkeypatch.setattr(
        loss_rows, "heatmap_loss", lambda pred, *rest, **options: right(pred, *rest, **options)[0] * 1.001
    )
    monkeypatch.setattr(
        loss_rows,
        "heatmap_loss_and_gradient",
        lambda pred, *rest, **options: (right(pred, *rest, **options)[0], pred.detach()),
    )
    case = loss_rows.case(kind, 2, torch.float32, device="cpu")
    with pytest.raises(AssertionError, match=f"{what} of fastpose: relative L2 error"):
        case.check(*case.inputs(draw()))


def test_official_losses_are_the_reference_in_float64():
    pred, target = torch.randn(2, 3, 17, 8, 6, generator=draw(), dtype=torch.float64)
    weight = torch.rand(3, 17, generator=draw(), dtype=torch.float64)
    torch.testing.assert_close(joints_mse(pred, target, weight[..., None]), heatmap_mse(pred, target, weight))
    torch.testing.assert_close(
        joints_ohkm(pred, target, weight[..., None], 8), heatmap_ohkm(pred, target, weight, 8)
    )


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["planar", "channels_last"])
def test_decoding_passes_its_check_in_any_layout(channels_last, flip):
    maps = decode_rows.Maps("bfloat16", 2, channels_last, flip)
    try:
        case = decode_rows.case("cpu", maps)
    except Unavailable as error:
        pytest.skip(str(error))
    inputs = case.inputs(draw())
    assert inputs[-1].is_contiguous(memory_format=torch.channels_last) == channels_last
    case.check(*inputs)
    assert len(inputs) == 3 + flip
    assert case.limit.bytes == (1 + flip) * 2 * 2 * 17 * 64 * 48 + 13 * 2 * 17


def test_every_fuse_row_has_a_limit(uncompiled):
    for row in fuse_rows.rows:
        case = row.build(device="cpu") if row.device == "cuda" else row.build()
        assert case.limit.bytes > 0 < case.limit.flops, row.id
        assert f"-b{case.items}" in row.id


def test_every_step_row_has_a_limit(uncompiled):
    for row in step_rows.rows:
        case = row.build()
        assert case.limit.bytes > 0, row.id
        assert bool(case.limit.flops) == ("backward_row" not in row.id), row.id


def test_limits_are_those_of_the_design(uncompiled):
    """54 MB for W48's last exchange of 64 images; a bottleneck's forward pass is its expansion's bytes."""
    limits = {row.id: row.build(device="cpu").limit for row in fuse_rows.rows if row.device == "cuda"}
    assert 53e6 < limits["fuse/cuda/eval-w48-row0-b64"].bytes < 55e6
    expansion = 2 * 64 * 64 * 48 * (256 + 64 + 256)
    assert limits["fuse/cuda/eval-layer1-b64"].bytes == expansion
    assert limits["fuse/cuda/forward-layer1-b64"].bytes == expansion + 2 * 64 * 64 * 48 * 64
    loss = next(row for row in loss_rows.rows if row.id == "loss/cuda/both-b64").build(device="cpu").limit
    assert loss.bytes == 2 * 2 * 64 * 17 * 64 * 48 + 12 * 64 * 17


def test_networks_have_their_sums():
    """W48: 1, 4 and 3 modules, the last with one output, and four blocks of layer1."""
    shapes = network_shapes("w48")
    assert [(len(shape.sums), times) for shape, times in shapes] == [
        (2, 1), (3, 4), (4, 2), (1, 1), (1, 1), (1, 3),
    ]  # fmt: skip
    assert branch_widths("w32") == [32, 64, 128, 256]
    assert sum(times for _, times in network_shapes("w18_small")) == 1 + 3 + 2 + 2


gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=gpu, id=row.id)
        for module in CUDA_FILES
        for row in module.rows
        if row.device == "cuda" and "b64" in row.id
    ],
)
def test_cuda_rows_pass_their_checks(row):
    assert measure(row, seconds=0, seed=3, check_only=True)["id"] == row.id


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("direction", ["eval", "forward", "backward"])
def test_all_sides_can_be_captured(direction):
    case = fuse_rows.case(SMALL["exchange"], direction, 4)
    cuda = torch.Generator("cuda").manual_seed(5)
    sets = [case.inputs(cuda) for _ in range(2)]
    for side in (case.candidate, *case.rivals.values()):
        timer = make_timer("graph", side, sets, "cuda")
        timer.warm_up()
        assert timer.seconds() > 0
