"""HRNet's exchange of branches: every output is a ReLU of a sum over all branches (arXiv:1902.09212, 3.1).

One module holds the whole exchange, so that a fused implementation can replace its forward and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.nn.blocks import conv_bn


class Exchange(nn.ModuleList):
    """The `fuse_layers` of one HRNet module: list of branches in, list of fused branches out.

    Branch j is (B, widths[j], H / 2^j, W / 2^j); output i has the shape of branch i. `num_outputs` keeps only
    the first rows (HRNet pose needs only row 0 at its end). The children are numbered as officially, so the
    parameters are called `fuse_layers.I.J...` (hrnet lib/models/pose_hrnet.py).
    """

    def __init__(self, widths: Sequence[int], num_outputs: int | None = None) -> None:
        rows = len(widths) if num_outputs is None else num_outputs
        super().__init__(ExchangeRow(widths, row) for row in range(rows))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [row(branches) for row in self]


class ExchangeRow(nn.ModuleList):
    """One output of the exchange: child J brings branch J to the resolution and the width of this row."""

    def __init__(self, widths: Sequence[int], row: int) -> None:
        super().__init__(_path(widths, source, row) for source in range(len(widths)))

    def forward(self, branches: list[Tensor]) -> Tensor:
        if len(branches) != len(self):
            raise ValueError(f"the exchange joins {len(self)} branches, got {len(branches)}")
        # Left to right, as officially: floating-point sums depend on the order.
        total = self[0](branches[0])
        for j in range(1, len(branches)):
            total = total + self[j](branches[j])
        return F.relu(total)


def _path(widths: Sequence[int], source: int, row: int) -> nn.Module:
    """Up: 1x1 convolution, then nearest. Down: one 3x3 stride-2 convolution per octave; the width changes in
    the last one, which has no ReLU."""
    if source == row:
        return nn.Identity()
    if source > row:
        up = nn.Upsample(scale_factor=2 ** (source - row), mode="nearest")
        return nn.Sequential(*conv_bn(widths[source], widths[row], 1), up)
    steps = [
        nn.Sequential(*conv_bn(widths[source], widths[source], 3, 2), nn.ReLU(inplace=True))
        for _ in range(row - source - 1)
    ]
    return nn.Sequential(*steps, nn.Sequential(*conv_bn(widths[source], widths[row], 3, 2)))
