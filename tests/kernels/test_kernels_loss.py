"""The Triton loss kernels: errors measured from float64 in the interpreter, their code for three GPUs."""

import itertools

import pytest
import torch
from interpreter import run_interpreted
from loss_truth import distance, loss_truth
from resources import CAPABILITIES, compile_for, compile_many
from tolerances import TOLERANCES

from fastpose.reference.loss import hardest_joints, heatmap_loss

triton = pytest.importorskip("triton")

SCRIPT = """
from fastpose.kernels.loss import (
    Target, launch_heatmap_loss_bwd, launch_heatmap_loss_fwd, launch_heatmap_loss_grad)
outputs = {}
for name, (tensors, scale, target, topk) in inputs.items():
    target = Target(**target)
    loss, kept = launch_heatmap_loss_fwd(*tensors, target, topk)
    grad = launch_heatmap_loss_bwd(scale, *tensors, None if topk is None else kept, target, topk)
    once, grad_once = launch_heatmap_loss_grad(*tensors, scale, target, topk)
    outputs[name] = {"loss": loss, "kept": kept, "grad": grad, "once": once, "grad_once": grad_once}
"""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EDGES = [
    float("nan"),
    float("inf"),
    1e30,
    -1e30,
    -(2.0**63),
    -0.0,
    -33.9,
    -32.0,
    -30.0,
    -2.1,
    2.0,
    61.9,
    87.9,
    88.0,
]
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def case(
    size, *, count=5, batch=2, stride=(4.0, 4.0), sigma=2.0, unbiased=False, topk=None, scale=3.0, **change
):
    """The launchers' arguments for maps of `size` (width, height); joints also outside or of no weight."""
    input_size = round(size[0] * stride[0]), round(size[1] * stride[1])
    joints = (torch.rand(batch, count, 2) * 1.6 - 0.3) * torch.tensor(input_size)
    weight = torch.rand(batch, count) * 2 - 0.3
    pred = torch.randn(batch, count, size[1], size[0]) * 0.3
    tensors = {"pred": pred, "joints": joints, "weight": weight, **change}
    target = {"input_size": input_size, "sigma": sigma, "unbiased": unbiased}
    return tuple(tensors.values()), None if scale is None else torch.tensor(scale), target, topk


def build_cases():
    cases = {}
    for (name, dtype), (layout, memory), topk in itertools.product(
        DTYPES.items(), LAYOUTS.items(), [None, 2]
    ):
        pred = (torch.randn(2, 5, 16, 12) * 0.3).to(dtype, memory_format=memory)
        unbiased = layout == "nchw" if topk else layout != "nchw"
        key = f"{name}-{layout}-{'ohkm' if topk else 'mse'}"
        cases[key] = case((12, 16), pred=pred, topk=topk, unbiased=unbiased)
    cases["64x48"] = case((48, 64), batch=1)
    cases["odd-size"] = case((13, 7), stride=(7.7, 40 / 7), sigma=1.3, topk=1)
    cases["wide"] = case((150, 3), unbiased=True, scale=None)
    cases["tall"] = case((4, 300), sigma=3.0, topk=4)
    many = torch.randn(1, 133, 6, 8).to(memory_format=torch.channels_last)
    cases["133-joints"] = case((8, 6), count=133, batch=1, pred=many, topk=20, unbiased=True)
    for sigma in (1e-150, 1e-20, 1e20):
        for unbiased in (False, True):
            cells = torch.tensor([[[20.0, 28.0], [0.0, 60.0], [44.0, 4.0]]])
            cases[f"sigma-{sigma}-{unbiased}"] = case(
                (12, 16),
                count=3,
                batch=1,
                joints=cells,
                weight=torch.ones(1, 3),
                sigma=sigma,
                unbiased=unbiased,
            )
    values = torch.tensor(EDGES, dtype=torch.float64)
    ordinary = torch.full_like(values, 20.0)
    edges = torch.stack([torch.stack([values, ordinary], -1), torch.stack([ordinary, values], -1)])
    for unbiased in (False, True):
        ones = torch.ones(2, len(EDGES))
        cases[f"edges-{unbiased}"] = case(
            (16, 22), count=len(EDGES), joints=edges, weight=ones, unbiased=unbiased
        )
    big = torch.randn(3, 9, 14, 40)
    cases["sliced"] = case((19, 7), pred=big[1:, 2:7, ::2, 1:39:2])
    cases["expanded"] = case((12, 16), pred=torch.randn(1, 5, 1, 12).expand(2, 5, 16, 12), topk=3)
    same = torch.full((2, 5, 2), 21.0), torch.ones(2, 5)
    cases["ties"] = case((12, 16), pred=torch.zeros(2, 5, 16, 12), joints=same[0], weight=same[1], topk=3)
    cases["empty"] = case((12, 16), batch=0)
    cases["empty-ohkm"] = case((12, 16), batch=0, topk=2)
    for topk in (None, 2):
        pred = torch.randn(2, 5, 16, 12)
        pred[1, 3, 2, 1] = torch.nan
        cases[f"nan-{topk}"] = case((12, 16), pred=pred, topk=topk)
    return cases


