"""Target, loss and gradient in float64 NumPy, joint by joint as the official code goes."""

from typing import Any

import numpy as np
import torch


def target_truth(
    joint: np.ndarray,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float,
    unbiased: bool,
) -> tuple[np.ndarray, float]:
    """Map (height, width) of one joint and whether it is kept, 1 or 0."""
    (width, height), reach = heatmap_size, 3 * sigma if unbiased else int(3 * sigma)
    nothing = np.zeros((height, width))
    if not (np.abs(joint) < 1e6).all():
        return nothing, 0.0
    centre = [float(joint[i]) / (input_size[i] / heatmap_size[i]) for i in (0, 1)]
    if not unbiased:
        centre = [int(value + 0.5) for value in centre]
    first = [int(value - reach) for value in centre]
    last = [int(value + reach + 1) for value in centre]
    if first[0] >= width or first[1] >= height or last[0] < 0 or last[1] < 0:
        return nothing, 0.0
    dx, dy = np.arange(width) - centre[0], np.arange(height)[:, None] - centre[1]
    gauss = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    if not unbiased:
        gauss = gauss * ((np.abs(dx) <= reach) & (np.abs(dy) <= reach))
    return gauss, 1.0


def loss_truth(
    pred: torch.Tensor, joints: torch.Tensor, weight: torch.Tensor, *, scale: float = 1.0, **target: Any
) -> tuple[float, torch.Tensor]:
    """Loss, and the gradient of `scale * loss`, float64; `target`: input_size, sigma, unbiased, topk."""
    batch, count, height, width = pred.shape
    topk = target.pop("topk", None)
    maps = pred.double().numpy()
    per_joint, gradient = np.zeros((batch, count)), np.zeros(maps.shape)
    for b in range(batch):
        for k in range(count):
            gauss, kept = target_truth(joints[b, k].double().numpy(), (width, height), **target)
            w = float(weight[b, k]) if weight[b, k] > 0 else 0.0
            error = kept * w * (maps[b, k] - gauss * (w > 0))
            per_joint[b, k] = 0.5 * np.mean(error**2)
            gradient[b, k] = kept * w * error / (height * width)
    mask = np.ones((batch, count))
    if topk is not None:
        order = np.argsort(-per_joint, axis=1, kind="stable")[:, :topk]
        mask = np.zeros((batch, count))
        np.put_along_axis(mask, order, 1.0, axis=1)
    total = batch * (count if topk is None else topk)
    gradient = gradient * mask[..., None, None] * (scale / total)
    return float((per_joint * mask).sum() / total), torch.from_numpy(gradient)


def distance(got: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative error, in the norm of the whole tensor."""
    return float(
        torch.linalg.vector_norm(got.double() - truth) / torch.linalg.vector_norm(truth).clamp(min=1e-300)
    )
