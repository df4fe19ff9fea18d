"""Heatmap losses against the official modules, and their gradients."""

import pytest
import torch
from tolerances import TOLERANCES

from fastpose.reference.loss import heatmap_loss, heatmap_loss_gradient, heatmap_mse, heatmap_ohkm


@pytest.fixture(scope="module")
def golden(golden_functions):
    pred, target, weight = (golden_functions[f"loss_{name}"] for name in ("pred", "target", "weight"))
    return torch.from_numpy(pred), torch.from_numpy(target), torch.from_numpy(weight)[..., 0]


CASES = {
    "loss_mse_weighted": lambda p, t, w: heatmap_mse(p, t, w),
    "loss_mse_unweighted": lambda p, t, w: heatmap_mse(p, t),
    "loss_ohkm_top8_weighted": lambda p, t, w: heatmap_ohkm(p, t, w),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, golden_functions, name):
    atol, rtol = TOLERANCES["loss", "golden"]
    expected = torch.tensor(golden_functions[name])
    torch.testing.assert_close(CASES[name](*golden), expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_pred(golden, golden_functions, name, dtype):
    pred, target, weight = golden
    loss = CASES[name](pred.to(dtype), target, weight)
    assert loss.dtype == torch.float32
    atol, rtol = TOLERANCES["loss", str(dtype).removeprefix("torch.")]
    torch.testing.assert_close(loss, torch.tensor(golden_functions[name]), atol=atol, rtol=rtol)
    assert torch.equal(loss, CASES[name](pred.to(dtype).float(), target, weight))


def test_weight_enters_squared_and_joints_without_weight_count():
    pred, target = torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    loss = heatmap_mse(pred, target, torch.tensor([[3.0, 0.0]]))
    assert loss.item() == pytest.approx(0.5 * 9.0 / 2)


def test_ohkm_takes_the_hardest_joints_of_each_sample():
    error = torch.tensor([[4.0, 1.0, 3.0], [1.0, 5.0, 2.0]])
    pred = error[..., None, None].expand(2, 3, 2, 2)
    loss = heatmap_ohkm(pred, torch.zeros_like(pred), topk=2)
    assert loss.item() == pytest.approx(0.5 * (16 + 9 + 25 + 4) / 4)
    whole = heatmap_ohkm(pred, torch.zeros_like(pred), topk=3)
    assert whole.item() == pytest.approx(heatmap_mse(pred, torch.zeros_like(pred)).item())


@pytest.mark.parametrize("loss", [heatmap_mse, lambda *a: heatmap_ohkm(*a, topk=2)], ids=["mse", "ohkm"])
def test_gradient(loss):
    pred = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    target, weight = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, weight), (pred,))


def test_gradient_of_half_precision_pred_keeps_its_dtype(golden):
    pred = golden[0].bfloat16().requires_grad_()
    heatmap_mse(pred, *golden[1:]).backward()
    assert pred.grad is not None
    assert pred.grad.dtype == torch.bfloat16


def test_ohkm_keeps_the_lowest_of_equal_joints():
    pred = torch.ones(2, 4, 3, 3, requires_grad=True)
    heatmap_ohkm(pred, torch.zeros(2, 4, 3, 3), topk=2).backward()
    assert pred.grad is not None
    assert (pred.grad.sum(dim=(2, 3)) > 0).tolist() == [[True, True, False, False]] * 2


def joints_case(dtype=torch.float64):
    """pred, joints, weight and the target's options; one joint is far outside, one has no weight."""
    joints = torch.rand(2, 3, 2) * 40
    joints[0, 1] = 1e30
    weight = torch.tensor([[1.0, 1.5, 0.0], [0.3, 1.0, 1.2]])
    return torch.randn(2, 3, 8, 6, dtype=dtype), joints, weight, {"input_size": (24, 32), "sigma": 1.5}


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("topk", [None, 2])
def test_gradient_of_the_loss_from_joints(topk, unbiased):
    pred, joints, weight, options = joints_case()
    options |= {"unbiased": unbiased, "topk": topk}
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: heatmap_loss(p, joints, weight, **options), (pred,))
    (expected,) = torch.autograd.grad(3 * heatmap_loss(pred, joints, weight, **options), pred)
    got = heatmap_loss_gradient(pred.detach(), joints, weight, scale=torch.tensor(3.0), **options)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_explicit_gradient_has_the_layout_of_pred(memory_format):
    pred, joints, weight, options = joints_case(torch.float32)
    pred = pred.to(memory_format=memory_format)
    got = heatmap_loss_gradient(pred, joints, weight, **options)
    assert got.stride() == pred.stride()
    assert got.dtype == pred.dtype


@pytest.mark.parametrize("name", CASES)
def test_compiles_whole(golden, name):
    compiled = torch.compile(CASES[name], fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*golden), CASES[name](*golden))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: heatmap_mse(p, p[:1]), r"target: expected .*\(2, 3, 4, 5\), got \(1, 3, 4, 5\)"),
        (lambda p: heatmap_mse(p[0], p[0]), "target: expected the .B, K, H, W."),
        (lambda p: heatmap_mse(p, p, torch.ones(2, 3, 1)), r"weight: expected \(2, 3\), got \(2, 3, 1\)"),
        (lambda p: heatmap_ohkm(p, p), "topk: expected 1 to 3 joints, got 8"),
        (lambda p: heatmap_ohkm(p, p, topk=0), "topk: expected 1 to 3 joints, got 0"),
    ],
    ids=["target", "3-D", "weight", "topk-8", "topk-0"],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3, 4, 5))
