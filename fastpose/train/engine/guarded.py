"""An optimiser whose step can be called off by the device, and held in a CUDA graph."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from fastpose.errors import ConfigError
from fastpose.nn import capture
from fastpose.train.engine.kept_buffers import KeptTensors

_VARYING = ("params", "lr", "initial_lr")
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


class GuardedOptimizer:
    """Adam, AdamW, SGD or RMSprop that leaves all as it is where the device finds the gradient bad.

    The groups of the first three are switched to the fused implementation, which looks at such a flag.
    RMSprop has none: on a CUDA device its parameters and state are copied before each step and put back where
    the flag says so. There rates move into tensors, and what has a capturable form gets it. Any other
    optimiser works too, but `step` then waits for the device to read the flag, and `reason` says why it
    cannot be captured. `changed` says what `refresh` found.

    Raises:
        ConfigError: `optimizer` is something else, or its step needs a closure, as LBFGS's does.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        _refuse(optimizer)
        self.optimizer, self.device = optimizer, device
        self.reason, self.changed = _why_not(optimizer), ""
        self._fused = type(optimizer) in _FUSED
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
            self.changed = _difference(seen, self._snapshot()) if seen else ""
            if self._fused:
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
        if self.reason or not (self._fused or capture.can_capture(self.device)):
            if not bool(bad):
                self.optimizer.step()
        elif self._fused:
            self._step_fused(bad)
        else:
            self._step_and_put_back(bad)

    def _step_fused(self, bad: Tensor) -> None:
        optimizer: Any = self.optimizer
        self._begin_momentum()
        optimizer.grad_scale, optimizer.found_inf = None, bad
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    def _begin_momentum(self) -> None:
        """SGD's first step would leave memory that nobody wrote as its momentum, were it called off."""
        for group in self.optimizer.param_groups if type(self.optimizer) is torch.optim.SGD else ():
            for parameter in group["params"] if group["momentum"] else ():
                state = self.optimizer.state[parameter]
                if parameter.grad is not None and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)

    @torch.no_grad()
    def _step_and_put_back(self, bad: Tensor) -> None:
        kept = KeptTensors(self._changing())
        kept.keep()
        self.optimizer.step()
        kept.restore(bad)
        for tensor in self._changing():
            if not kept.holds(tensor):  # it came with this step, and begins at zero
                tensor.copy_(torch.where(bad > 0, torch.zeros_like(tensor), tensor))

    def _changing(self) -> list[Tensor]:
        """Whatever a step changes."""
        groups = self.optimizer.param_groups
        trained = [p for group in groups for p in group["params"] if p.grad is not None]
        states = [self.optimizer.state.get(parameter, {}).values() for parameter in trained]
        return trained + [value for state in states for value in state if isinstance(value, Tensor)]

    def _snapshot(self) -> tuple[Any, ...]:
        groups = self.optimizer.param_groups
        options = [{name: group[name] for name in group if name not in _VARYING} for group in groups]
        return self.optimizer.state, groups, options, [len(group["params"]) for group in groups]

    def _same(self, seen: tuple[Any, ...]) -> bool:
        return bool(seen) and not _difference(seen, self._snapshot())

    def _make_capturable(self) -> None:
        optimizer: Any = self.optimizer
        optimizer._warned_capturable_if_run_uncaptured = True  # running before the capture is no mistake
        groups = self.optimizer.param_groups
        for group in groups:
            if "capturable" in group:
                group["capturable"] = True
            if not self._fused:
                group["foreach"] = True
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(self.device, torch.float32)
        while len(self._rates) < len(groups):
            self._rates.append(torch.zeros((), dtype=torch.float32, device=self.device))


def _difference(seen: tuple[Any, ...], found: tuple[Any, ...]) -> str:
    """What of a snapshot is not as before, in words."""
    if found[0] is not seen[0] or found[1] is not seen[1]:
        return "a state was loaded into the optimizer"
    if found[3] != seen[3]:
        return "parameters were added to the optimizer"
    pairs = zip(seen[2], found[2], strict=True)
    names = {name for old, new in pairs for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return f"the optimizer's {', '.join(sorted(names))} changed" if names else ""


def _refuse(optimizer: torch.optim.Optimizer) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}; give the "
            "optimizer itself, and step a scheduler in your own loop"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"optimizer: {type(optimizer).__name__} computes the loss several times a step, by a closure; "
            "take one that uses the gradient as it is, such as torch.optim.AdamW or SGD"
        )


def _why_not(optimizer: torch.optim.Optimizer) -> str:
    name = type(optimizer).__name__
    if type(optimizer) not in (*_FUSED, torch.optim.RMSprop):
        return f"the optimizer {name} is none of torch.optim.Adam, AdamW, SGD and RMSprop"
    if any(group["differentiable"] for group in optimizer.param_groups):
        return f"{name} with differentiable=True has no fused form"
    if any(group.get("dampening") for group in optimizer.param_groups):
        return f"{name} with dampening takes a first step unlike the others"
    return ""
