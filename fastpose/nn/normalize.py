"""From the loader's bytes to what a network trained on ImageNet expects."""

from __future__ import annotations

import functools

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


Triple = tuple[float, float, float]


def normalize_crops(crops: torch.Tensor, mean: Triple = MEAN, std: Triple = STD) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels_last memory, (x / 255 - mean) / std.

    mean and std, one number a channel as they come, are those of the network (`model.meta`); ImageNet's by
    default. The same serve RGB and BGR crops, as in the official code (a BGR checkpoint was trained with RGB
    statistics on BGR pixels). After the first call on a device nothing is copied there, so that it
    can be captured in a CUDA graph.
    """
    # Fake tensors want fake constants, which nobody else may find later.
    constants = _kept_statistics if type(crops) is torch.Tensor else _statistics
    middle, deviation = constants(crops.device, mean, std)
    return ((crops.to(torch.float32) / 255.0 - middle) / deviation).permute(0, 3, 1, 2)


@functools.cache
def _kept_statistics(device: torch.device, mean: Triple, std: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False):  # kept for training, whoever asks first
        return _statistics(device, mean, std)


def _statistics(device: torch.device, mean: Triple, std: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.tensor(mean, dtype=torch.float32, device=device),
        torch.tensor(std, dtype=torch.float32, device=device),
    )
