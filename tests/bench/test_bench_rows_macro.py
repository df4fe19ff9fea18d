"""The rows of whole networks, pictures and evaluation: listed, checked, and their checks can fail."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bench.bench_end_to_end as end_rows
import bench.bench_forward as forward_rows
import bench.bench_metrics as metric_rows
import bench.bench_step as step_rows
import bench.training
import bench.ways
import fastpose.nn.fuse
import fastpose.ops._fuse
from bench.agreement import Result, check_result
from bench.captured import Captured
from bench.engines import load, onnx_side
from bench.official_loop import accuracy
from bench.rows import Unavailable, all_rows, in_order
from bench.ways import make_network
from fastpose.models.hrnet import HRNet, HRNetConfig
from fastpose.models.meta import ModelMeta

SMALL, SIZE, BATCH = "hrnet_w18_small", (64, 64), 2
NO_CUDA = not torch.cuda.is_available()


def draw(device="cpu"):
    return torch.Generator(device=device).manual_seed(5)


def on_cpu(ways):
    """The ways of a GPU, with the backend that a CPU has."""
    return {
        name: dataclasses.replace(way, backend=way.backend.replace("triton", "auto"))
        for name, way in ways.items()
    }


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """One block and one module of each kind of layer in place of hrnet_w18_small."""
    config = HRNetConfig(16, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    known = bench.ways.create_model

    def create(name, joints):
        return HRNet(config, ModelMeta(name, joints)) if name == SMALL else known(name, joints)

    monkeypatch.setattr(bench.ways, "create_model", create)


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)


@pytest.fixture
def by_moments(monkeypatch, uncompiled):
    """The candidate goes the way of the kernels, whose steps the reference takes on a CPU."""

    def runs(backend, *rest):
        return backend != "reference"

    for module in (fastpose.ops._fuse, fastpose.nn.fuse):
        monkeypatch.setattr(module, "fuse_runs_on_triton", runs)


def check_step(ways):
    case = step_rows.case("cpu", SMALL, SIZE, BATCH, on_cpu(ways))
    case.check(*case.inputs(draw()))
    return case


def check_forward(ways, engines=()):
    case = forward_rows.case("cpu", SMALL, SIZE, BATCH, on_cpu(ways), dict(engines))
    case.check(*case.inputs(draw()))
    return case


OWN, CAST = step_rows.OWN, forward_rows.OWN


def test_steps_pass_their_checks(uncompiled):
    rivals = {step_rows.TRAIN: OWN["fastpose"], **step_rows.RIVALS}
    case = check_step({**OWN, **rivals})
    assert {*case.rivals, *case.absent} == set(rivals)
    assert case.limit.flops > 0


def test_forwards_pass_their_checks(uncompiled):
    rivals = {**forward_rows.RIVALS, **forward_rows.LEVERS}
    case = check_forward({**CAST, **rivals})
    assert {*case.rivals, *case.absent} == set(rivals)
    assert 0 < case.limit.bytes < 1e9


def test_the_way_of_the_kernels_passes(by_moments):
    check_step(OWN)
    check_forward(CAST)


def test_a_wrong_gradient_fails_its_row(by_moments, monkeypatch):
    right = fastpose.nn.fuse.fuse

    def wrong(rows, **options):
        fused = right(rows, **options)
        for output in fused.outputs:
            if output.requires_grad:
                output.register_hook(lambda gradient: gradient * 1.2)
        return fused

    monkeypatch.setattr(fastpose.nn.fuse, "fuse", wrong)
    with pytest.raises(AssertionError, match="float32: gradients: relative L2 error"):
        check_step(OWN)


def test_wrong_running_statistics_fail_their_row(by_moments, monkeypatch):
    monkeypatch.setattr(fastpose.nn.fuse, "update_running_statistics", lambda norms, statistics: None)
    with pytest.raises(AssertionError, match=r"float32: .*running_mean: relative L2 error"):
        check_step(OWN)


def test_a_wrong_loss_fails_its_row(monkeypatch):
    right = bench.training.heatmap_loss
    monkeypatch.setattr(
        bench.training, "heatmap_loss", lambda *args, **options: 1.01 * right(*args, **options)
    )
    with pytest.raises(AssertionError, match="float32: loss: relative L2 error"):
        check_step(OWN)


def test_wrong_heatmaps_fail_their_row(monkeypatch):
    def shifted(self, images):
        return self.network(self.way.place(images)).roll(1, -1)

    case = forward_rows.case("cpu", SMALL, SIZE, BATCH, on_cpu(CAST), {})
    monkeypatch.setattr(case.candidate, "run", shifted.__get__(case.candidate))
    with pytest.raises(AssertionError, match="poisoned: relative L2 error"):
        case.check(*case.inputs(draw()))


def test_one_wrong_gradient_among_many_is_named():
    gradients = {f"layer{i}": torch.randn(8, generator=draw()) for i in range(400)}
    expected = Result(torch.ones(()), gradients, {})
    got = Result(torch.ones(()), {**gradients, "layer7": torch.zeros(8)}, {})
    with pytest.raises(AssertionError, match="gradient of layer7: error 1, allowed"):
        check_result("side", got, expected, expected)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: forward_rows.cpu_case(SMALL, SIZE, BATCH), id="forward"),
        pytest.param(lambda: step_rows.cpu_case(SMALL, SIZE, BATCH), id="step"),
        pytest.param(metric_rows.coco_case, id="oks-ap"),
        pytest.param(metric_rows.pckh_case, id="pckh"),
        pytest.param(metric_rows.figures_case, id="figures"),
        pytest.param(
            lambda: end_rows.training_case(dataclasses.replace(end_rows.SMALL, pictures=3)), id="train"
        ),
        pytest.param(
            lambda: end_rows.inference_case(dataclasses.replace(end_rows.SMALL, pictures=3)), id="infer"
        ),
    ],
)
def test_cases_of_a_cpu_pass_their_checks(case):
    built = case()
    built.check(*built.inputs(draw()))
    assert built.items >= 1
    built.candidate(*built.inputs(draw()))


def test_wrong_keypoints_fail_their_row():
    truth = np.random.default_rng(0).random((4, 17, 2))
    end_rows.check_keypoints(truth + 0.01, truth)
    with pytest.raises(AssertionError, match=r"keypoints: 0\.0% are the official ones"):
        end_rows.check_keypoints(truth + 0.1, truth)


def test_official_accuracy_by_hand():
    target = np.zeros((1, 3, 20, 20), np.float32)
    target[0, :2, 10, 10] = 1  # the third joint has no target and does not count
    output = np.zeros_like(target)
    output[0, 0, 10, 10] = output[0, 1, 10, 12] = 1
    assert accuracy(output, target) == 0.5


def test_rows_are_listed_the_most_valuable_first():
    rows = all_rows()
    assert len(rows) >= 30
    macro = [row.id for row in in_order(list(rows.values())) if row.group == "macro" and row.device == "cuda"]
    assert macro[:2] == ["step/cuda/w48-256x192-b64", "step/cuda/w48-256x192-b32"]
    for kind in ("step", "forward"):
        for where in ("w32-256x192", "w32-384x288", "w48-256x192", "w48-384x288"):
            assert {f"{kind}/cuda/{where}-b{batch}" for batch in (1, 32, 64, 128)} <= rows.keys()
    assert sum(row.device == "cpu" for row in rows.values()) >= 15


def test_what_is_not_installed_says_so():
    with pytest.raises(Unavailable, match="thing is not installed"):
        load("no_such_module", "thing")


def test_onnx_runtime_without_the_provider_is_left_out(monkeypatch):
    runtime = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("bench.engines.load", lambda name: runtime)
    network = make_network(SMALL, "cpu")
    with pytest.raises(Unavailable, match="has no CUDAExecutionProvider, only CPUExecutionProvider"):
        onnx_side(network, torch.zeros(1, 3, 64, 64), "CUDAExecutionProvider")


gpu = pytest.mark.skipif(NO_CUDA, reason="needs a CUDA device")
UNCOMPILED = ("AMP channels_last", "official fp32", "kernels off", "one stream", "no graph")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("rows", [step_rows, forward_rows], ids=["step", "forward"])
def test_cuda_cases_pass_their_checks(rows):
    own = OWN if rows is step_rows else CAST
    chosen = {name: way for name, way in {**rows.RIVALS, **rows.LEVERS}.items() if name in UNCOMPILED}
    trained = {step_rows.TRAIN: own["fastpose"]} if rows is step_rows else {}
    extra = () if rows is step_rows else ({},)
    case = rows.case("cuda", "hrnet_w32", (96, 128), 4, {**own, **trained, **chosen}, *extra)
    inputs = case.inputs(draw("cuda"))
    case.check(*inputs)
    found = case.figures()
    assert found["fastpose: kernels"] > 300
    assert 0 <= found["fastpose: idle"] < 1
    assert found["no graph: peak GB"] > 0


@pytest.mark.gpu
@gpu
def test_captured_graphs_share_memory_and_read_new_inputs():
    graphs = [
        Captured(lambda x, by=by: (x * by).relu().sum(), [torch.zeros(1000, device="cuda")])
        for by in (2.0, -3.0)
    ]
    assert len({graph.graph.pool() for graph in graphs}) == 1
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for start in range(3):
            x = torch.arange(start, start + 1000, device="cuda") - 500.0
            for graph, by in zip(graphs, (2.0, -3.0), strict=True):
                torch.testing.assert_close(graph(x), (x * by).relu().sum())
    stream.synchronize()
