"""From a person's box to the crop that the network sees, and points through the same matrix."""

from __future__ import annotations

import math

import cv2
import numpy as np

from fastpose.codecs import CODECS
from fastpose.errors import DataError

PIXELS_PER_SCALE = 200.0


def box_to_center_scale(
    box: np.ndarray, aspect_ratio: float, padding: float = 1.25
) -> tuple[np.ndarray, np.ndarray]:
    """Center and scale of the crop around each box.

    `box` (..., 4) x, y, width, height in image pixels; `aspect_ratio` is width / height of the network's
    input: the side that is short for it grows. Returns center (..., 2) in pixels and scale (..., 2) in
    units of 200 pixels, both float32; a center_x of exactly -1 marks a missing box and is not padded.
    Source: hrnet lib/dataset/coco.py `_xywh2cs`.
    """
    x, y, width, height = np.moveaxis(np.asarray(box, np.float64), -1, 0)
    center = np.stack([x + width * 0.5, y + height * 0.5], -1).astype(np.float32)
    grown_width = np.where(width < aspect_ratio * height, height * aspect_ratio, width)
    grown_height = np.where(width > aspect_ratio * height, width / aspect_ratio, height)
    scale = (np.stack([grown_width, grown_height], -1) / PIXELS_PER_SCALE).astype(np.float32)
    return center, np.where(center[..., :1] != -1, scale * np.float32(padding), scale)


def get_affine_transform(
    center: np.ndarray,
    scale: np.ndarray,
    rotation_deg: float,
    output_size: tuple[int, int],
    inverse: bool = False,
) -> np.ndarray:
    """The (2, 3) float64 matrix from image pixels to crop pixels (`inverse`: back).

    `center` (2,) pixels, `scale` (2,) in units of 200 pixels, of which only the width counts,
    `output_size` (width, height). The centre lands on (width / 2, height / 2). Three points are rounded to
    float32 on the way, as in hrnet lib/utils/transforms.py, whose matrices these are bit for bit.
    Raises DataError when center or scale is not finite or the width is not positive.
    """
    center = np.asarray(center, np.float32)
    source_width = float(np.float32(scale[0]) * np.float32(PIXELS_PER_SCALE))
    if not (source_width > 0 and math.isfinite(source_width) and np.isfinite(center).all()):
        raise DataError(f"no crop for center {center.tolist()} and scale {np.asarray(scale).tolist()}")
    angle = math.pi * rotation_deg / 180
    up = source_width * -0.5
    source = np.empty((3, 2), np.float32)
    source[0] = center
    source[1] = center + np.array([-up * math.sin(angle), up * math.cos(angle)])
    width, height = output_size
    target = np.empty((3, 2), np.float32)
    target[0] = width * 0.5, height * 0.5
    target[1] = width * 0.5, height * 0.5 + width * -0.5
    for points in (source, target):
        across = points[0] - points[1]
        points[2] = points[1] + np.array([-across[1], across[0]], np.float32)
    return cv2.getAffineTransform(target, source) if inverse else cv2.getAffineTransform(source, target)


def get_udp_transform(
    center: np.ndarray,
    scale: np.ndarray,
    rotation_deg: float,
    output_size: tuple[int, int],
    inverse: bool = False,
) -> np.ndarray:
    """`get_affine_transform` in the unit of unbiased data processing: lengths run from pixel to pixel.

    The box of 200 scale_x pixels by the same times height / width reaches from the centre of the crop's first
    pixel to that of its last, and its centre lands on ((width - 1) / 2, (height - 1) / 2), so that a mirrored
    crop is the crop of the mirrored picture. Arguments, errors and the sense of the rotation are those of
    `get_affine_transform` (mmpose turns the other way); float64 throughout.
    Source: arXiv:1911.07524; mmpose structures/bbox/transforms.py, get_udp_warp_matrix.
    """
    center = np.asarray(center, np.float64)
    box_width = float(np.float32(scale[0]) * np.float32(PIXELS_PER_SCALE))
    if not (box_width > 0 and math.isfinite(box_width) and np.isfinite(center).all()):
        raise DataError(f"no crop for center {center.tolist()} and scale {np.asarray(scale).tolist()}")
    width, height = output_size
    angle = math.pi * rotation_deg / 180
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    last = np.array([width - 1, height - 1], np.float64)
    linear = (last / (box_width * np.array([1.0, height / width])))[:, None] * turn
    if inverse:
        linear = np.linalg.inv(linear)
        return np.concatenate([linear, (center - linear @ (last / 2))[:, None]], 1)
    return np.concatenate([linear, (last / 2 - linear @ center)[:, None]], 1)


CROP_TRANSFORMS = {"size": get_affine_transform, "size-1": get_udp_transform}


def crop_transform(
    codec: str, center: np.ndarray, scale: np.ndarray, rotation_deg: float, output_size: tuple[int, int]
) -> np.ndarray:
    """The matrix from image pixels to crop pixels that the weights of a codec were trained with."""
    return CROP_TRANSFORMS[CODECS[codec].unit](center, scale, rotation_deg, output_size)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`points` (..., 2) through a (2, 3) matrix, or through one matrix each (..., 2, 3); float64."""
    points = np.asarray(points, np.float64)
    return np.squeeze(matrix[..., :2] @ points[..., None], -1) + matrix[..., 2]


def warp_crop(image: np.ndarray, matrix: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """The crop of `image` (H, W, 3) uint8 that `matrix` describes, (height, width, 3) uint8.

    Bilinear in the fixed-point arithmetic of OpenCV 4, black outside the image, as the published numbers
    were made (hrnet lib/dataset/JointsDataset.py). `output_size` is (width, height).
    """
    return cv2.warpAffine(image, matrix, output_size, flags=cv2.INTER_LINEAR)
