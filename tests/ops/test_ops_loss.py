"""fastpose.ops.heatmap_loss: dispatch, registration, stacks, compilation; errors measured from float64."""

import pytest
import torch
from compile_checks import graph_breaks
from interpreter import run_interpreted
from loss_truth import distance, loss_truth
from tolerances import TOLERANCES

from fastpose import backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import heatmap_loss, heatmap_loss_and_gradient
from fastpose.reference import loss as reference

TARGET = {"input_size": (48, 64), "sigma": 2.0, "unbiased": False}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def sample(dtype=torch.float32, memory_format=torch.contiguous_format, device="cpu", count=7):
    """pred, joints and weight of maps of 16 x 12."""
    joints = torch.rand(3, count, 2) * 90 - 20
    joints[0, :3, 0] = torch.tensor([torch.nan, torch.inf, 1e30])
    weight = torch.rand(3, count) * 2 - 0.3
    pred = (torch.randn(3, count, 16, 12) * 0.3).to(dtype).to(memory_format=memory_format)
    return pred.to(device), joints.to(device), weight.to(device)


def eager(pred, joints, weight, scale=1.0, **options):
    """Loss and gradient by autograd through the reference."""
    leaf = pred.detach().clone().requires_grad_()
    loss = reference.heatmap_loss(leaf, joints, weight, **options)
    (loss * scale).backward()
    return loss.detach(), leaf.grad


