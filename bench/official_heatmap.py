"""The official target generator in NumPy, written from its description: the rival of bench_heatmap.py.

It keeps what decides the time: one call per image, a Python loop over the joints, and a patch of the Gaussian
computed for each and copied into the map.
Source: hrnet lib/dataset/JointsDataset.py, generate_target.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def generate_target(
    joints: Array, visible: Array, heatmap_size: tuple[int, int], input_size: tuple[int, int], sigma: float
) -> tuple[Array, Array]:
    """Joints (K, 2) in input pixels and visible (K,) -> heatmaps (K, height, width) and weight (K,)."""
    width, height = heatmap_size
    weight = visible.astype(np.float32)
    target = np.zeros((len(joints), height, width), np.float32)
    stride = np.array(input_size) / np.array(heatmap_size)
    reach = sigma * 3
    for k in range(len(joints)):
        mu_x = int(joints[k][0] / stride[0] + 0.5)
        mu_y = int(joints[k][1] / stride[1] + 0.5)
        left, top = int(mu_x - reach), int(mu_y - reach)
        right, bottom = int(mu_x + reach + 1), int(mu_y + reach + 1)
        if left >= width or top >= height or right < 0 or bottom < 0:
            weight[k] = 0
            continue
        size = 2 * reach + 1
        x = np.arange(0, size, 1, dtype=np.float32)
        y = x[:, np.newaxis]
        middle = size // 2
        patch = np.exp(-((x - middle) ** 2 + (y - middle) ** 2) / (2 * sigma**2))
        patch_x = max(0, -left), min(right, width) - left
        patch_y = max(0, -top), min(bottom, height) - top
        map_x = max(0, left), min(right, width)
        map_y = max(0, top), min(bottom, height)
        if weight[k] > 0.5:
            target[k][map_y[0] : map_y[1], map_x[0] : map_x[1]] = patch[
                patch_y[0] : patch_y[1], patch_x[0] : patch_x[1]
            ]
    return target, weight


def generate_targets(
    joints: Array, visible: Array, heatmap_size: tuple[int, int], input_size: tuple[int, int], sigma: float
) -> tuple[Array, Array]:
    """The same for a batch: (B, K, 2), (B, K) -> (B, K, height, width), (B, K)."""
    pairs = [
        generate_target(*image, heatmap_size, input_size, sigma)
        for image in zip(joints, visible, strict=True)
    ]
    return np.stack([target for target, _ in pairs]), np.stack([weight for _, weight in pairs])
