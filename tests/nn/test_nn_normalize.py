"""Normalisation as ToTensor and Normalize of the official code do it."""

import numpy as np
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastpose.nn.normalize
from fastpose.nn.normalize import MEAN, STD, normalize_crops


def test_official_formula_and_layout():
    crops = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    expected = (
        crops.transpose(0, 3, 1, 2) / 255.0 - np.array([0.485, 0.456, 0.406])[:, None, None]
    ) / np.array([0.229, 0.224, 0.225])[:, None, None]
    got = normalize_crops(torch.from_numpy(crops))
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-6)


class MakesNoTensor(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten.lift_fresh.default, "numbers of Python are copied to the device"
        return func(*args, **(kwargs or {}))


def test_nothing_is_copied_after_the_first_call():
    crops = torch.randint(0, 256, (1, 4, 4, 3), dtype=torch.uint8)
    with torch.inference_mode():
        first = normalize_crops(crops)
    with MakesNoTensor():
        again = normalize_crops(crops)
    assert torch.equal(first, again)


def test_constants_made_for_inference_serve_training():
    fastpose.nn.normalize._kept_statistics.cache_clear()
    with torch.inference_mode():
        normalize_crops(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    weight = torch.ones(3, requires_grad=True)
    (normalize_crops(torch.ones(1, 4, 4, 3, dtype=torch.uint8)).mean((0, 2, 3)) * weight).sum().backward()
    assert torch.isfinite(weight.grad).all()
    kept = fastpose.nn.normalize._kept_statistics(torch.device("cpu"), MEAN, STD)
    assert not any(constant.is_inference() for constant in kept)


def test_fake_tensors_leave_nothing_behind():
    fastpose.nn.normalize._kept_statistics.cache_clear()
    for _ in range(2):
        with FakeTensorMode():
            assert normalize_crops(torch.empty(1, 4, 4, 3, dtype=torch.uint8)).shape == (1, 3, 4, 4)
        assert type(normalize_crops(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))) is torch.Tensor
