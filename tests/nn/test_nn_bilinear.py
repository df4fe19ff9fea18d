"""Bilinear enlargement and the exchange with it, against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastpose.nn import Exchange
from fastpose.nn.bilinear import BilinearExchange, enlarge


def interpolation_matrix(small: int, large: int, align_corners: bool) -> np.ndarray:
    """(large, small): row i has the shares of the two neighbours of point i."""
    matrix = np.zeros((large, small))
    for i in range(large):
        if align_corners:
            x = i * (small - 1) / (large - 1) if large > 1 else 0.0
        else:
            x = max(0.0, (i + 0.5) * small / large - 0.5)
        left = int(x)
        right = min(left + 1, small - 1)
        matrix[i, left] += 1 - (x - left)
        matrix[i, right] += x - left
    return matrix


def enlarged(x: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    rows, columns = (
        torch.from_numpy(interpolation_matrix(a, b, align_corners))
        for a, b in zip(x.shape[2:], size, strict=True)
    )
    return rows @ x @ columns.T


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize(
    ("small", "large"), [((3, 4), (6, 8)), ((5, 2), (17, 7)), ((1, 1), (4, 3)), ((2, 3), (1, 6))], ids=str
)
def test_enlarging_is_the_formula(
    small: tuple[int, int], large: tuple[int, int], align_corners: bool
) -> None:
    x = torch.randn(2, 3, *small, dtype=torch.float64)
    torch.testing.assert_close(enlarge(x, large, align_corners), enlarged(x, large, align_corners))


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_rows_are_sums_of_all_branches_at_odd_sizes(align_corners: bool) -> None:
    widths, sizes = [2, 4, 8], [(9, 13), (5, 7), (3, 4)]
    exchange = BilinearExchange(widths, 3, align_corners).double()
    branches = [torch.randn(2, w, *size, dtype=torch.float64) for w, size in zip(widths, sizes, strict=True)]

    def bn(conv: torch.Tensor) -> torch.Tensor:
        mean, var = conv.mean((0, 2, 3), keepdim=True), conv.var((0, 2, 3), keepdim=True, unbiased=False)
        return (conv - mean) / (var + 1e-5).sqrt()

    def addend(row: int, source: int) -> torch.Tensor:
        x, paths = branches[source], exchange[row][source]
        if source == row:
            return x
        if source > row:
            return enlarged(bn(F.conv2d(x, paths[0].weight)), sizes[row], align_corners)
        for octave, step in enumerate(paths):
            x = bn(F.conv2d(x, step[0].weight, stride=2, padding=1))
            x = x if octave == row - source - 1 else x.clamp(min=0)
        return x

    for row, output in enumerate(exchange(branches)):
        torch.testing.assert_close(output, sum(addend(row, j) for j in range(3)).clamp(min=0))


def test_names_are_those_of_the_nearest_exchange() -> None:
    shapes = [
        {name: tensor.shape for name, tensor in kind([2, 4, 8, 16], 4).state_dict().items()}
        for kind in (Exchange, BilinearExchange)
    ]
    assert shapes[0] == shapes[1]
