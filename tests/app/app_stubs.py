"""A network whose answers are known, and pictures to go with it."""

from __future__ import annotations

import numpy as np
import torch

from fastpose.app.pictures import Opened
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import KeypointSet
from fastpose.models import ModelMeta, PoseModel

TWO = KeypointSet("two", ("left_spot", "right_spot"), ((0, 1),), ((0, 1),), (0.05, 0.05), (), (1.0, 1.0))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Spots(PoseModel):
    """Heatmap 0 is the red and heatmap 1 the green of the crop, from 0 to 1, blurred and at a quarter of its
    size, with pixels where the codec has them: every fourth of the crop, or from its first to its last."""

    def __init__(self, codec: str = "msra") -> None:
        super().__init__(ModelMeta("spots", 2, (64, 64), "rgb", TWO, codec=codec, **PLAIN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blurred = 8 * x[:, :2]
        for _ in range(2):
            blurred = torch.nn.functional.avg_pool2d(blurred, 9, stride=1, padding=4)
        blurred = blurred.clamp(max=0.9)
        if self.meta.codec == "msra":
            return blurred[..., ::4, ::4].clone()
        return torch.nn.functional.interpolate(blurred, (16, 16), mode="bilinear", align_corners=True)


class Queries(Spots):
    """A network that predicts queries: it never gets as far as to be run here."""

    output = "queries"


def spots_predictor(codec: str = "msra", **options: object) -> Predictor:
    return Predictor(Spots(codec), detector="whole", flip_test=False, device="cpu", **options)


def spotted(width: int, height: int, red: tuple[int, int], green: tuple[int, int], radius: int) -> np.ndarray:
    """(H, W, 3) uint8 BGR, black but for a red and a green square around two places (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    for (x, y), channel in ((red, 2), (green, 1)):
        image[y - radius : y + radius + 1, x - radius : x + radius + 1, channel] = 255
    return image


def opened(image: np.ndarray, name: str = "spots.png") -> Opened:
    return Opened(name, lambda: image, (image.shape[1], image.shape[0]))