NAMES = list(build_cases())
SPECIAL = ("empty", "nan", "ties")


@pytest.fixture(scope="module")
def cases():
    torch.manual_seed(3)
    return build_cases()


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("loss"))


def eager(tensors, scale, target, topk):
    """Loss and gradient by autograd through the reference."""
    pred = tensors[0].clone().requires_grad_()
    loss = heatmap_loss(pred, *tensors[1:], **target, topk=topk)
    loss.backward(scale)
    return loss.detach(), pred.grad


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(SPECIAL)])
def test_errors_are_those_of_the_eager_loss(cases, interpreted, name):
    tensors, scale, target, topk = cases[name]
    got = interpreted[name]
    value, gradient = loss_truth(*tensors, **target, topk=topk, scale=1.0 if scale is None else scale.item())
    eager_value, eager_gradient = eager(*cases[name])
    least, factor = TOLERANCES["loss", "float64"]
    assert abs(got["loss"].item() - value) <= value * least + factor * abs(eager_value.item() - value)
    if tensors[0].dtype == torch.bfloat16:
        factor *= 2  # the interpreter cuts the last 16 bits off where a GPU rounds to nearest
    assert distance(got["grad"], gradient) <= least + factor * distance(eager_gradient, gradient)
    assert distance(got["grad"], gradient) <= (1e-5 if tensors[0].dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_the_bits_of_two(interpreted, name):
    got = interpreted[name]
    torch.testing.assert_close(got["once"], got["loss"], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(got["grad_once"], got["grad"], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_has_dtype_and_layout_of_pred(cases, interpreted, name):
    pred = cases[name][0][0]
    assert interpreted[name]["grad"].dtype == pred.dtype
    assert interpreted[name]["grad"].stride() == torch.empty_like(pred).stride()


@pytest.mark.parametrize("name", [name for name in NAMES if build_cases()[name][3] and name != "empty-ohkm"])
def test_keeps_the_joints_of_the_reference(cases, interpreted, name):
    tensors, _, target, topk = cases[name]
    assert torch.equal(interpreted[name]["kept"], hardest_joints(*tensors, **target, topk=topk))


def test_ties_go_to_the_lowest_joints(interpreted):
    assert interpreted["ties"]["kept"].tolist() == [[1, 1, 1, 0, 0]] * 2
    touched = interpreted["ties"]["grad"].flatten(2).abs().sum(-1) > 0
    assert touched.tolist() == [[True, True, True, False, False]] * 2


@pytest.mark.parametrize("name", ["empty", "empty-ohkm"])
def test_empty_batch_is_nan(cases, interpreted, name):
    assert interpreted[name]["loss"].isnan()
    assert interpreted[name]["grad"].shape == cases[name][0][0].shape
    assert heatmap_loss(*cases[name][0], **cases[name][2], topk=cases[name][3]).isnan()


@pytest.mark.parametrize("topk", [None, 2])
def test_nan_is_not_hidden(interpreted, topk):
    got = interpreted[f"nan-{topk}"]
    assert got["loss"].isnan()
    assert got["grad"].isnan().nonzero().tolist() == [[1, 3, 2, 1]]
    if topk:
        assert got["kept"][1, 3] == 1


def compile_job(dtype, mode, layout, capability):
    """Arguments of `compile_for` as a launch on 17 maps of 64 x 48 would specialise the kernel."""
    from fastpose.kernels import loss as kernels

    pred = torch.empty(64, 17, 64, 48, device="meta").to(memory_format=LAYOUTS[layout])
    signature = {
        "p_pred": f"*{dtype}",
        "p_joints": "*fp32",
        "p_weight": "*fp32",
        "falloff": "fp32",
        "share": "fp32",
    }
    constants = {
        "COUNT": 17, "WIDTH": 48, "HEIGHT": 64, "INPUT_WIDTH": 192, "INPUT_HEIGHT": 256, "REACH": 6,
        "UNBIASED": False, **kernels.tile(pred),
    }  # fmt: skip
    optional = {"p_kept": None, "p_scale": None, "p_partial": None, "p_grad": None}
    if mode != "mse":
        optional |= {"p_grad": f"*{dtype}", "p_scale": "*fp32"}
    if mode != "grad":
        optional["p_partial"] = "*fp32"
    if mode == "ohkm-grad":
        optional |= {"p_kept": "*fp32", "p_partial": None}
    strides = {
        f"{prefix}{axis}": stride
        for prefix in ("s_", "s_grad_")
        for axis, stride in zip(("batch", "joint", "row", "col"), pred.stride(), strict=True)
    }
    for name, value in optional.items():
        (constants if value is None else signature)[name] = value
    for name, value in strides.items():
        (constants if value == 1 else signature)[name] = 1 if value == 1 else "i32"
    aligned = [name for name in signature if name.startswith("p_") or strides.get(name, 1) % 16 == 0]
    return {
        "kernel": kernels.heatmap_loss_kernel, "capability": capability, "signature": signature,
        "constants": constants, "aligned": aligned, "num_warps": kernels.NUM_WARPS,
        "variant": f"{layout} {dtype} {mode}",
    }  # fmt: skip


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiles_without_spills(layout, capability):
    kinds = list(itertools.product(DTYPES, ["mse", "grad", "fused", "ohkm-grad"]))
    found = compile_many([compile_job(dtype, mode, layout, capability) for dtype, mode in kinds])
    for (dtype, mode), used in zip(kinds, found, strict=True):
        assert used.spills == 0, (dtype, mode)
        assert used.registers <= 128, (dtype, mode)
        loads, stores = used.ptx.count("ld.global.v4"), used.ptx.count("st.global.v4")
        size = 4 * 1024 * (4 if dtype == "fp32" else 2) // (128 * 16)  # four tiles in loads of 16 bytes
        assert loads == (size if layout == "nchw" else 0), (dtype, mode)
        assert stores == (size if layout == "nchw" and mode != "mse" else 0), (dtype, mode)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("count", [17, 133])
def test_ohkm_compiles_without_spills(count, capability):
    from fastpose.kernels.ohkm import BLOCK, NUM_WARPS, heatmap_ohkm_kernel

    signature = {"p_partial": "*fp32", "p_kept": "*fp32", "p_loss": "*fp32", "parts": "i32", "topk": "i32"}
    constants = {"COUNT": count, "JOINTS": triton.next_power_of_2(count), "BLOCK": BLOCK}
    used = compile_for(
        heatmap_ohkm_kernel, capability, signature, constants, num_warps=NUM_WARPS, variant=f"{count}"
    )
    assert used.spills == 0
    assert used.registers <= 255
