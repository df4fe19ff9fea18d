"""Enlarging maps bilinearly, and HRNet's exchange of branches with it (arXiv:1904.04514, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.nn.blocks import conv_bn
from fastpose.nn.exchange import down_path


def enlarge(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Maps (B, C, h, w) -> (B, C, *size), bilinear; `size` is (height, width).

    With `align_corners` the centres of the corner pixels stay corners, without it the picture's edges do.
    """
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


class BilinearExchange(nn.ModuleList):
    """`Exchange` with bilinear enlargement: the `fuse_layers` of one HRNetV2 segmentation module.

    A branch is enlarged to the size of the finer one whatever that is, so that pictures of any size pass.
    The names are those of `Exchange` (seg lib/models/seg_hrnet.py); `align_corners` may be set later.
    """

    def __init__(self, widths: Sequence[int], num_outputs: int, align_corners: bool = False) -> None:
        super().__init__(BilinearRow(widths, row) for row in range(num_outputs))
        self.align_corners = align_corners

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [row(branches, self.align_corners) for row in self]


class BilinearRow(nn.ModuleList):
    """Output `row` of the exchange: child J brings branch J to its width, the finer ones to its size too."""

    def __init__(self, widths: Sequence[int], row: int) -> None:
        super().__init__(_path(widths, source, row) for source in range(len(widths)))
        self.row = row

    def forward(self, branches: list[Tensor], align_corners: bool) -> Tensor:
        size = branches[self.row].shape[2:]
        # Left to right, as officially: floating-point sums depend on the order.
        total = self[0](branches[0])
        for source in range(1, len(branches)):
            addend = self[source](branches[source])
            total = total + (enlarge(addend, size, align_corners) if source > self.row else addend)
        return F.relu(total)


def _path(widths: Sequence[int], source: int, row: int) -> nn.Module:
    if source == row:
        return nn.Identity()
    if source > row:
        return nn.Sequential(*conv_bn(widths[source], widths[row], 1))
    return down_path(widths, source, row)
