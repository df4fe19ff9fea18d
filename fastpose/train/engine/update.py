"""From a loss to the next weights: backward, check, clip, step, average; nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastpose.errors import ConfigError
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.guarded import GuardedOptimizer
from fastpose.train.engine.kept_buffers import KeptBuffers


class Update:
    """`before()`, the forward pass, `backward(loss)`, `step()`: one step, which a bad gradient skips.

    A gradient is bad where its norm over all parameters is not finite. Then parameters, optimizer state and
    the model's buffers (running statistics) stay as they were before the step, and a loss scale falls. A
    gradient so large that the float32 sum of its squares overflows, above 1.8e19, counts as bad too. In
    distributed training all ranks see the same gradient and so decide the same. The average of the weights
    takes its step in any case: towards weights that are as they were.

    `skipped` is () float32 on the device: how many steps were.

    Args:
        model: whose parameters get gradients and whose buffers are guarded.
        optimizer: over parameters of `model`, and of a loss that has some; ConfigError where it has none of
            the former.
        clip_grad: largest norm of the gradient, 0 for none; ConfigError below 0.
        scaler: scales the loss, for float16.
        ema: average to update after each step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: GuardedOptimizer,
        *,
        clip_grad: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
        ema: Ema | None = None,
    ) -> None:
        if not clip_grad >= 0:
            raise ConfigError(f"clip_grad: expected a norm, or 0 for none, got {clip_grad}")
        self.optimizer, self.clip_grad, self.scaler, self.ema = optimizer, clip_grad, scaler, ema
        _check_belongs(model, optimizer.optimizer)
        self.skipped = torch.zeros((), device=optimizer.device)
        self._model = model
        self._buffers = KeptBuffers(model)

    def before(self) -> None:
        """Remembers what a bad step must not change."""
        if self.scaler is not None:
            self.scaler._per_optimizer_states.clear()  # of a step that broke off, as a failed capture does
        self._buffers.keep()

    def backward(self, loss: Tensor) -> Tensor:
        """loss: scalar with a graph; fresh gradients in `.grad`. Returns the loss without its graph."""
        groups = self.optimizer.optimizer.param_groups
        for parameter in (*self._model.parameters(), *(p for group in groups for p in group["params"])):
            parameter.grad = None
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()
        return loss.detach()

    @torch.no_grad()
    def step(self) -> Tensor:
        """Takes or skips the step. Returns () float32: 1 where it was skipped, else 0."""
        optimizer = self.optimizer.optimizer
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained], foreach=True)
        bad = (~norm.isfinite()).to(torch.float32)
        if self.clip_grad > 0:
            nn.utils.clip_grads_with_norm_(trained, self.clip_grad, norm, foreach=True)
        self.optimizer.step(bad)
        if self.scaler is not None:
            self.scaler.update()
        self._buffers.restore(bad)
        self.skipped.add_(bad)
        if self.ema is not None:
            self.ema.update()
        return bad


def _check_belongs(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ConfigError(
            "optimizer: holds no parameter of the model, which it would never change; make it from "
            "model.parameters(), of the very model that is trained"
        )
