"""Networks that export in a second, one of each kind."""

from __future__ import annotations

import torch
from torch import nn

from fastpose.keypoints import COCO_17
from fastpose.models import ModelMeta, PoseModel, SegmentationMeta, SegmentationModel
from fastpose.nn import BasicBlock

SIZE = (48, 64)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def randomise(model: nn.Module) -> nn.Module:
    """Statistics that are no identity, and outputs of both signs."""
    draw = torch.Generator().manual_seed(11)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=draw)
            module.running_var.uniform_(0.5, 2.0, generator=draw)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0, 0.3, generator=draw)
    return model.eval()


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), BasicBlock(8, 8))


class Heatmaps(PoseModel):
    """Two stacks of heatmaps at a quarter of the size; the second ones count."""

    def __init__(self, codec: str = "msra", channel_order: str = "bgr") -> None:
        super().__init__(ModelMeta("tiny", 17, SIZE, channel_order, COCO_17, MEAN, STD, codec=codec))
        self.trunk, self.final_layer = trunk(), nn.Conv2d(8, 34, 1)
        randomise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.trunk(x)).unflatten(1, (2, 17))

    def heatmaps(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output.unbind(1))


class Queries(PoseModel):
    """Twenty queries."""

    output = "queries"

    def __init__(self) -> None:
        super().__init__(ModelMeta("queries", 17, SIZE, "rgb", COCO_17, MEAN, STD))
        self.trunk, self.head = trunk(), nn.Linear(8, 20 * 20)
        randomise(self)

    def forward(self, x: torch.Tensor) -> dict:
        found = self.head(self.trunk(x).mean((2, 3))).unflatten(1, (20, 20))
        last = {"pred_logits": found[..., :18], "pred_coords": found[..., 18:].sigmoid()}
        return {**last, "aux_outputs": [last]}


class Bins(PoseModel):
    """SimCC of two bins a pixel."""

    output = "bins"

    def __init__(self) -> None:
        super().__init__(ModelMeta("bins", 17, SIZE, "rgb", COCO_17, MEAN, STD, codec="simcc"))
        self.trunk, self.final_layer = trunk(), nn.Conv2d(8, 17, 1)
        self.x, self.y = nn.Linear(12 * 16, 96), nn.Linear(12 * 16, 128)
        randomise(self)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cells = self.final_layer(self.trunk(x)).flatten(2)
        return self.x(cells), self.y(cells)


class Classes(SegmentationModel):
    """Five classes at a quarter of the size."""

    def __init__(self) -> None:
        super().__init__(SegmentationMeta("classes", 5, SIZE, "bgr", None, False, MEAN, STD))
        self.trunk, self.last = trunk(), nn.Conv2d(8, 5, 1)
        randomise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.trunk(x))


class Given(PoseModel):
    """Heatmaps that are the pixels of the input, so that any map can be decoded inside a graph."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(ModelMeta("given", 3, (width, height)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0


def crops(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, SIZE[1], SIZE[0], 3), generator=draw, dtype=torch.uint8)


def boxes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """center, scale."""
    draw = torch.Generator().manual_seed(4)
    return 300 * torch.rand(count, 2, generator=draw), 0.3 + torch.rand(count, 2, generator=draw)
