"""A module's buffers as they were before a step, for a step that must leave no trace."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class KeptBuffers:
    """Running statistics and counts of a module, put back where the device says so; few launches for all.

    One non-finite activation would otherwise stay in the running averages for the rest of a run.
    """

    def __init__(self, module: nn.Module) -> None:
        self._groups = by_dtype(buffer for buffer in module.buffers() if buffer.numel())
        self._before: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Remembers the buffers as they are."""
        self._before = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def restore(self, bad: Tensor) -> None:
        """bad: () on the device, 1 for the buffers as they were at `keep`, 0 for leaving them."""
        for group, before in zip(self._groups, self._before, strict=True):
            chosen = torch.where(bad > 0, before, _flat(group))
            parts = chosen.split([buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view_as(b) for part, b in zip(parts, group, strict=True)])


def by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one dtype, which the foreach functions take in few launches."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
