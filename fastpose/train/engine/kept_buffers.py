"""Tensors as they were before a step, for a step that must leave no trace."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class KeptTensors:
    """Tensors that are put back where the device says so; few launches for all."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._groups = by_dtype(tensor for tensor in tensors if tensor.numel())
        self._known = {id(tensor) for group in self._groups for tensor in group}
        self._before: list[Tensor] = []

    def holds(self, tensor: Tensor) -> bool:
        """Whether this very tensor is among them."""
        return id(tensor) in self._known

    @torch.no_grad()
    def keep(self) -> None:
        """Remembers the tensors as they are."""
        self._before = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def restore(self, bad: Tensor) -> None:
        """bad: () on the device, 1 for the tensors as they were at `keep`, 0 for leaving them."""
        for group, before in zip(self._groups, self._before, strict=True):
            chosen = torch.where(bad > 0, before, _flat(group))
            parts = chosen.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(group, [part.view_as(x) for part, x in zip(parts, group, strict=True)])


class KeptBuffers(KeptTensors):
    """Running statistics and counts of a module.

    One non-finite activation would otherwise stay in the running averages for the rest of a run.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.buffers())


def by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one dtype, which the foreach functions take in few launches."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
