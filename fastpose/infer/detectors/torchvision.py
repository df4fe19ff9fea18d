"""People by a detection network of torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastpose.device import pick_device
from fastpose.errors import ConfigError
from fastpose.infer.detectors.library import corners_to_boxes, import_library

PERSON = 1
"""Of torchvision's COCO categories."""


class TorchvisionDetector:
    """model: a detection network of torchvision, or the name of one, such as 'fasterrcnn_resnet50_fpn_v2',
    for which torchvision fetches its COCO weights if it has none. min_score: of boxes kept. label: the
    network's number for people."""

    def __init__(
        self,
        model: str | torch.nn.Module = "fasterrcnn_resnet50_fpn_v2",
        *,
        min_score: float = 0.5,
        label: int = PERSON,
        device: str = "auto",
    ) -> None:
        network: Any = model
        if isinstance(model, str):
            models = import_library("torchvision").models
            try:
                network = models.get_model(model, weights="DEFAULT")
            except (KeyError, ValueError) as error:
                raise ConfigError(f"detector torchvision:{model}: {error}; see list_models") from error
        self.device = pick_device(device)
        self.model = network.eval().to(self.device)
        self.min_score, self.label = min_score, label

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR -> boxes (N, 4) xywh, scores (N,)."""
        pixels = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).to(self.device)
        (found,) = self.model([pixels.permute(2, 0, 1).float() / 255])
        keep = (found["labels"] == self.label) & (found["scores"] >= self.min_score)
        boxes, scores = found["boxes"][keep], found["scores"][keep]
        return corners_to_boxes(boxes.cpu().numpy()), scores.double().cpu().numpy()
