"""fastpose.ops.gaussian_heatmaps: dispatch, registration and compilation."""

import pytest
import torch
from interpreter import run_interpreted
from tolerances import TOLERANCES

from fastpose import backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import gaussian_heatmaps
from fastpose.reference import heatmap as reference

SIZES = {"heatmap_size": (12, 16), "input_size": (48, 64)}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def sample(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    joints = torch.rand(3, 17, 2, dtype=dtype, device=device) * 90 - 20
    joints[0, :3, 0] = torch.tensor([torch.nan, torch.inf, 1e30], dtype=dtype, device=device)
    return joints, (torch.rand(3, 17, device=device) > 0.3).float()


def assert_matches(got, expected):
    heatmaps, weight = (value.cpu() for value in got)
    assert torch.equal(heatmaps > 0, expected[0] > 0)
    atol, rtol = TOLERANCES["heatmap", "triton"]
    torch.testing.assert_close(heatmaps, expected[0], atol=atol, rtol=rtol)
    assert torch.equal(weight, expected[1])


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("name", ["auto", "reference"])
def test_is_the_reference_on_a_cpu(name, unbiased):
    joints, visible = sample()
    with backend.use_backend(name):
        got = gaussian_heatmaps(joints, visible, sigma=1.5, unbiased=unbiased, **SIZES)
    expected = reference.gaussian_heatmaps(joints, visible, sigma=1.5, unbiased=unbiased, **SIZES)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype, unbiased):
    arguments = (*sample(dtype=dtype), (12, 16), (48, 64), 2.0, unbiased)
    torch.library.opcheck(torch.ops.fastpose.gaussian_heatmaps.default, arguments)


def test_compiles_whole():
    joints, visible = sample()
    compiled = torch.compile(gaussian_heatmaps, fullgraph=True, backend="aot_eager")
    expected = reference.gaussian_heatmaps(joints, visible, **SIZES)
    assert_matches(compiled(joints, visible, **SIZES), expected)


def test_triton_by_name_never_falls_back(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "_current", "triton")
    with pytest.raises(BackendUnavailableError, match="triton: gaussian_heatmaps: joints are on cpu"):
        gaussian_heatmaps(*sample(), **SIZES)


def test_triton_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    body = """
from fastpose.backend import use_backend
from fastpose.ops import gaussian_heatmaps
compiled = torch.compile(gaussian_heatmaps, fullgraph=True, backend="aot_eager")
launches = []
import fastpose.kernels.heatmap as kernels
launch = kernels.launch_gaussian_heatmaps
kernels.launch_gaussian_heatmaps = lambda *arguments: launches.append(1) or launch(*arguments)
with use_backend("triton"):
    sizes = {"heatmap_size": (12, 16), "input_size": (48, 64)}
    runs = gaussian_heatmaps, compiled
    outputs = [run(*inputs, unbiased=unbiased, **sizes) for unbiased in (False, True) for run in runs]
assert len(launches) == 4, launches
"""
    joints, visible = sample()
    outputs = run_interpreted(body, (joints, visible), tmp_path)
    for got, unbiased in zip(outputs, [False, False, True, True], strict=True):
        assert_matches(got, reference.gaussian_heatmaps(joints, visible, unbiased=unbiased, **SIZES))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_matches_reference(golden_functions, dtype, unbiased):
    joints = torch.from_numpy(golden_functions["target_256x192_joints"]).to(dtype)
    visible = torch.from_numpy(golden_functions["target_256x192_visible"])
    sizes = {"heatmap_size": (48, 64), "input_size": (192, 256), "unbiased": unbiased}
    expected = reference.gaussian_heatmaps(joints, visible, **sizes)
    for run in (gaussian_heatmaps, torch.compile(gaussian_heatmaps, fullgraph=True)):
        assert_matches(run(joints.cuda(), visible.cuda(), **sizes), expected)


@pytest.mark.gpu
@needs_gpu
def test_cuda_graph_replay_on_a_side_stream_with_changed_inputs():
    joints, visible = sample("cuda")
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        gaussian_heatmaps(joints, visible, **SIZES)  # compiles the kernel, which must not happen in capture
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, stream=side):
        got = gaussian_heatmaps(joints, visible, **SIZES)
    for _ in range(2):
        fresh, visible_now = sample()
        with torch.cuda.stream(side):
            joints.copy_(fresh)
            visible.copy_(visible_now)
            graph.replay()
        side.synchronize()
        assert_matches(got, reference.gaussian_heatmaps(fresh, visible_now, **SIZES))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"joints": torch.zeros(2, 3, 2, requires_grad=True)}, ValueError, "joints: requires grad"),
        ({"joints": torch.zeros(2, 3)}, ValueError, r"joints: expected \(B, K, 2\)"),
        ({"visible": torch.zeros(2, 4)}, ValueError, r"visible: expected \(2, 3\)"),
        ({"visible": torch.zeros(2, 3, device="meta")}, ValueError, "visible: expected a tensor on cpu"),
        ({"sigma": -1.0}, ValueError, "sigma: expected a positive number"),
        ({"joints": [[0.0, 0.0]]}, TypeError, "joints: expected a torch.Tensor, got list"),
        ({"visible": [[1.0]]}, TypeError, "visible: expected a torch.Tensor, got list"),
        ({"heatmap_size": 12}, TypeError, r"heatmap_size: expected \(width, height\), got int"),
        ({"heatmap_size": "12"}, TypeError, r"heatmap_size: expected \(width, height\), got str"),
        ({"input_size": (48.0, 64)}, TypeError, r"input_size: expected two integers .*\(48.0, 64\)"),
        ({"input_size": (True, 64)}, TypeError, r"input_size: expected two integers .*\(True, 64\)"),
        ({"sigma": "2"}, TypeError, "sigma: expected a number of heatmap cells, got '2'"),
        ({"sigma": True}, TypeError, "sigma: expected a number of heatmap cells, got True"),
    ],
    ids=["grad", "joints", "visible", "device", "sigma", "joints-list", "visible-list", "size-int",
         "size-str", "size-float", "size-bool", "sigma-str", "sigma-bool"],
)  # fmt: skip
def test_rejects(change, error, message):
    arguments = {"joints": torch.zeros(2, 3, 2), "visible": torch.ones(2, 3), **SIZES, **change}
    with pytest.raises(error, match=message):
        gaussian_heatmaps(**arguments)
