"""From the loader's bytes to what a network trained on ImageNet expects."""

from __future__ import annotations

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize_crops(crops: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels_last memory, (x / 255 - mean) / std.

    The same mean and std serve RGB and BGR crops, as in the official code (a BGR checkpoint was trained
    with RGB statistics on BGR pixels).
    """
    mean = crops.new_tensor(MEAN, dtype=torch.float32)
    std = crops.new_tensor(STD, dtype=torch.float32)
    return ((crops.to(torch.float32) / 255.0 - mean) / std).permute(0, 3, 1, 2)
