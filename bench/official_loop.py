"""The official training and validation loops over pictures, written from their description.

They keep what decides the time: normalised float crops and ready targets from the workers, one loss and one
accuracy in NumPy for each batch, two forward passes of the flip test, and decoding on the host.
Source: hrnet lib/core/function.py, train and validate; lib/core/evaluate.py, accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.official_decode import final_preds, max_preds
from bench.official_loss import joints_mse
from bench.ways import Way
from fastpose.keypoints import COCO_17


def accuracy(output: np.ndarray, target: np.ndarray) -> float:
    """Share of joints whose peak is within half of a tenth of the map of the target's; of all joints."""
    found, wanted = max_preds(output)[0], max_preds(target)[0]
    size = np.array(output.shape[:1:-1]) / 10.0
    right = count = 0
    for n in range(len(found)):
        for k in range(found.shape[1]):
            if wanted[n, k, 0] > 1 and wanted[n, k, 1] > 1:
                count += 1
                right += bool(np.linalg.norm((found[n, k] - wanted[n, k]) / size) < 0.5)
    return right / max(count, 1)


def train_epoch(
    loader: Iterable[Any], network: nn.Module, optimizer: torch.optim.Optimizer, way: Way, device: str
) -> float:
    """Mean loss of an epoch, read from the device after each batch as the official meters do."""
    total, samples = 0.0, 0
    for images, target, weight, _ in loader:
        output, loss = forward_loss(network, images, target, weight, way, device)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, samples = total + loss.item() * len(images), samples + len(images)
        accuracy(output.detach().float().cpu().numpy(), target.numpy())
    return total / samples


def forward_loss(
    network: nn.Module, images: Tensor, target: Tensor, weight: Tensor, way: Way, device: str
) -> tuple[Tensor, Tensor]:
    """Heatmaps and loss of one batch."""
    with way.running(), way.autocast(device):
        output = network(way.place(images.to(device, non_blocking=True)))
    wanted = target.to(device, non_blocking=True)
    return output, joints_mse(output, wanted, weight.to(device, non_blocking=True))


@torch.no_grad()
def validate(loader: Iterable[Any], network: nn.Module, way: Way, device: str) -> np.ndarray:
    """Keypoints (N, K, 2) in image pixels, by the flip test."""
    found = []
    for images, target, weight, meta in loader:
        with way.running(), way.autocast(device):
            output = network(way.place(images.to(device))).float()
            mirrored = network(way.place(torch.from_numpy(np.flip(images.numpy(), 3).copy()).to(device)))
        back = mirrored.float().cpu().numpy()[..., ::-1].copy()
        for left, right in COCO_17.flip_pairs:
            back[:, [left, right]] = back[:, [right, left]]
        shifted = torch.from_numpy(back).to(device)
        shifted[..., 1:] = shifted.clone()[..., :-1]
        output = (output + shifted) * 0.5
        joints_mse(output, target.to(device), weight.to(device)).item()
        heatmaps = output.cpu().numpy()
        accuracy(heatmaps, target.numpy())
        found.append(final_preds(heatmaps, meta["center"].numpy(), meta["scale"].numpy())[0])
    return np.concatenate(found)
