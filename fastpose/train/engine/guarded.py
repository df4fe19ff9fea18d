"""An optimiser whose step can be called off by the device, and held in a CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose.train.engine import capture

_VARYING = ("params", "lr", "initial_lr")


class GuardedOptimizer:
    """Adam or AdamW that leaves parameters and state alone where the device finds the gradient bad.

    Their groups are switched to the fused implementation, which looks at such a flag, and on a CUDA device to
    the capturable one with the rate in a tensor. Any other optimiser works too, but `step` then waits for the
    device to read the flag, and `reason` says why it cannot be captured.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer, self.device = optimizer, device
        self.reason = _why_not(optimizer)
        self._rates: list[Tensor] = []
        self._seen: tuple[Any, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Takes up what was done to the optimiser; True where a graph captured before is out of date.

        A float that somebody put in a group as its rate is moved into the group's tensor. Out of date are a
        state loaded from a checkpoint, groups that were added, and options that were changed.
        """
        if self.reason:
            return False
        seen = self._seen
        if not self._same(seen):
            for group in self.optimizer.param_groups:
                group.update(fused=True, foreach=False)
            if capture.can_capture(self.device):
                self._make_capturable()
            self._seen = self._snapshot()
        for group, held in zip(self.optimizer.param_groups, self._rates, strict=False):
            if group["lr"] is not held:
                held.fill_(group["lr"])
                group["lr"] = held
        return bool(seen) and seen is not self._seen

    def step(self, bad: Tensor) -> None:
        """bad: () float32, 1 where nothing may change, else 0."""
        if self.reason:
            if not bool(bad):
                self.optimizer.step()
            return
        optimizer: Any = self.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, bad
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    def _snapshot(self) -> tuple[Any, ...]:
        groups = self.optimizer.param_groups
        options = [{name: group[name] for name in group if name not in _VARYING} for group in groups]
        return self.optimizer.state, groups, options, [len(group["params"]) for group in groups]

    def _same(self, seen: tuple[Any, ...]) -> bool:
        if not seen:
            return False
        found = self._snapshot()
        return found[0] is seen[0] and found[1] is seen[1] and found[2:] == seen[2:]

    def _make_capturable(self) -> None:
        optimizer: Any = self.optimizer
        optimizer._warned_capturable_if_run_uncaptured = True  # running before the capture is no mistake
        groups = self.optimizer.param_groups
        for group in groups:
            group["capturable"] = True
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(self.device, torch.float32)
        while len(self._rates) < len(groups):
            self._rates.append(torch.zeros((), dtype=torch.float32, device=self.device))


def _why_not(optimizer: torch.optim.Optimizer) -> str:
    name = type(optimizer).__name__
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return f"the optimizer {name} is neither torch.optim.Adam nor AdamW"
    if any(group["differentiable"] for group in optimizer.param_groups):
        return f"{name} with differentiable=True has no fused form"
    return ""
