"""The Triton heatmap kernel: its arithmetic in the interpreter, its code for three GPU generations."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from interpreter import run_interpreted
from tolerances import TOLERANCES

from fastpose.reference.heatmap import gaussian_heatmaps

triton = pytest.importorskip("triton")

SCRIPT = """
from fastpose.kernels.heatmap import launch_gaussian_heatmaps
outputs = {name: launch_gaussian_heatmaps(*case) for name, case in inputs.items()}
"""
EDGES = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 2.0**31, -(2.0**63), 5e-324, -0.0,
         -34.0, -33.9, -30.0, -29.9, -2.1, 1.9999999, 2.0, 21.7, 61.9, 62.0, 87.9, 88.0]  # fmt: skip


def edge_joints(dtype: torch.dtype) -> torch.Tensor:
    """Every edge value as x with an ordinary y, then as y with an ordinary x."""
    values = torch.tensor(EDGES, dtype=torch.float64).to(dtype)
    ordinary = torch.full_like(values, 20.0)
    return torch.stack([torch.stack([values, ordinary], -1), torch.stack([ordinary, values], -1)])


@pytest.fixture(scope="module")
def cases(golden_functions):
    """name -> the launcher's arguments."""
    cases = {}
    for name, sigma in (("256x192", 2.0), ("384x288", 3.0), ("256x256", 2.0)):
        height, width = map(int, name.split("x"))
        joints = torch.from_numpy(golden_functions[f"target_{name}_joints"])[:5]
        visible = torch.from_numpy(golden_functions[f"target_{name}_visible"])[:5]
        cases[name] = joints, visible, (width // 4, height // 4), (width, height), sigma
    for dtype in (torch.float32, torch.float64):
        joints = edge_joints(dtype)
        cases[f"edges-{dtype}"] = joints, torch.ones(joints.shape[:2]), (16, 22), (64, 88), 2.0
    odd = torch.rand(2, 3, 2) * 60
    cases["odd-size"] = odd, torch.tensor([[0.0, 0.5, 0.6], [1.0, 0.0, 1.0]]), (13, 7), (100, 40), 1.3
    cases["one-cell"] = odd / 60, torch.ones(2, 3, dtype=torch.bool), (1, 1), (1, 1), 0.2
    cases["strided"] = odd.transpose(0, 1), torch.ones(2, 3, dtype=torch.int64).T, (12, 16), (48, 64), 1.0
    cases["empty"] = odd[:0], torch.ones(0, 3), (12, 16), (48, 64), 2.0
    return cases


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("heatmap"))


@pytest.mark.parametrize(
    "name",
    ["256x192", "384x288", "256x256", "edges-torch.float32", "edges-torch.float64", "odd-size", "one-cell",
     "strided", "empty"],
)  # fmt: skip
def test_matches_reference(cases, interpreted, name):
    joints, visible, heatmap_size, input_size, sigma = cases[name]
    heatmaps, weight = interpreted[name]
    expected, expected_weight = gaussian_heatmaps(
        joints, visible, heatmap_size=heatmap_size, input_size=input_size, sigma=sigma
    )
    assert torch.equal(heatmaps > 0, expected > 0)
    atol, rtol = TOLERANCES["heatmap", "triton"]
    torch.testing.assert_close(heatmaps, expected, atol=atol, rtol=rtol)
    assert torch.equal(weight, expected_weight)


@pytest.mark.parametrize("name", ["256x192", "384x288", "256x256"])
def test_matches_golden(golden_functions, interpreted, name):
    heatmaps, weight = interpreted[name]
    expected = golden_functions[f"target_{name}_heatmaps"][:5]
    np.testing.assert_array_equal(heatmaps > 0, expected > 0)
    np.testing.assert_allclose(heatmaps, expected, atol=TOLERANCES["heatmap", "triton"][0], rtol=0)
    np.testing.assert_array_equal(weight, golden_functions[f"target_{name}_weight"][:5, :, 0])


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("joint_type", ["fp32", "fp64"])
def test_compiles_without_spills(tmp_path, joint_type, capability):
    from fastpose.kernels.heatmap import BLOCK, NUM_WARPS, heatmap_fwd_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = heatmap_fwd_kernel.arg_names
    pointers = {"p_joints": joint_type, "p_visible": "fp32", "p_heatmaps": "fp32", "p_weight": "fp32"}
    signature = dict.fromkeys(names, "constexpr")
    signature |= {name: f"*{kind}" for name, kind in pointers.items()} | {"sigma": "fp32"}
    constants = {
        "WIDTH": 48, "HEIGHT": 64, "INPUT_WIDTH": 192, "INPUT_HEIGHT": 256, "RADIUS": 6, "BLOCK": BLOCK,
    }  # fmt: skip
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(heatmap_fwd_kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": NUM_WARPS}
    )
    assert compiled.asm["ptx"].count("st.global.v4") == BLOCK // (32 * NUM_WARPS * 4)  # 16 bytes a store
    usage = resource_usage(compiled.asm["cubin"], tmp_path / "kernel.cubin")
    assert usage["STACK"] == usage["LOCAL"] == usage["SHARED"] == 0
    assert usage["REG"] <= 32  # full occupancy: 65536 registers for 2048 threads


def resource_usage(cubin: bytes, path: Path) -> dict[str, int]:
    """REG, STACK, SHARED, LOCAL of the kernel; a spill shows as STACK or LOCAL."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton comes without cuobjdump")
    path.write_bytes(cubin)
    done = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    fields = (field.split(":") for field in done.stdout.splitlines()[-1].split() if "[" not in field)
    return {name: int(value) for name, value in fields}
