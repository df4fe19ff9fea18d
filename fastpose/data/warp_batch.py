"""Parts of pictures in a batch instead of crops, for a device that warps them itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from fastpose.data.region import Cutter, Region
from fastpose.errors import ConfigError, DataError
from fastpose.ops import op_status, warp_crops
from fastpose.reference.warp import Mode

PART = ("pixels", "matrix", "origin", "flip")  # of a sample
PARTS = ("pixels", "offsets", "sizes", "matrices", "origins", "flip")  # of a batch
LARGEST_PART = 4.0  # bytes of a part for each byte of its crop
_BEYOND = 2**30  # in units of 1/1024 pixel: sums of two such numbers still fit int32
Row = tuple[float, float, float]


def cut_part(
    region: Region,
    matrix: np.ndarray,
    input_size: tuple[int, int],
    *,
    cutter: Cutter,
    flipped: bool = False,
    largest: float = LARGEST_PART,
) -> dict[str, np.ndarray]:
    """The part of a picture that a crop can see, for a device to warp it with the bits of `Cutter.cut`.

    Args:
        region: holds all of the picture that the crop shows.
        matrix: (2, 3) float64 from the whole picture, mirrored first if `flipped`, to the crop.
        input_size: (width, height) of the crop.
        cutter: cuts what does not travel as a part: means of pixels, and parts of more than `largest` times
            the bytes of the crop. They travel as the crop, with the identity for their matrix.

    Returns:
        The fields PART of a sample: `pixels` (h, w, 3) uint8 BGR, a copy; `matrix` (2, 3) float64; `origin`
        (2,) int32, where the part lies in the (mirrored) picture; `flip` bool.

    Raises:
        DataError: the matrix is not finite.
    """
    left, top, right, bottom = visible_part(matrix, input_size, region.picture)
    too_large = (right - left) * (bottom - top) > largest * input_size[0] * input_size[1]
    if too_large or region.factor != 1:
        crop = cutter.cut(region, matrix, input_size, flipped=flipped)
        return _part(crop, np.eye(2, 3), (0, 0), False)
    height, width = region.pixels.shape[:2]
    x, y = region.corner
    if flipped:
        x = region.picture[0] - x - width
    left, right = max(left, x), min(right, x + width)
    top, bottom = max(top, y), min(bottom, y + height)
    if left >= right or top >= bottom:
        return empty_part()
    columns = slice(x + width - right, x + width - left) if flipped else slice(left - x, right - x)
    return _part(region.pixels[top - y : bottom - y, columns].copy(), matrix, (left, top), flipped)


def empty_part() -> dict[str, np.ndarray]:
    """The fields PART of a black crop, for a sample without a picture."""
    return _part(np.zeros((0, 0, 3), np.uint8), np.eye(2, 3), (0, 0), False)


def visible_part(
    matrix: np.ndarray, input_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels that the crop of `matrix` reads, and one more to each side.

    Within the picture, `right` and `bottom` exclusive; all 0 where the crop misses it. Sizes are (width,
    height). Both modes of `warp_crops` stay inside. Raises DataError for a matrix that is not finite.
    """
    to_x, to_y = _inverse(matrix)
    left, right = _span(to_x, input_size, image_size[0])
    top, bottom = _span(to_y, input_size, image_size[1])
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def collate_parts(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """A batch: the fields PARTS in place of PART, every other field stacked.

    `pixels` (N,) uint8 is all parts one after another, `offsets` (B,) int64 the first byte of each, `sizes`
    (B, 2) int32 their (width, height), `matrices` (B, 2, 3) float64, `origins` (B, 2) int32, `flip` (B,)
    bool. One buffer a batch travels, and is pinned, whatever the sizes.
    """
    others = [{name: sample[name] for name in sample if name not in PART} for sample in samples]
    parts = [sample["pixels"] for sample in samples]
    lengths = [part.size for part in parts]
    return {
        **default_collate(others),
        "pixels": torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts])),
        "offsets": torch.tensor([0, *lengths[:-1]]).cumsum(0),
        "sizes": torch.tensor([(part.shape[1], part.shape[0]) for part in parts], dtype=torch.int32),
        "matrices": torch.from_numpy(np.stack([sample["matrix"] for sample in samples])),
        "origins": torch.from_numpy(np.stack([sample["origin"] for sample in samples])),
        "flip": torch.from_numpy(np.stack([sample["flip"] for sample in samples])),
    }


