"""People by an object-detection network of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastpose.device import pick_device
from fastpose.errors import ConfigError
from fastpose.infer.detectors.library import corners_to_boxes, import_library, person_label


class TransformersDetector:
    """model: the name or folder of an object-detection checkpoint, such as 'PekingU/rtdetr_r50vd', which
    transformers fetches if it is not there; or a network, with its image `processor`. min_score: of boxes
    kept. label: the network's number for people, None for that of the class called person."""

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        min_score: float = 0.5,
        label: int | None = None,
        device: str = "auto",
    ) -> None:
        if isinstance(model, str):
            library = import_library("transformers")
            try:
                processor = processor or library.AutoImageProcessor.from_pretrained(model)
                model = library.AutoModelForObjectDetection.from_pretrained(model)
            except (OSError, ValueError, ImportError) as error:
                raise ConfigError(f"detector transformers:{model}: cannot be loaded: {error}") from error
        if processor is None:
            raise ConfigError("detector: give the network's image processor: processor=...")
        self.label = person_label(model.config.id2label, "the transformers model") if label is None else label
        self.device = pick_device(device)
        self.model, self.processor = model.eval().to(self.device), processor
        self.min_score = min_score

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR -> boxes (N, 4) xywh, scores (N,)."""
        rgb = np.ascontiguousarray(image[..., ::-1])
        inputs = self.processor(images=rgb, return_tensors="pt").to(self.device)
        (found,) = self.processor.post_process_object_detection(
            self.model(**inputs), threshold=self.min_score, target_sizes=[image.shape[:2]]
        )
        keep = found["labels"] == self.label
        boxes, scores = found["boxes"][keep], found["scores"][keep]
        return corners_to_boxes(boxes.cpu().numpy()), scores.double().cpu().numpy()
