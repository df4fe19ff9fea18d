"""Networks whose answers are known, for tests of what surrounds a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fastpose.keypoints import KeypointSet
from fastpose.models import ModelMeta, PoseModel, load_weights, registry

TWO = KeypointSet("two", ("left", "right"), ((0, 1),), ((0, 1),), (0.05, 0.05), (), (1.0, 1.0))


class ChannelPeaks(PoseModel):
    """Heatmap k is input channel k at a quarter of the size; remembers its inputs."""

    def __init__(
        self,
        channel_order: str = "rgb",
        keypoints: KeypointSet | None = TWO,
        size: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__(ModelMeta("peaks", 2, size, channel_order, keypoints))
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return x[:, :2, ::4, ::4].clone()

    @property
    def batches(self) -> list[int]:
        """Sizes of the batches so far."""
        return [len(x) for x in self.inputs]


class Small(PoseModel):
    """A network with one layer of parameters, as small as one can be that is saved and loaded by its name."""

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__(meta)
        self.final_layer = nn.Conv2d(3, meta.num_joints, 1)
        nn.init.uniform_(self.final_layer.bias, 5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(x[..., ::4, ::4])


def small(num_joints: int = 17, *, weights: str | None = None, **options: object) -> Small:
    """A factory for the registry, as `fastpose.models` has them."""
    model = Small(ModelMeta("small", num_joints).with_options(options))
    if weights is not None:
        load_weights(model, weights)
    return model


@pytest.fixture
def registered_small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Small]:
    """`small` under its name in the registry, for the time of a test."""
    monkeypatch.setitem(registry._factories, "small", small)
    monkeypatch.setitem(registry._tasks, "small", ModelMeta.task)
    return small
