"""The official decoder's procedure in NumPy, written from its description: the baseline of bench_decode.py.

It keeps what decides the time: two passes for argmax and maximum, a Python loop over every joint for the
quarter shift, and one small matrix product per joint for the way back into the image.
Source: hrnet lib/core/inference.py (get_max_preds, get_final_preds), lib/utils/transforms.py.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

Array = np.ndarray


def max_preds(heatmaps: Array) -> tuple[Array, Array]:
    """(B, K, H, W) -> peaks (B, K, 2) in heatmap pixels, (0, 0) unless positive, and values (B, K, 1)."""
    batch, joints, _, width = heatmaps.shape
    flat = heatmaps.reshape(batch, joints, -1)
    index = np.argmax(flat, axis=2).reshape(batch, joints, 1)
    value = np.amax(flat, axis=2).reshape(batch, joints, 1)
    peaks = np.tile(index, (1, 1, 2)).astype(np.float32)
    peaks[:, :, 0] = peaks[:, :, 0] % width
    peaks[:, :, 1] = np.floor(peaks[:, :, 1] / width)
    peaks *= np.tile(np.greater(value, 0.0), (1, 1, 2)).astype(np.float32)
    return peaks, value


def inverse_affine(center: Array, scale: Array, size: tuple[int, int]) -> Array:
    """(2, 3) float64: heatmap to image pixels for a box without rotation, from three float32 points."""
    width, height = size
    box_width = (scale * 200.0)[0]
    image, heatmap = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    image[0], image[1] = center, center + np.array([0.0, box_width * -0.5])
    heatmap[0], heatmap[1] = [width * 0.5, height * 0.5], [width * 0.5, height * 0.5 - width * 0.5]
    for points in (image, heatmap):
        across = points[0] - points[1]
        points[2] = points[1] + np.array([-across[1], across[0]], np.float32)
    return np.asarray(cv2.getAffineTransform(heatmap, image))


def final_preds(heatmaps: Array, center: Array, scale: Array) -> tuple[Array, Array]:
    """(B, K, H, W), (B, 2), (B, 2) -> keypoints (B, K, 2) float32 in image pixels and values (B, K, 1)."""
    coords, value = max_preds(heatmaps)
    height, width = heatmaps.shape[2:]
    for n in range(coords.shape[0]):
        for k in range(coords.shape[1]):
            hm = heatmaps[n][k]
            x = math.floor(coords[n][k][0] + 0.5)
            y = math.floor(coords[n][k][1] + 0.5)
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = np.array([hm[y][x + 1] - hm[y][x - 1], hm[y + 1][x] - hm[y - 1][x]])
                coords[n][k] += np.sign(slope) * 0.25
    preds = coords.copy()
    for n in range(coords.shape[0]):
        matrix = inverse_affine(center[n], scale[n], (width, height))
        mapped = np.zeros(coords[n].shape)
        for k in range(coords.shape[1]):
            mapped[k] = np.dot(matrix, np.array([coords[n][k][0], coords[n][k][1], 1.0]))[:2]
        preds[n] = mapped
    return preds, value
