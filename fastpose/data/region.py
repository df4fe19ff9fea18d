"""Crops out of a part of a picture, to the byte those out of the whole."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fastpose.data.affine import warp_crop


class Region(NamedTuple):
    """A rectangle of a picture, or all of it."""

    pixels: np.ndarray  # (h, w, 3) uint8 BGR; must not be written to
    corner: tuple[int, int]  # (x, y) in the picture of its first pixel
    picture: tuple[int, int]  # (width, height) of the whole picture
    factor: int = 1  # pixels of the picture along the side of one here

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def whole_picture(pixels: np.ndarray) -> Region:
    """(H, W, 3) uint8 BGR as a Region."""
    return Region(pixels, (0, 0), (pixels.shape[1], pixels.shape[0]))


class Cutter:
    """Cuts crops out of regions; keeps memory as large as the largest picture. Not for several threads."""

    def __init__(self) -> None:
        self._canvas = np.empty((0, 0), np.uint8)

    def __reduce__(self) -> tuple[type[Cutter], tuple[()]]:
        return Cutter, ()

    def cut(
        self, region: Region, matrix: np.ndarray, output_size: tuple[int, int], *, flipped: bool = False
    ) -> np.ndarray:
        """What `warp_crop` cuts out of the whole picture, mirrored first if `flipped`: (H, W, 3) uint8.

        `matrix` (2, 3) float64 leads from pixels of the whole picture, mirrored or not, to those of the
        crop; `output_size` is (width, height). The region must hold all of the picture that the crop shows.
        With factor 1 every byte is that of the whole picture; with a larger one the pixels are means.
        """
        pixels = cv2.flip(region.pixels, 1) if flipped else region.pixels
        x, y = region.corner
        if flipped:
            x = region.picture[0] - x - pixels.shape[1] * region.factor
        if region.factor > 1:
            return _cut_reduced(pixels, (x, y), region.factor, matrix, output_size)
        if (x, y) != (0, 0):
            pixels = self._in_place(pixels, (x, y), region.picture)
        return warp_crop(pixels, matrix, output_size)

    def picture(self, region: Region) -> np.ndarray:
        """(H, W, 3) uint8 as large as the picture, right where the region is, until the next call.

        Raises ValueError for a region whose factor is not 1.
        """
        if region.factor != 1:
            raise ValueError(f"region: expected factor 1, got {region.factor}; cut it instead")
        return self._in_place(region.pixels, region.corner, region.picture)

    def _in_place(self, pixels: np.ndarray, corner: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
        """The pixels where they are in the picture, for a matrix moved to their corner rounds now and then
        to another 1/32 pixel. What lies around them is left over from others; the crop does not show it."""
        (x, y), (height, width) = corner, pixels.shape[:2]
        rows, columns = self._canvas.shape
        if rows < picture[1] or columns < 3 * picture[0]:
            self._canvas = np.empty((max(rows, picture[1]), max(columns, 3 * picture[0])), np.uint8)
        canvas = self._canvas[: picture[1], : 3 * picture[0]]
        # Rows of bytes copy five times as fast as rows of pixels.
        canvas[y : y + height, 3 * x : 3 * (x + width)] = pixels.reshape(height, -1)
        return canvas.reshape(picture[1], picture[0], 3)


def _cut_reduced(
    pixels: np.ndarray, corner: tuple[int, int], factor: int, matrix: np.ndarray, output_size: tuple[int, int]
) -> np.ndarray:
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    inverse[:, 2] -= np.array(corner) + (factor - 1) / 2  # the first mean lies in the middle of its pixels
    inverse = inverse / factor
    return cv2.warpAffine(pixels, inverse, output_size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
