"""The graphed training step for a loop of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.device import autocast, autocast_dtype
from fastpose.errors import ConfigError
from fastpose.nn.compiling import compiled
from fastpose.nn.graph import StepGraph, warmup_of
from fastpose.train.engine.batch_counts import BatchCounts
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.guarded import GuardedOptimizer
from fastpose.train.engine.update import Update


class GraphStep:
    """`loss = step(inputs, *targets)`: forward, loss, backward and update, on a GPU as one CUDA graph.

        step = fastpose.graph_step(model, loss_fn, optimizer, amp="bf16")
        for images, targets in loader:
            loss = step(images, targets)

    Computes what the ordinary loop computes: zero_grad, `loss_fn(model(inputs), *targets)`, backward, clip,
    `optimizer.step()`. A step whose gradient is not finite changes neither weights, optimizer state nor
    running statistics (see `fastpose.train.engine.update.Update`). The first three steps of a shape of batch
    run as they are, then one is captured and from there on replayed. On the CPU, and wherever a graph is
    impossible, all steps run as they are; `reason` says why.

    Batches may be on the host; from pinned memory they are copied while the step before runs. The model's
    training mode, learning rates set by hand or by a scheduler, options of the optimizer and loaded states
    are noticed. Call `reset()` after other changes, such as freezing a part of the model.

    Args:
        model: on its device, in its memory format, with or without DistributedDataParallel.
        loss_fn: prediction, *targets -> scalar tensor; may not wait for the device (`.item()`, prints).
        optimizer: over parameters of `model`; torch.optim.Adam, AdamW, SGD or RMSprop to be captured, the
            first three of which are switched to the fused implementation. With another one steps run
            ungraphed, and each waits for the device.
        amp: none | bf16 | fp16 | auto, autocast of forward and loss; fp16 with a loss scale.
        clip_grad: largest norm of the gradient, 0 for none.
        compile: False, or "default" or "max-autotune" of torch.compile.
        ema: average of the weights to update after each step.
        graph: False runs every step ungraphed.

    Raises:
        ConfigError: `amp` or `compile` is not one of these, `clip_grad` is negative, `model` has no
            parameters, or `optimizer` has none of them, takes a closure or is a scheduler or None.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        amp: str = "none",
        clip_grad: float = 0.0,
        compile: bool | str = False,
        ema: Ema | None = None,
        graph: bool = True,
    ) -> None:
        self.model, self.loss_fn = model, loss_fn
        parameter = next(model.parameters(), None)
        if parameter is None:
            raise ConfigError("model: has no parameters, so there is nothing to train")
        device = parameter.device
        self._device, self._dtype = device, autocast_dtype(amp, device)
        self.scaler = torch.amp.GradScaler(device.type) if self._dtype is torch.float16 else None
        self._forward = compiled(model, compile)
        self._optimizer = GuardedOptimizer(optimizer, device)
        self._update = Update(model, self._optimizer, clip_grad=clip_grad, scaler=self.scaler, ema=ema)
        plain = self._forward is model and not isinstance(model, nn.parallel.DistributedDataParallel)
        self._counts = BatchCounts(model) if plain else None
        why_not = self._optimizer.reason if graph else "it is switched off"
        self._graph = StepGraph(self._run, device, why_not=why_not, quiet=not graph, warmup=warmup_of(model))
        self._training = model.training

    def __call__(self, inputs: Tensor, *targets: Tensor) -> Tensor:
        """One step. Returns the loss: a scalar on the model's device, without a graph, yours to keep.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: `loss_fn` gave no scalar.
        """
        batch: dict[str, Any] = {f"targets[{i}]": target for i, target in enumerate(targets)}
        batch = {"inputs": inputs, **batch}
        for name, tensor in batch.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if self._optimizer.refresh():
            self._reset(self._optimizer.changed)
        elif self._training != self.model.training:
            self._reset("the model's training mode changed")
        return self._graph(batch).clone()

    @property
    def reason(self) -> str:
        """Why there is no CUDA graph; empty where there is one or will be."""
        return self._graph.reason

    @property
    def skipped(self) -> int:
        """Steps whose gradient was not finite until now; waits for the device."""
        return int(self._update.skipped)

    def reset(self) -> None:
        """Captures anew, for a model that is not the captured one any more."""
        self._reset("reset() was called")

    def _reset(self, why: str) -> None:
        self._training = self.model.training
        self._graph.reset(why)

    def _run(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, *targets = batch.values()
        self._update.before()
        counting = self._counts.together() if self._counts else contextlib.nullcontext()
        with autocast(self._dtype, self._device):
            with counting:
                prediction = self._forward(inputs)
            loss = self.loss_fn(prediction, *targets)
        if not isinstance(loss, Tensor) or loss.ndim:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn: expected it to return a scalar tensor, got {got}")
        value = self._update.backward(loss)
        self._update.step()
        return value
