"""The Triton warp: bit for bit the reference in the interpreter, and its code for three GPU generations."""

import math

import pytest
import torch
from interpreter import run_interpreted
from launches import recorded
from resources import CAPABILITIES, compile_for
from warp_cases import DTYPES, FORMS, case, check_equal

triton = pytest.importorskip("triton")

SCRIPT = """
from fastpose.backend import use_backend
from fastpose.ops import warp_crops
with use_backend("triton"):
    outputs = {name: warp_crops(**made) for name, made in inputs.items()}
"""
F32, BF16 = torch.float32, torch.bfloat16
LENGTHS = {"numel": "i64", "pad_width": "i32", "pad_height": "i32"}


def make_cases() -> dict[str, dict]:
    torch.manual_seed(42)
    made = {f"{form}-{mode}": case(form, mode) for form in FORMS for mode in ("opencv", "bilinear")}
    for dtype in DTYPES:
        made[f"{dtype}"] = case("parts", "opencv", dtype)
        made[f"{dtype}-colour"] = case("colour", "bilinear", dtype)
    return made


CASES = tuple(make_cases())


@pytest.fixture(scope="module")
def cases():
    return make_cases()


@pytest.fixture(scope="module")
def interpreted(cases, tmp_path_factory):
    return run_interpreted(SCRIPT, cases, tmp_path_factory.mktemp("warp"))


@pytest.mark.parametrize("name", CASES)
def test_is_the_reference_bit_for_bit(cases, interpreted, name):
    check_equal(interpreted[name], cases[name])


def compiled(monkeypatch, capability, form, mode, dtype, size=(192, 256)):
    """What the launcher's own launch takes."""
    import fastpose.kernels.warp as kernels

    from fastpose.ops.warp import _warp_triton

    # Inside `triton.compile` stands what the launch passes besides warps.
    whole = triton.compile
    monkeypatch.setattr(
        triton,
        "compile",
        lambda source, target, options: whole(
            source, target=target, options={**options, "enable_fp_fusion": False}
        ),
    )
    made = case(form, mode, dtype)
    names = ("images", "matrices", "sizes", "offsets", "origins", "flip", "gain", "shift")
    tensors = [made[name].to("meta") if name in made else None for name in names]
    normalise = [made["mean"], made["std"]]
    with recorded(kernels) as jobs:
        _warp_triton(*tensors, size, *normalise, dtype, mode == "opencv", True)
    (job,) = jobs
    for name, kind in LENGTHS.items():
        job["constants"].pop(name, None)
        job["signature"][name] = kind
    order = kernels.warp_fwd_kernel.arg_names
    job["signature"] = {name: job["signature"][name] for name in order if name in job["signature"]}
    job["aligned"] = [path for path in job["aligned"] if path[0] not in LENGTHS]
    variant = f"{form} {mode} {str(dtype).removeprefix('torch.')}"
    return compile_for(capability=capability, variant=variant, **job)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("form", "mode", "dtype"),
    [("parts", "opencv", BF16), ("parts", "bilinear", BF16), ("parts", "opencv", F32),
     ("padded", "opencv", torch.float16), ("colour", "opencv", torch.uint8), ("colour", "bilinear", BF16),
     ("float32-matrices", "opencv", BF16)],
    ids=["parts", "bilinear", "float32", "padded-float16", "colour-uint8", "colour-bilinear", "matrices"],
)  # fmt: skip
def test_compiles_without_spills(monkeypatch, form, mode, dtype, capability):
    used = compiled(monkeypatch, capability, form, mode, dtype)
    assert used.spills == used.shared == 0
    assert used.registers <= 128  # four blocks of 128 threads on every multiprocessor
    assert "fma" not in used.ptx  # which would round once where the reference rounds twice
    assert used.ptx.count("div.rn.f64") == 1  # once a program


def test_the_launch_forbids_fused_multiply_adds(monkeypatch):
    import fastpose.kernels.warp as kernels

    from fastpose.ops.warp import _warp_triton

    passed = {}

    class Kernel:
        def __getitem__(self, grid):
            passed["grid"] = grid
            return lambda *arguments, **options: passed.update(options)

    monkeypatch.setattr(kernels, "warp_fwd_kernel", Kernel())
    made = case("padded")
    _warp_triton(
        made["images"], made["matrices"], *[None] * 6, (193, 250), made["mean"], made["std"], F32, True, False
    )
    assert passed["enable_fp_fusion"] is False
    tiles = math.ceil(193 / kernels.COLUMNS) * math.ceil(250 / kernels.ROWS)
    assert passed["grid"] == (len(made["matrices"]) * tiles,)


def test_sizes_of_the_buffer_are_not_compiled_in():
    """A kernel for each length would be compiled again and again, and within a captured graph not at all."""
    import fastpose.kernels.warp as kernels

    if not hasattr(kernels.warp_fwd_kernel, "params"):
        pytest.skip("TRITON_INTERPRET=1: nothing is compiled")
    by_name = {parameter.name: parameter for parameter in kernels.warp_fwd_kernel.params}
    assert {name: by_name[name].annotation_type for name in LENGTHS} == LENGTHS
    assert all(by_name[name].do_not_specialize for name in LENGTHS)
