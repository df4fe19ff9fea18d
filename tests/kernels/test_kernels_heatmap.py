"""The Triton heatmap kernel: its arithmetic in the interpreter, its code for three GPU generations."""

import numpy as np
import pytest
import torch
from interpreter import run_interpreted
from resources import CAPABILITIES, compile_for
from tolerances import TOLERANCES

from fastpose.reference.heatmap import gaussian_heatmaps

pytest.importorskip("triton")

SCRIPT = """
from fastpose.kernels.heatmap import launch_gaussian_heatmaps
outputs = {name: launch_gaussian_heatmaps(*case) for name, case in inputs.items()}
"""
EDGES = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 2.0**31, -(2.0**63), 5e-324, -0.0,
         -34.0, -33.9, -30.0, -29.9, -2.1, 1.9999999, 2.0, 21.7, 61.9, 62.0, 87.9, 88.0]  # fmt: skip

SIGMAS = [f"sigma-{sigma}" for sigma in (1e-300, 1e-20, 1e-6, 1e6, 1e20, 1e300)]
UNBIASED = ("256x192", "edges-torch.float32", "edges-torch.float64", "odd-size", "one-cell", *SIGMAS)


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
    far = torch.tensor([[[21.0, 30.0], [-4e15, 8.0], [3e17, 40.0]]], dtype=torch.float64)
    for name in SIGMAS:
        sigma = float(name.removeprefix("sigma-"))
        cases[name] = far, torch.ones(1, 3), (12, 16), (48, 64), sigma
    for name in UNBIASED:
        cases[f"unbiased-{name}"] = *cases[name], True
    return cases


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("heatmap"))


@pytest.mark.parametrize(
    "name",
    ["256x192", "384x288", "256x256", "edges-torch.float32", "edges-torch.float64", "odd-size", "one-cell",
     "strided", "empty", *SIGMAS, *(f"unbiased-{name}" for name in UNBIASED)],
)  # fmt: skip
def test_matches_reference(cases, interpreted, name):
    joints, visible, heatmap_size, input_size, sigma, *unbiased = cases[name]
    heatmaps, weight = interpreted[name]
    expected, expected_weight = gaussian_heatmaps(
        joints,
        visible,
        heatmap_size=heatmap_size,
        input_size=input_size,
        sigma=sigma,
        unbiased=bool(unbiased),
    )
    if "unbiased" not in name:  # whose tails run out of float32 one cell sooner or later
        assert torch.equal(heatmaps > 0, expected > 0)
    atol, rtol = TOLERANCES["heatmap", "triton"]
    torch.testing.assert_close(heatmaps, expected, atol=atol, rtol=rtol)
    assert torch.equal(weight, expected_weight)


@pytest.mark.parametrize("name", SIGMAS)
def test_any_sigma_has_its_peak(interpreted, name):
    """The peak is 1 and nothing is NaN; a wide Gaussian is 1 all over, and far joints still reach the map."""
    (heatmaps, _), wide = interpreted[name], float(name.removeprefix("sigma-")) > 1
    assert heatmaps[0, 0, 8, 5] == 1
    assert not heatmaps.isnan().any()
    assert heatmaps[0, 0].sum() == pytest.approx(12 * 16 if wide else 1)
    assert heatmaps[0, 1].any() == (wide and name != "sigma-1000000.0")


@pytest.mark.parametrize("name", ["256x192", "384x288", "256x256"])
def test_matches_golden(golden_functions, interpreted, name):
    heatmaps, weight = interpreted[name]
    expected = golden_functions[f"target_{name}_heatmaps"][:5]
    np.testing.assert_array_equal(heatmaps > 0, expected > 0)
    np.testing.assert_allclose(heatmaps, expected, atol=TOLERANCES["heatmap", "triton"][0], rtol=0)
    np.testing.assert_array_equal(weight, golden_functions[f"target_{name}_weight"][:5, :, 0])


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("joint_type", ["fp32", "fp64"])
def test_compiles_without_spills(joint_type, unbiased, capability):
    from fastpose.kernels.heatmap import BLOCK, NUM_WARPS, heatmap_fwd_kernel

    pointers = {
        "p_joints": f"*{joint_type}",
        "p_visible": "*fp32",
        "p_heatmaps": "*fp32",
        "p_weight": "*fp32",
    }
    constants = {
        "WIDTH": 48, "HEIGHT": 64, "INPUT_WIDTH": 192, "INPUT_HEIGHT": 256, "REACH": 6,
        "UNBIASED": unbiased, "BLOCK": BLOCK,
    }  # fmt: skip
    signature = pointers | {"falloff": "fp32"}
    used = compile_for(
        heatmap_fwd_kernel,
        capability,
        signature,
        constants,
        num_warps=NUM_WARPS,
        variant=f"{joint_type} unbiased" if unbiased else joint_type,
    )
    assert used.ptx.count("st.global.v4") == BLOCK // (32 * NUM_WARPS * 4)  # 16 bytes a store
    assert used.spills == used.shared == 0
    assert used.registers <= 32  # full occupancy: 65536 registers for 2048 threads
