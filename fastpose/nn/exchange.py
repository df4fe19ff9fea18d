"""HRNet's exchange of branches: every output is a ReLU of a sum over all branches (arXiv:1902.09212, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.nn.blocks import conv_bn
from fastpose.nn.fuse import Branch, Sum, alike, fusable, fuse_sums, fuses, plain
from fastpose.ops._fuse import MAX_LEVEL


class Exchange(nn.ModuleList):
    """The `fuse_layers` of one HRNet module: list of branches in, list of fused branches out.

    Branch j is (B, widths[j], H / 2^j, W / 2^j), else ValueError; output i has the shape of branch i.
    `num_outputs` keeps only the first rows (HRNet pose needs only row 0 at its end). The children are
    numbered as officially, so the parameters are called `fuse_layers.I.J...` (hrnet
    lib/models/pose_hrnet.py).

    On a GPU one kernel writes each output (`fastpose.ops.fuse`), unless somebody replaced or hooked a layer;
    the layers themselves are the reference.
    """

    def __init__(self, widths: Sequence[int], num_outputs: int | None = None) -> None:
        rows = len(widths) if num_outputs is None else num_outputs
        super().__init__(ExchangeRow(widths, row) for row in range(rows))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        rows: list[Any] = list(self)
        _check_branches(
            branches, next((len(row) for row in rows if isinstance(row, ExchangeRow)), len(branches))
        )
        if fuses(branches) and _fusable(rows, len(branches)):
            return fuse_sums([row.as_sum(branches) for row in rows])
        return [row(branches) for row in rows]


class ExchangeRow(nn.ModuleList):
    """One output of the exchange: child J brings branch J to the resolution and the width of this row."""

    def __init__(self, widths: Sequence[int], row: int) -> None:
        super().__init__(_path(widths, source, row) for source in range(len(widths)))

    def forward(self, branches: list[Tensor]) -> Tensor:
        # Left to right, as officially: floating-point sums depend on the order.
        total = self[0](branches[0])
        for j in range(1, len(branches)):
            total = total + self[j](branches[j])
        return F.relu(total)

    def as_sum(self, branches: list[Tensor]) -> Sum:
        """This row for `fuse_sums`, with the strided convolutions done and their last BatchNorm to do."""
        identity, addends = None, []
        paths: list[Any] = list(self)
        for path, x in zip(paths, branches, strict=True):
            if isinstance(path, nn.Identity):
                identity = x
            elif isinstance(path[0], nn.Conv2d):
                addends.append(Branch(x, path[0], path[1]))
            else:
                for step in path[:-1]:
                    x = step(x)
                addends.append(Branch(path[-1][0](x), None, path[-1][1]))
        return Sum(identity, tuple(addends))


def _path(widths: Sequence[int], source: int, row: int) -> nn.Module:
    """Up: 1x1 convolution, then nearest."""
    if source == row:
        return nn.Identity()
    if source > row:
        up = nn.Upsample(scale_factor=2 ** (source - row), mode="nearest")
        return nn.Sequential(*conv_bn(widths[source], widths[row], 1), up)
    return down_path(widths, source, row)


def down_path(widths: Sequence[int], source: int, row: int) -> nn.Sequential:
    """Branch `source` to the coarser branch `row`: one 3x3 stride-2 convolution per octave; the width changes
    in the last one, which has no ReLU."""
    steps = [
        nn.Sequential(*conv_bn(widths[source], widths[source], 3, 2), nn.ReLU(inplace=True))
        for _ in range(row - source - 1)
    ]
    return nn.Sequential(*steps, nn.Sequential(*conv_bn(widths[source], widths[row], 3, 2)))


def _fusable(rows: Sequence[Any], count: int) -> bool:
    """Whether `fuse_sums` stands for all rows: nobody replaced, hooked or patched what it would pass over."""
    if not all(plain(row, ExchangeRow) and len(row) == count for row in rows):
        return False
    norms = []
    for i, row in enumerate(rows):
        for source, path in enumerate(row):
            if source == i and plain(path, nn.Identity):
                continue
            norm = _up_norm(path, source - i) if source > i else _down_norm(path)
            if norm is None:
                return False
            norms.append(norm)
    return len(norms) > 0 and alike(norms)


def _up_norm(path: Any, octaves: int) -> Any:
    """The BatchNorm of an untouched path to a branch 2^octaves times finer, else None."""
    if not plain(path, nn.Sequential) or len(path) != 3 or octaves > MAX_LEVEL:
        return None
    conv, norm, up = path
    if not fusable(conv, norm) or not plain(up, nn.Upsample):
        return None
    return norm if (up.size, up.scale_factor, up.mode) == (None, 2**octaves, "nearest") else None


def _down_norm(path: Any) -> Any:
    """The last BatchNorm of a path whose last convolution and BatchNorm are untouched, else None.

    What comes before them is called, and may be anything.
    """
    if not plain(path, nn.Sequential) or len(path) == 0:
        return None
    last = path[-1]
    if not plain(last, nn.Sequential) or len(last) != 2 or type(last[0]) is not nn.Conv2d:
        return None
    return last[1] if fusable(None, last[1]) else None


def _check_branches(branches: list[Tensor], count: int) -> None:
    if len(branches) != count:
        raise ValueError(f"the exchange joins {count} branches, got {len(branches)}")
    for j in range(1, count):
        finer, coarser = branches[j - 1].shape, branches[j].shape
        if (finer[0], finer[2], finer[3]) != (coarser[0], 2 * coarser[2], 2 * coarser[3]):
            raise ValueError(
                f"branch {j} must be exactly half of branch {j - 1}, got {tuple(coarser)} and {tuple(finer)}"
            )
