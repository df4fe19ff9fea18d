"""Normalisation as ToTensor and Normalize of the official code do it."""

import numpy as np
import torch

from fastpose.nn.normalize import normalize_crops


def test_official_formula_and_layout():
    crops = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    expected = (
        crops.transpose(0, 3, 1, 2) / 255.0 - np.array([0.485, 0.456, 0.406])[:, None, None]
    ) / np.array([0.229, 0.224, 0.225])[:, None, None]
    got = normalize_crops(torch.from_numpy(crops))
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-6)
