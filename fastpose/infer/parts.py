"""Parts of pictures to the device in one copy, and the crops cut out of them there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose.infer.stages import Crops
from fastpose.ops import warp_crops

_ALIGN = 16
"""Bytes; a kernel is compiled anew for addresses that are no multiple of it."""
_FIELDS: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
    "offsets": (torch.int64, ()),
    "matrices": (torch.float64, (2, 3)),
    "sizes": (torch.int32, (2,)),
    "origins": (torch.int32, (2,)),
}
"""What `warp_crops` takes of each picture beside its pixels."""


class PartWarp:
    """The crops of `Crops` that are parts of pictures, (B, H, W, 3) uint8 on the device.

    A batch travels as one buffer, pinned for a GPU: sizes, matrices and all pixels one after another. On CUDA
    it is copied and cut on a stream of its own, beside the batch before it, and the current stream waits for
    that; the host waits for nothing. The pixels are those of cv2.warpAffine, bit for bit, also on a CPU.

    Args:
        input_size: (width, height) of the crops.
        channel_order: 'rgb' or 'bgr', of the crops; parts are BGR.
        device: where the crops are wanted.
    """

    def __init__(self, input_size: tuple[int, int], channel_order: str, device: torch.device) -> None:
        self.input_size, self.device = input_size, device
        self.reverse = channel_order == "rgb"
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, crops: Crops, size: int) -> Tensor:
        """The crops and black ones after them, `size` in all, in the network's channel order."""
        packed = pack(crops, size, pinned=self._stream is not None)
        if self._stream is None:
            return self._cut(packed, size)
        main = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            cut = self._cut(packed.to(self.device, non_blocking=True), size)
        main.wait_stream(self._stream)
        cut.record_stream(main)
        return cut

    def _cut(self, packed: Tensor, size: int) -> Tensor:
        fields: dict[str, Any] = unpack(packed, size)
        return warp_crops(
            fields.pop("images"),
            fields.pop("matrices"),
            **fields,
            output_size=self.input_size,
            mode="opencv",
            reverse_channels=self.reverse,
            dtype=torch.uint8,
        )


def pack(crops: Crops, size: int, *, pinned: bool = False) -> Tensor:
    """(N,) uint8: all that `warp_crops` needs of the parts and of empty ones after them, `size` in all."""
    lengths = np.array([part.size for part in crops.pixels], np.int64)
    ends = np.cumsum(lengths)
    head = _places(size)["images"]
    packed = torch.empty(head + int(lengths.sum()), dtype=torch.uint8, pin_memory=pinned)
    fields = {name: tensor.numpy() for name, tensor in unpack(packed, size).items()}
    count = len(crops.pixels)
    fields["offsets"][:count] = ends - lengths
    fields["sizes"][:count] = [(part.shape[1], part.shape[0]) for part in crops.pixels]
    fields["matrices"][:count], fields["origins"][:count] = crops.matrix, crops.origin
    fields["matrices"][count:] = np.eye(2, 3)
    for name in ("offsets", "sizes", "origins"):
        fields[name][count:] = 0
    for part, end in zip(crops.pixels, ends, strict=True):
        fields["images"][end - part.size : end] = part.reshape(-1)
    return packed


def unpack(packed: Tensor, size: int) -> dict[str, Tensor]:
    """The arguments of `warp_crops` in the buffer of `pack`, without a copy."""
    places = _places(size)
    fields = {"images": packed[places["images"] :]}
    for name, (dtype, shape) in _FIELDS.items():
        start = places[name]
        stop = start + _bytes(size, dtype, shape)
        fields[name] = packed[start:stop].view(dtype).view(size, *shape)
    return fields


def _places(size: int) -> dict[str, int]:
    """First byte of each field, and of the pixels behind them."""
    places, at = {}, 0
    for name, (dtype, shape) in _FIELDS.items():
        places[name] = at
        at += -(-_bytes(size, dtype, shape) // _ALIGN) * _ALIGN
    return {**places, "images": at}


def _bytes(size: int, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return size * math.prod(shape) * dtype.itemsize
