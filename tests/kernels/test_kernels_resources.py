"""The kernel report tells the truth: spills, shared memory, tuple arguments and the table."""

import kernel_report
import pytest
from resources import CAPABILITIES, compile_for, compile_many

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
TYPES = {"p_x": "*fp32", "p_y": "*fp32"}


@triton.jit
def scale_fwd_kernel(p_x, p_y, BLOCK: tl.constexpr):
    o_x = tl.arange(0, BLOCK)
    b_x = tl.load(p_x + o_x)  # [BLOCK], alive until the sum is known
    tl.store(p_y + o_x, b_x / tl.sum(b_x, 0))


@triton.jit
def gather_fwd_kernel(p_inputs, strides, p_y, BLOCK: tl.constexpr):
    o_x = tl.arange(0, BLOCK)
    b_y = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(len(p_inputs)):
        b_y += tl.load(p_inputs[i] + o_x * strides[i]).to(tl.float32)
    tl.store(p_y + o_x, b_y)


@pytest.fixture(autouse=True)
def _own_report(monkeypatch):
    monkeypatch.setattr(kernel_report, "records", {})


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_tells_a_spilling_kernel_from_one_that_fits(capability):
    job = {"kernel": scale_fwd_kernel, "capability": capability, "signature": TYPES}
    small = job | {"constants": {"BLOCK": 1024}, "num_warps": 4}
    large = job | {"constants": {"BLOCK": 16384}, "num_warps": 1}
    fits, spills = compile_many([small, large])
    assert fits.spills == 0 < fits.registers < 40
    assert fits.shared == 4 * 4  # one float a warp for the sum
    assert spills.spills > 4 * (16384 // 32 - 255)  # more floats a thread than it has registers
    assert f".target sm_{capability}" in fits.ptx


@pytest.mark.parametrize(
    ("strides", "constants"),
    [
        (("i32", "i32"), {}),
        (("i32", "constexpr"), {("strides", 1): 1}),
        (("constexpr", "constexpr"), {("strides", 0): 1, ("strides", 1): 1}),
    ],
    ids=["variable", "mixed", "constant"],
)
def test_takes_tuple_arguments(strides, constants):
    signature = {"p_inputs": ("*bf16", "*fp32"), "strides": strides, "p_y": "*fp32"}
    used = compile_for(gather_fwd_kernel, 90, signature, {"BLOCK": 1024} | constants)
    loads = [2 * (strides[1] == "constexpr"), strides[0] == "constexpr"]  # of 4 floats, of 8 bfloat16
    assert used.ptx.count("ld.global.v4") == sum(loads)  # only where the stride is known to be 1


@pytest.mark.parametrize(("aligned", "vector"), [(None, True), ((), False), (["p_x"], False)])
def test_alignment_is_told_to_the_compiler(aligned, vector):
    used = compile_for(scale_fwd_kernel, 90, TYPES, {"BLOCK": 1024}, aligned=aligned)
    assert ("st.global.v4" in used.ptx) == vector
    assert ("ld.global.v4" in used.ptx) == (aligned != ())


@pytest.mark.parametrize(
    ("signature", "constants", "named"),
    [
        (TYPES, {}, "BLOCK"),
        (TYPES | {"p_z": "*fp32"}, {"BLOCK": 64}, "p_z"),
        (TYPES, {"BLOCK": 64, "p_x": 0}, "p_x"),
    ],
    ids=["missing", "unknown", "twice"],
)
def test_wrong_arguments_are_named(signature, constants, named):
    with pytest.raises(ValueError, match=f"scale_fwd_kernel: {named}: give each of p_x, p_y, BLOCK once"):
        compile_for(scale_fwd_kernel, 90, signature, constants)


def test_report_is_one_aligned_line_a_variant():
    assert kernel_report.report_lines() == []
    compile_for(scale_fwd_kernel, 90, TYPES, {"BLOCK": 64}, variant="small")
    for _ in range(2):
        kernel_report.record_resources("decode", 80, 40, 0, 1024)
    kernel_report.record_resources("decode", 80, 41, 0, 1024)
    heading, decode, scale = kernel_report.report_lines()
    assert heading.split() == ["kernel", "sm_80", "sm_90"]
    assert decode.split() == ["decode", "40/0/1024", "41/0/1024", "-"]
    assert scale.split()[:3] == ["scale_fwd_kernel", "small", "-"]
    assert heading.index("sm_90") == decode.index("-") == scale.rindex(" ") + 1


def test_report_holds_what_another_process_recorded():
    kernel_report.record_resources("decode", 80, 40, 0, 1024)
    kernel_report.add_records({"decode": {80: ["40/0/1024", "41/0/1024"], 90: ["38/0/1024"]}})
    _, decode = kernel_report.report_lines()
    assert decode.split() == ["decode", "40/0/1024", "41/0/1024", "38/0/1024"]
