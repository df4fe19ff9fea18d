"""People cut out of a picture: their crops, or the parts of it out of which the device cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from fastpose.data.affine import box_to_center_scale, crop_transform, warp_crop
from fastpose.data.region import Cutter, whole_picture
from fastpose.data.warp_batch import cut_part, warps_on_device
from fastpose.errors import ConfigError
from fastpose.infer.stages import Crop
from fastpose.models import ModelMeta

Warp = Literal["auto", "cpu", "gpu"]


def cuts_on_device(setting: Warp, device: torch.device) -> bool:
    """Whether crops are cut where the network is: as asked, or on a GPU whose kernel can.

    `gpu` on a CPU is the same operation there. Raises ConfigError for another setting.
    """
    if setting not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"warp: expected 'auto', 'cpu' or 'gpu', got {setting!r}")
    return setting == "gpu" or (device.type == "cuda" and warps_on_device(setting, device))


class PersonCutter:
    """Boxes (N, 4) xywh of a picture (H, W, 3) uint8 BGR to one `Crop` each, as they are asked for.

    With `parts` a crop is the part of the picture that it shows, a copy, and `fastpose.infer.parts.PartWarp`
    makes the pixels of it; one larger than four times its crop's bytes is cut here. Either way they are those
    of `warp_crop`, bit for bit. May be used by several threads.
    """

    def __init__(self, meta: ModelMeta, *, parts: bool = False) -> None:
        self.meta, self.parts = meta, parts

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> Iterator[Crop]:
        size = self.meta.input_size
        one = self._part if self.parts else self._crop
        center, scale = box_to_center_scale(boxes, size[0] / size[1])
        for c, s in zip(center, scale, strict=True):
            yield one(image, crop_transform(self.meta.codec, c, s, 0.0, size), c, s)

    def _crop(self, image: np.ndarray, matrix: np.ndarray, center: np.ndarray, scale: np.ndarray) -> Crop:
        pixels = warp_crop(image, matrix, self.meta.input_size)
        return Crop(pixels[..., ::-1] if self.meta.channel_order == "rgb" else pixels, center, scale)

    def _part(self, image: np.ndarray, matrix: np.ndarray, center: np.ndarray, scale: np.ndarray) -> Crop:
        # Nothing of a whole picture stays in a cutter, but one is not for several threads.
        part = cut_part(whole_picture(image), matrix, self.meta.input_size, cutter=Cutter())
        return Crop(part["pixels"], center, scale, part["matrix"], part["origin"])
