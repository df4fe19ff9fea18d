"""A segmentation network whose answers are known, for tests of what surrounds a network."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fastpose.classes import ClassSet
from fastpose.models import SegmentationMeta, SegmentationModel, load_weights, registry

PAINTS = ClassSet(
    "paints", ("background", "red", "green", "blue"), ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Paints(SegmentationModel):
    """Tells red, green and blue pixels of RGB pictures, at full size; remembers the sizes of its inputs."""

    def __init__(self, meta: SegmentationMeta) -> None:
        super().__init__(meta)
        self.last_layer = nn.Conv2d(3, meta.num_classes, 1)
        with torch.no_grad():
            self.last_layer.weight.zero_()
            self.last_layer.weight[1:4, :, 0, 0] = 10 * torch.eye(3)[: meta.num_classes - 1]
            self.last_layer.bias.copy_(torch.tensor([5.0] + [0.0] * (meta.num_classes - 1)))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape))
        return self.last_layer(x)


def paints(num_classes: int = 4, *, weights: str | None = None, **options: object) -> Paints:
    """A factory for the registry, as `fastpose.models` has them."""
    model = Paints(SegmentationMeta("paints", num_classes, **PLAIN).with_options(options))
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    return model


@pytest.fixture
def registered_paints(monkeypatch: pytest.MonkeyPatch) -> None:
    """`paints` under its name in the registry, for the time of a test."""
    monkeypatch.setitem(registry._factories, "paints", paints)
    monkeypatch.setitem(registry._tasks, "paints", SegmentationMeta.task)


def painted(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR picture of these labels."""
    return np.array(PAINTS.colors, np.uint8)[labels][..., ::-1].copy()


def some_labels(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    """(H, W) uint8 with large areas of all four classes, and more of it the lower the label."""
    coarse = np.random.default_rng(seed).choice(4, (5, 5), p=(0.4, 0.3, 0.2, 0.1)).astype(np.uint8)
    coarse[0, :4] = range(4)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
