"""All BatchNorms' counts of batches in one launch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class BatchCounts:
    """Lets a forward pass count its batches on the host, and adds the counts to the buffers at once.

    Each nn.BatchNorm adds 1 to a number on the device, in a launch of its own; in HRNet-W48 these are 292.
    Only modules with a fixed momentum take part: the others compute with their count.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.momentum is not None
            and module.num_batches_tracked is not None
        ]
        self._hosted = [torch.zeros((), dtype=torch.int64) for _ in self._norms]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The forward pass goes inside; on leaving the buffers have the values they would have had."""
        held: list[Tensor] = [norm.num_batches_tracked for norm in self._norms]  # type: ignore[misc]
        before = [count._version for count in self._hosted]
        for norm, count in zip(self._norms, self._hosted, strict=True):
            norm.num_batches_tracked = count
        try:
            yield
        finally:
            for norm, buffer in zip(self._norms, held, strict=True):
                norm.num_batches_tracked = buffer
            # How often each was added to is what matters, and that is known without reading a value.
            added = [count._version - old for count, old in zip(self._hosted, before, strict=True)]
            changed = [(buffer, n) for buffer, n in zip(held, added, strict=True) if n]
            if changed:
                buffers, counts = zip(*changed, strict=True)
                torch._foreach_add_(list(buffers), list(counts))