def warps_on_device(setting: Literal["cpu", "gpu", "auto"], device: torch.device) -> bool:
    """Whether batches carry parts: `gpu` says so, `auto` where one kernel warps them all.

    Raises ConfigError for another setting.
    """
    if setting not in ("cpu", "gpu", "auto"):
        raise ConfigError(f"data.warp must be cpu, gpu or auto, got {setting!r}")
    return setting == "gpu" or (setting == "auto" and op_status(device)["warp_crops"][0] == "triton")


class WarpFeed:
    """Warps the batches of `collate_parts` on a device.

    On CUDA a batch is copied and warped on a stream of its own, beside the step before it, and the current
    stream waits for that; the host waits for nothing if the batch is pinned.

    Args:
        input_size: (width, height).
        device: where the batch goes.
        channel_order: of the crops; pictures are BGR.
        mode: as `fastpose.ops.warp_crops`; "opencv" gives the bytes of the crops of `CropDataset`.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        device: torch.device,
        channel_order: Literal["rgb", "bgr"] = "rgb",
        mode: Mode = "opencv",
    ) -> None:
        self.input_size, self.device, self.mode = input_size, device, mode
        self.reverse = channel_order == "rgb"
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with `crop` (B, height, width, 3) uint8, on the device, in place of its parts.

        The other fields stay where they are. `gain` and `shift` (B, 3), where there are any, change the
        colours and go.
        """
        used = {*PARTS, "gain", "shift"}
        others = {name: tensor for name, tensor in batch.items() if name not in used}
        return {"crop": self._warp(batch), **others}

    def _warp(self, batch: dict[str, Tensor]) -> Tensor:
        if self._stream is None:
            return self._warp_here(batch)
        main = torch.cuda.current_stream(self.device)
        if any(tensor.is_cuda for tensor in batch.values()):
            self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            crops = self._warp_here(batch)
        main.wait_stream(self._stream)
        crops.record_stream(main)
        return crops

    def _warp_here(self, batch: dict[str, Tensor]) -> Tensor:
        names = [name for name in (*PARTS, "gain", "shift") if name in batch]
        moved: dict[str, Any] = {name: batch[name].to(self.device, non_blocking=True) for name in names}
        return warp_crops(
            moved.pop("pixels"),
            moved.pop("matrices"),
            **moved,
            output_size=self.input_size,
            mode=self.mode,
            reverse_channels=self.reverse,
            dtype=torch.uint8,
        )


def _part(
    pixels: np.ndarray, matrix: np.ndarray, origin: tuple[int, int], flip: bool
) -> dict[str, np.ndarray]:
    return {
        "pixels": pixels,
        "matrix": np.asarray(matrix, np.float64),
        "origin": np.array(origin, np.int32),
        "flip": np.array(flip),
    }


def _inverse(matrix: np.ndarray) -> tuple[Row, Row]:
    """As `fastpose.reference.warp.invert_matrices`, for one matrix."""
    (a, b, x), (c, d, y) = np.asarray(matrix, np.float64).tolist()
    if not all(map(math.isfinite, (a, b, x, c, d, y))):
        raise DataError(f"matrix: expected finite numbers, got {[[a, b, x], [c, d, y]]}")
    determinant = a * d - b * c
    over = 1 / determinant if determinant else 0.0
    a, b, c, d = d * over, b * -over, c * -over, a * over
    return (a, b, -a * x - b * y), (c, d, -c * x - d * y)


def _span(to_source: Row, input_size: tuple[int, int], side: int) -> tuple[int, int]:
    """First and last + 1 of the picture's columns, or rows, that a crop reads."""
    slope, across, start = to_source
    columns = [1024.0 * (slope * x) for x in (0, input_size[0] - 1)]
    rows = [1024.0 * (across * y + start) for y in (0, input_size[1] - 1)]
    # Beyond int32 positions wrap around, and NaN is no number to compare with.
    if not all(abs(part) < _BEYOND for part in (*columns, *rows)):
        return 0, side
    first = (round(min(columns)) + round(min(rows)) + 16) >> 10
    last = (round(max(columns)) + round(max(rows)) + 16) >> 10
    return min(max(first - 1, 0), side), min(max(last + 3, 0), side)
