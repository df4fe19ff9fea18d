"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fastpose.errors import ConfigError


class Ema:
    """`module` is a copy of `model` whose weights and running statistics follow it: e = d e + (1 - d) x.

    It starts from the model as it is, so a decay suits runs of many times 1 / (1 - decay) steps. Counts are
    copied. `update` runs on the device, in a few launches, and can be captured in a CUDA graph; the tensors
    of `module` and of `model` must stay the same ones (load into them, do not replace them).

    Args:
        model: without torch.compile or DistributedDataParallel around it, on its device already.
        decay: between 0 and 1, the share of the average that a step keeps.

    Raises:
        ConfigError: `decay` is not between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"decay: expected a number between 0 and 1, got {decay}")
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        for parameter in self.module.parameters():
            parameter.grad = None
        self._followed: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, live in zip(_tensors(self.module), _tensors(model), strict=True):
            averages, lives = self._followed.setdefault(average.dtype, ([], []))
            averages.append(average)
            lives.append(live)

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the model's present values."""
        for dtype, (averages, lives) in self._followed.items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(averages, lives, 1.0 - self.decay)
            else:
                torch._foreach_copy_(averages, lives)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under the model's own names."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from saved averages; RuntimeError, as nn.Module says it, where they do not fit."""
        self.module.load_state_dict(state)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from (parameter.detach() for parameter in module.parameters())
    yield from (buffer for buffer in module.buffers() if buffer.numel())
