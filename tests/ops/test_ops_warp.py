"""fastpose.ops.warp_crops: dispatch, registration, compilation and what it refuses."""

import pytest
import torch
from interpreter import run_interpreted
from warp_cases import DTYPES, FORMS, case, check_equal, to

from fastpose import backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import warp_crops
from fastpose.reference.warp import warp_crops as reference

MODES = ("opencv", "bilinear")
NAMES = ("images", "matrices", "sizes", "offsets", "origins", "flip", "gain", "shift")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def positional(made):
    """The arguments of the registered operation."""
    tensors = [made.get(name) for name in NAMES]
    options = made["mode"] == "opencv", made.get("reverse_channels", False)
    return (*tensors, made["output_size"], list(made["mean"]), list(made["std"]), made["dtype"], *options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["auto", "reference"])
def test_is_the_reference_on_a_cpu(name, form):
    made = case(form)
    with backend.use_backend(name):
        check_equal(warp_crops(**made), made)


def test_defaults_are_parts_of_255_in_float32():
    made = case("padded")
    got = warp_crops(made["images"], made["matrices"], output_size=(41, 19))
    expected = reference(
        made["images"], made["matrices"], output_size=(41, 19), dtype=torch.uint8, mode="opencv"
    )
    torch.testing.assert_close(got, (expected / 255).permute(0, 3, 1, 2), atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["padded", "parts", "colour"])
def test_opcheck(form, dtype):
    mode = "bilinear" if form == "colour" else "opencv"
    torch.library.opcheck(torch.ops.fastpose.warp_crops.default, positional(case(form, mode, dtype)))


@pytest.mark.parametrize("form", ["padded", "parts", "colour"])
def test_compiles_whole(form):
    made = case(form)
    check_equal(torch.compile(warp_crops, fullgraph=True, backend="aot_eager")(**made), made)


def test_triton_by_name_never_falls_back(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "_current", "triton")
    with pytest.raises(BackendUnavailableError, match="triton: warp_crops: images are on cpu"):
        warp_crops(**case("padded"))


def test_triton_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    body = """
from fastpose.backend import use_backend
from fastpose.ops import warp_crops
import fastpose.kernels.warp as kernels
compiled = torch.compile(warp_crops, fullgraph=True, backend="aot_eager")
launches = []
launch = kernels.launch_warp_crops
kernels.launch_warp_crops = lambda *arguments: launches.append(1) or launch(*arguments)
with use_backend("triton"):
    outputs = [run(**inputs) for run in (warp_crops, compiled)]
    empty = {"images": torch.zeros(0, 4, 4, 3, dtype=torch.uint8), "matrices": torch.zeros(0, 2, 3)}
    outputs.append(warp_crops(**empty, output_size=(8, 12)))
assert len(launches) == 3, launches
"""
    made = case("parts")
    eager, compiled, empty = run_interpreted(body, made, tmp_path)
    check_equal(eager, made)
    check_equal(compiled, made)
    assert empty.shape == (0, 3, 12, 8)


def on_gpu(made):
    return {name: to(value, "cuda") for name, value in made.items()}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_cuda_is_the_reference_bit_for_bit(form, mode):
    made = case(form, mode)
    for run in (warp_crops, torch.compile(warp_crops, fullgraph=True)):
        check_equal(run(**on_gpu(made)), made)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["parts", "colour"])
def test_cuda_dtypes(form, dtype):
    made = case(form, "bilinear", dtype)
    check_equal(warp_crops(**on_gpu(made)), made)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("size", [(192, 256), (288, 384)], ids=str)
def test_cuda_is_cv2_at_full_size(size):
    import cv2

    made = case("padded") | {"images": torch.randint(0, 256, (3, 480, 640, 3), dtype=torch.uint8)}
    made |= {"output_size": size, "dtype": torch.uint8}
    got = warp_crops(**on_gpu(made)).cpu()
    for crop, image, matrix in zip(got, made["images"], made["matrices"], strict=True):
        expected = cv2.warpAffine(image.numpy(), matrix.numpy(), size, flags=cv2.INTER_LINEAR)
        assert torch.equal(crop, torch.from_numpy(expected))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("form", ["parts", "colour", "padded-sizes"])
def test_cuda_graph_replays_with_other_inputs_on_a_side_stream(form):
    made = case(form)
    static = on_gpu(made)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        warp_crops(**static)  # compiles the kernel, which must not happen in capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        got = warp_crops(**static)
    changed = {name: value.flip(0) if torch.is_tensor(value) else value for name, value in made.items()}
    for name, value in changed.items():
        if torch.is_tensor(value):
            static[name].copy_(value)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        graph.replay()
    torch.cuda.synchronize()
    check_equal(got, changed)


FLAT = {"images": torch.zeros(300, dtype=torch.uint8), "sizes": torch.ones(2, 2, dtype=torch.int32)}
STARTS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [1]}, TypeError, "images: expected a torch.Tensor, got list"),
        ({"images": torch.zeros(2, 4, 4, 3)}, TypeError, "images: expected uint8, got torch.float32"),
        ({"images": torch.zeros(2, 4, 4, 1, dtype=torch.uint8)}, ValueError, r"images: expected \(N,\) or"),
        (FLAT, ValueError, "sizes, offsets: a flat images needs both"),
        ({"offsets": STARTS}, ValueError, "offsets: only for a flat"),
        (FLAT | {"offsets": STARTS[:1]}, ValueError, r"offsets: expected shape \(2,\), got \(1,\)"),
        (FLAT | {"offsets": STARTS.float()}, TypeError, "offsets: expected int32, int64, got torch.float32"),
        ({"matrices": torch.zeros(3, 2, 3)}, ValueError, r"matrices: expected shape \(2, 2, 3\)"),
        ({"matrices": torch.zeros(2, 3)}, ValueError, "matrices: expected 3 dimensions"),
        ({"matrices": torch.zeros(2, 2, 3).half()}, TypeError, "matrices: expected float32 or float64"),
        ({"matrices": torch.zeros(2, 2, 3, requires_grad=True)}, ValueError, "matrices: requires grad"),
        ({"matrices": torch.zeros(2, 2, 3, device="meta")}, ValueError, "matrices: expected a tensor on cpu"),
        ({"origins": torch.zeros(2, 2)}, TypeError, "origins: expected int32, int64, got torch.float32"),
        ({"flip": STARTS}, TypeError, "flip: expected bool, got torch.int64"),
        ({"flip": True}, TypeError, "flip: expected a torch.Tensor, got bool"),
        ({"gain": torch.ones(2, 3)}, ValueError, "gain, shift: expected both or neither"),
        ({"gain": torch.ones(2, 3), "shift": torch.ones(2)}, ValueError, r"shift: expected shape \(2, 3\)"),
        ({"output_size": (8, 32767)}, ValueError, r"output_size: expected \(width, height\) from 1 to 32766"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean: expected three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, ValueError, "std: expected three positive numbers"),
        ({"dtype": torch.float64}, ValueError, "dtype: expected float32, bfloat16, float16 or uint8"),
        ({"mode": "cubic"}, ValueError, "mode: expected 'opencv' or 'bilinear', got 'cubic'"),
    ],
)
def test_rejects(change, error, message):
    arguments = {
        "images": torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        "matrices": torch.zeros(2, 2, 3),
        "output_size": (8, 8),
    }
    warp_crops(**arguments)
    with pytest.raises(error, match=message):
        warp_crops(**arguments | change)