def assert_close_to_truth(got, arguments, *, scale=1.0, **options):
    """Errors of (loss, gradient) are at most those that the eager loss has in the same dtype."""
    pred, joints, weight = (tensor.detach().cpu() for tensor in arguments)
    value, gradient = loss_truth(pred, joints, weight, scale=scale, **options)
    eager_loss, eager_gradient = eager(pred, joints, weight, scale, **options)
    least, factor = TOLERANCES["loss", "float64"]
    assert abs(got[0].item() - value) <= value * least + factor * abs(eager_loss.item() - value)
    assert got[1].dtype == pred.dtype
    assert distance(got[1].cpu(), gradient) <= least + factor * distance(eager_gradient, gradient)


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("topk", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradient(dtype, topk, unbiased):
    pred, joints, weight = sample(dtype)
    options = {**TARGET, "unbiased": unbiased, "topk": topk}
    leaf = pred.clone().requires_grad_()
    loss = heatmap_loss(leaf, joints, weight, **options)
    loss.backward()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert_close_to_truth((loss.detach(), leaf.grad), (pred, joints, weight), **options)
    once = heatmap_loss_and_gradient(leaf, joints, weight, **options)
    assert torch.equal(once[0], loss)
    assert_close_to_truth(once, (pred, joints, weight), **options)


def test_is_the_target_and_loss_of_the_official_code():
    pred, joints, weight = sample()
    from fastpose.reference.heatmap import gaussian_heatmaps

    target, in_map = gaussian_heatmaps(joints, (weight > 0).float(), heatmap_size=(12, 16), **TARGET)
    weighted = in_map * weight
    expected = reference.heatmap_mse(pred, target, weighted)
    assert torch.equal(heatmap_loss(pred, joints, weight, **TARGET), expected)
    for topk in range(1, 8):
        got = heatmap_loss(pred, joints, weight, topk=topk, **TARGET)
        assert torch.equal(got, reference.heatmap_ohkm(pred, target, weighted, topk))


@pytest.mark.parametrize("topk", [None, 2])
def test_losses_of_stacks_are_added(topk):
    first, joints, weight = sample()
    stacks = [first, torch.randn_like(first), torch.randn_like(first).bfloat16()]
    each = [heatmap_loss_and_gradient(one, joints, weight, topk=topk, **TARGET) for one in stacks]
    leaves = [one.clone().requires_grad_() for one in stacks]
    loss = heatmap_loss(leaves, joints, weight, topk=topk, **TARGET)
    loss.backward()
    assert torch.equal(loss, each[0][0] + each[1][0] + each[2][0])
    together, gradients = heatmap_loss_and_gradient(tuple(stacks), joints, weight, topk=topk, **TARGET)
    assert torch.equal(together, loss)
    for leaf, gradient, (_, expected) in zip(leaves, gradients, each, strict=True):
        assert torch.equal(gradient, expected)
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_is_that_of_the_gradient_alone(dtype):
    arguments = sample()
    scale = torch.tensor(8192.0, dtype=dtype)
    loss, gradient = heatmap_loss_and_gradient(*arguments, scale=scale, **TARGET)
    assert torch.equal(loss, heatmap_loss(*arguments, **TARGET))
    assert torch.equal(gradient, heatmap_loss_and_gradient(*arguments, **TARGET)[1] * 8192)


def test_scale_saves_small_float16_gradients():
    pred, joints, weight = sample(torch.float16)
    pred = pred.repeat(40, 1, 1, 1) * 1e-3  # gradients below the smallest float16
    arguments = pred, joints.repeat(40, 1, 1), weight.repeat(40, 1)
    options = {**TARGET, "scale": torch.tensor(65536.0)}
    _, gradient = heatmap_loss_and_gradient(*arguments, **options)
    assert distance(gradient, loss_truth(*arguments, **{**TARGET, "scale": 65536.0})[1]) < 2e-3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("topk", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, topk, memory_format):
    pred, joints, weight = sample(dtype, memory_format)
    target = (48, 64), 2.0, True, topk
    ops, scale = torch.ops.fastpose, torch.tensor(2.0)
    torch.library.opcheck(ops.heatmap_loss_fwd.default, (pred, joints, weight, *target))
    _, kept = ops.heatmap_loss_fwd(pred, joints, weight, *target)
    torch.library.opcheck(ops.heatmap_loss_bwd.default, (scale, pred, joints, weight, kept, *target))
    for factor in (None, scale):
        torch.library.opcheck(ops.heatmap_loss_grad.default, (pred, joints, weight, factor, *target))


@pytest.mark.parametrize("topk", [None, 3])
def test_compiles_whole(topk):
    pred, joints, weight = sample()
    options = {**TARGET, "topk": topk}
    leaf = pred.clone().requires_grad_()
    assert graph_breaks(heatmap_loss, [leaf, leaf * 2], joints, weight, **options) == 0
    assert graph_breaks(heatmap_loss_and_gradient, pred, joints, weight, **options) == 0
    compiled = torch.compile(heatmap_loss, fullgraph=True, backend="aot_eager")
    loss = compiled(leaf, joints, weight, **options)
    loss.backward()
    assert_close_to_truth((loss.detach(), leaf.grad), (pred, joints, weight), **options)


def test_triton_by_name_never_falls_back(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "_current", "triton")
    for run in (heatmap_loss, heatmap_loss_and_gradient):
        with pytest.raises(
            BackendUnavailableError, match="triton: heatmap_loss: the maps of pred are on cpu"
        ):
            run(*sample(), **TARGET)


INTERPRETED = """
import fastpose.kernels.loss as kernels
from fastpose.backend import use_backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import heatmap_loss, heatmap_loss_and_gradient
from torch._dynamo.utils import counters
arguments, target = inputs
launches = []
def count(name):
    launch = getattr(kernels, name)
    setattr(kernels, name, lambda *a: launches.append(name) or launch(*a))
for name in ("launch_heatmap_loss_fwd", "launch_heatmap_loss_bwd", "launch_heatmap_loss_grad"):
    count(name)
outputs = {}
with use_backend("triton"):
    for topk in (None, 3):
        for name in ("eager", "compiled"):
            run, once = heatmap_loss, heatmap_loss_and_gradient
            if name == "compiled":
                run = torch.compile(run, fullgraph=True, backend="aot_eager")
                once = torch.compile(once, fullgraph=True, backend="aot_eager")
            pred = arguments[0].clone().requires_grad_()
            loss = run(pred, *arguments[1:], topk=topk, **target)
            loss.backward()
            scale = torch.tensor(2.0)
            outputs[f"{name}-{topk}"] = (loss.detach(), pred.grad)
            outputs[f"once-{name}-{topk}"] = once(*arguments, topk=topk, scale=scale, **target)
    outputs["launches"] = {name: launches.count(name) for name in set(launches)}
    outputs["graph_breaks"] = sum(counters["graph_break"].values())
    pred = arguments[0].clone().requires_grad_()
    first, = torch.autograd.grad(heatmap_loss(pred, *arguments[1:], **target), pred, create_graph=True)
    refused = []
    try:
        first.sum().backward()
    except RuntimeError as error:
        refused.append(str(error))
    try:
        heatmap_loss(arguments[0].double(), *arguments[1:], **target)
    except BackendUnavailableError as error:
        refused.append(str(error))
outputs["refused"] = refused
"""


def test_triton_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    arguments = sample(memory_format=torch.channels_last)
    got = run_interpreted(INTERPRETED, (arguments, TARGET), tmp_path)
    # two topk, eager and compiled; the one-pass form with topk takes the two passes
    assert got["launches"] == {
        "launch_heatmap_loss_fwd": 4 + 2, "launch_heatmap_loss_bwd": 4 + 2, "launch_heatmap_loss_grad": 4,
    }  # fmt: skip
    assert got["graph_breaks"] == 0
    for topk in (None, 3):
        for name in ("eager", "compiled"):
            loss, gradient = got[f"{name}-{topk}"]
            assert gradient.stride() == arguments[0].stride()
            assert_close_to_truth((loss, gradient), arguments, topk=topk, **TARGET)
            assert_close_to_truth(got[f"once-{name}-{topk}"], arguments, scale=2.0, topk=topk, **TARGET)
            assert torch.equal(got[f"once-{name}-{topk}"][1], gradient * 2)
    assert "does not require grad" in got["refused"][0]  # the gradient has no derivative of its own
    assert "heatmap_loss: the kernel has no code for torch.float64" in got["refused"][1]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("topk", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda_matches_truth(dtype, topk, memory_format):
    arguments = sample(dtype, memory_format, "cuda")
    for run in (heatmap_loss, torch.compile(heatmap_loss, fullgraph=True)):
        leaf = arguments[0].clone().requires_grad_()
        loss = run(leaf, *arguments[1:], topk=topk, **TARGET)
        loss.backward()
        assert leaf.grad.stride() == arguments[0].stride()
        assert_close_to_truth((loss.detach(), leaf.grad), arguments, topk=topk, **TARGET)
    scale = torch.tensor(2.0, device="cuda")
    once = heatmap_loss_and_gradient(*arguments, topk=topk, scale=scale, **TARGET)
    assert_close_to_truth(once, arguments, scale=2.0, topk=topk, **TARGET)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("topk", [None, 3])
def test_cuda_gives_the_same_bits_each_time(topk):
    arguments = sample(torch.bfloat16, device="cuda", count=133)
    first, again = (heatmap_loss_and_gradient(*arguments, topk=topk, **TARGET) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("topk", [None, 3])
def test_cuda_graph_replay(topk):
    pred, joints, weight = sample(device="cuda")
    leaf = pred.clone().requires_grad_()

    def step():
        loss = heatmap_loss(leaf, joints, weight, topk=topk, **TARGET)
        return loss.detach(), *torch.autograd.grad(loss, leaf)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles the kernels, which must not happen in capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        got = step()
    fresh = sample(device="cuda")
    with torch.no_grad():
        for tensor, value in zip((leaf, joints, weight), fresh, strict=True):
            tensor.copy_(value)
    with torch.cuda.stream(stream):
        stream.wait_stream(torch.cuda.default_stream())
        graph.replay()
    torch.cuda.synchronize()
    assert_close_to_truth(got, fresh, topk=topk, **TARGET)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred": None}, TypeError, "pred: expected a torch.Tensor or a sequence"),
        ({"pred": []}, ValueError, "pred: expected at least one tensor"),
        ({"pred": torch.zeros(2, 3, 4)}, ValueError, "pred: expected 4 dimensions"),
        ({"pred": torch.zeros(2, 3, 0, 4)}, ValueError, r"pred: expected \(B, K, H, W\) with K, H, W > 0"),
        ({"pred": torch.zeros(2, 3, 8, 6, dtype=torch.int64)}, TypeError, "pred: .*int64"),
        ({"pred": [torch.zeros(2, 3, 8, 6), torch.zeros(2, 4, 8, 6)]}, ValueError, r"joints: .*\(2, 4, 2\)"),
        ({"joints": torch.zeros(2, 4, 2)}, ValueError, r"joints: expected shape \(2, 3, 2\)"),
        ({"joints": torch.zeros(2, 3, 2).half()}, ValueError, "joints: .*float16"),
        ({"joints": torch.zeros(2, 3, 2, requires_grad=True)}, ValueError, "joints: requires grad"),
        ({"weight": torch.zeros(2, 3, requires_grad=True)}, ValueError, "weight: requires grad"),
        ({"weight": torch.zeros(2, 3, 1)}, ValueError, r"weight: expected shape \(2, 3\)"),
        ({"weight": torch.zeros(2, 3, device="meta")}, ValueError, "weight: expected a tensor on cpu"),
        ({"input_size": (0, 4)}, ValueError, "input_size: expected positive"),
        ({"sigma": 0.0}, ValueError, "sigma: expected a positive number"),
        ({"topk": 0}, ValueError, "topk: expected 1 to 3 joints, got 0"),
        ({"topk": 4}, ValueError, "topk: expected 1 to 3 joints, got 4"),
        ({"topk": 1.5}, TypeError, "topk: expected an integer or None, got 1.5"),
        ({"topk": True}, TypeError, "topk: expected an integer or None, got True"),
        ({"joints": [[0.0, 0.0]]}, TypeError, "joints: expected a torch.Tensor, got list"),
        ({"weight": [[1.0]]}, TypeError, "weight: expected a torch.Tensor, got list"),
        ({"input_size": (4.0, 4)}, TypeError, r"input_size: expected two integers .*\(4.0, 4\)"),
        ({"input_size": 4}, TypeError, r"input_size: expected \(width, height\), got int"),
        ({"sigma": "2"}, TypeError, "sigma: expected a number of heatmap cells, got '2'"),
        ({"sigma": True}, TypeError, "sigma: expected a number of heatmap cells, got True"),
    ],
    ids=["type", "no-stack", "dims", "no-pixels", "dtype", "stacks", "joints", "joints-dtype", "joints-grad",
         "weight-grad", "weight", "device", "input_size", "sigma", "topk-0", "topk-4", "topk-1.5",
         "topk-bool", "joints-list", "weight-list", "input_size-float", "input_size-int", "sigma-str",
         "sigma-bool"],
)  # fmt: skip
def test_rejects(change, error, message):
    arguments = {"pred": torch.zeros(2, 3, 8, 6), "joints": torch.zeros(2, 3, 2), "weight": torch.ones(2, 3)}
    arguments |= {**TARGET, **change}
    with pytest.raises(error, match=message):
        heatmap_loss(**arguments)
    if "grad" not in message:
        with pytest.raises(error, match=message):
            heatmap_loss_and_gradient(**arguments)


@pytest.mark.parametrize(
    ("scale", "message"),
    [(torch.ones(2), "scale: expected 0 dimensions"), (torch.ones((), device="meta"), "scale: .* on cpu")],
    ids=["shape", "device"],
)
def test_rejects_scale(scale, message):
    with pytest.raises(ValueError, match=message):
        heatmap_loss_and_gradient(*sample(), scale=scale, **TARGET)
