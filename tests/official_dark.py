"""DARK over whole maps with OpenCV's own blur: what the decoders, which blur 13 points, are held against."""

import cv2
import numpy as np
import torch


def blurred_logarithm(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """Logarithm of a map (H, W) after blur, rescaling to its old maximum and clamp, in float64."""
    bordered = cv2.copyMakeBorder(heatmap.astype(np.float64), *[kernel] * 4, cv2.BORDER_CONSTANT)
    blurred = cv2.GaussianBlur(bordered, (kernel, kernel), 0)[kernel:-kernel, kernel:-kernel]
    return np.log(np.maximum(blurred * (heatmap.max() / blurred.max()), 1e-10))


def dark_point(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """(x, y) of one map (H, W) without NaN, infinities or equal peaks."""
    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    point = np.array([x, y], np.float64)
    if heatmap.max() <= 0:
        return np.zeros(2)
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return point
    level = blurred_logarithm(heatmap, kernel)
    rise_y, rise_x = np.gradient(level)  # central differences
    gradient = np.array([rise_x[y, x], rise_y[y, x]])
    across, down = np.gradient(rise_x), np.gradient(rise_y)
    hessian = np.array([[across[1][y, x], across[0][y, x]], [down[1][y, x], down[0][y, x]]])
    if np.linalg.det(hessian) == 0:
        return point
    return point - np.linalg.solve(hessian, gradient)


def dark_points(heatmaps: torch.Tensor, kernel: int) -> np.ndarray:
    """(B, K, 2) of maps (B, K, H, W)."""
    maps = heatmaps.float().numpy()
    return np.array([[dark_point(heatmap, kernel) for heatmap in image] for image in maps])


def gaussian_maps(
    shape: tuple[int, int, int, int], sigma: float, *, margin: float = 6.0, noise: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (B, K, H, W) float32 of one Gaussian each, and their true centres (B, K, 2) float64."""
    batch, joints, height, width = shape
    span = torch.tensor([width - 1 - 2 * margin, height - 1 - 2 * margin], dtype=torch.float64)
    center = margin + torch.rand(batch, joints, 2, dtype=torch.float64) * span
    dx = torch.arange(width) - center[..., None, None, 0]
    dy = torch.arange(height)[:, None] - center[..., None, None, 1]
    maps = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    return (maps + noise * torch.randn_like(maps)).float(), center
