"""What mmpose's decoders do, joint by joint in NumPy: what the engine's own are held against."""

import cv2
import numpy as np


def peak(heatmap: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    return int(x), int(y)


def quarter_point(heatmap: np.ndarray) -> np.ndarray:
    """A quarter cell towards the higher neighbour, each axis by itself."""
    (x, y), (height, width) = peak(heatmap), heatmap.shape
    step = np.zeros(2)
    if 1 < x < width - 1 and y > 0:
        step[0] = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
    if 1 < y < height - 1 and x > 0:
        step[1] = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return np.array([x, y]) + 0.25 * step


def udp_point(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """One Newton step on the logarithm of the blurred map, which its outermost cells continue."""
    x, y = peak(heatmap)
    wide = np.pad(heatmap.astype(np.float64), kernel)
    blurred = cv2.GaussianBlur(wide, (kernel, kernel), 0)[kernel:-kernel, kernel:-kernel]
    level = np.log(np.clip(blurred * (heatmap.max() / blurred.max()), 1e-3, 50))
    around = np.pad(level, 1, mode="edge")[y : y + 3, x : x + 3]  # [row, column], the peak in the middle
    gradient = np.array([around[1, 2] - around[1, 0], around[2, 1] - around[0, 1]]) / 2
    across = around[1, 2] - 2 * around[1, 1] + around[1, 0]
    down = around[2, 1] - 2 * around[1, 1] + around[0, 1]
    sides = around[1, 2] + around[1, 0] + around[2, 1] + around[0, 1]
    both = (around[2, 2] + around[0, 0] + 2 * around[1, 1] - sides) / 2
    hessian = np.array([[across, both], [both, down]]) + np.finfo(np.float32).eps * np.eye(2)
    return np.array([x, y]) - np.linalg.solve(hessian, gradient)


def udp_image_point(
    cells: np.ndarray,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    center: np.ndarray,
    box: np.ndarray,
) -> np.ndarray:
    """Cells to pixels of the image by way of the crop's; `box` is (width, height) in pixels."""
    in_crop = cells / (np.array(heatmap_size) - 1) * np.array(input_size)
    return in_crop / np.array(input_size) * box + center - 0.5 * box
