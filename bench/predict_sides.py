"""From JPEG bytes to keypoints as others do it: the rivals of the rows of predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch import Tensor

from bench.official_decode import final_preds
from bench.official_feed import MEAN, STD, to_network
from fastpose.data.affine import box_to_center_scale, get_affine_transform
from fastpose.keypoints import COCO_17

Array = np.ndarray
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Encoded:
    """A picture as it comes from a disk or a network: JPEG bytes, and its people's boxes (N, 4) xywh."""

    data: bytes
    boxes: Array


def decode_rgb(data: bytes) -> Array:
    """(H, W, 3) uint8."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("not a picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def flip_test(network: Network, images: Tensor) -> Array:
    """Heatmaps (B, K, h, w) of a pass and a mirrored one, averaged on the host.

    Source: hrnet lib/core/function.py, validate.
    """
    straight = network(images).float().cpu().numpy()
    back = network(images.flip(3)).float().cpu().numpy()[..., ::-1].copy()
    for left, right in COCO_17.flip_pairs:
        back[:, [left, right]] = back[:, [right, left]]
    back[..., 1:] = back[..., :-1].copy()
    return (straight + back) * 0.5


class CropLoop:
    """One crop after the other, as the demos of most projects run: each person is a batch of its own."""

    def __init__(self, network: Network, size: tuple[int, int], device: str) -> None:
        self.network, self.size, self.device = network, size, device

    @torch.no_grad()
    def __call__(self, pictures: list[Encoded]) -> Array:
        """Keypoints (N, K, 2) of all people."""
        found = []
        for picture in pictures:
            image = decode_rgb(picture.data)
            centers, scales = box_to_center_scale(picture.boxes, self.size[0] / self.size[1])
            for center, scale in zip(centers, scales, strict=True):
                matrix = get_affine_transform(center, scale, 0.0, self.size)
                crop = cv2.warpAffine(image, matrix, self.size, flags=cv2.INTER_LINEAR)
                heatmaps = flip_test(self.network, to_network(crop)[None].to(self.device))
                found.append(final_preds(heatmaps, center[None], scale[None])[0])
        return np.concatenate(found)


class PictureLoop:
    """The people of a picture are a batch, cut by OpenCV; the rest is NumPy on the host.

    As the official demo and its validation run: hrnet demo/demo.py, lib/core/function.py.
    """

    def __init__(self, network: Network, size: tuple[int, int], device: str, *, flip: bool = True) -> None:
        self.network, self.size, self.device, self.flip = network, size, device, flip

    @torch.no_grad()
    def __call__(self, pictures: list[Encoded]) -> Array:
        """Keypoints (N, K, 2) of all people."""
        found = []
        for picture in pictures:
            image = decode_rgb(picture.data)
            centers, scales = box_to_center_scale(picture.boxes, self.size[0] / self.size[1])
            crops = torch.stack([self._cut(image, c, s) for c, s in zip(centers, scales, strict=True)]).to(
                self.device
            )
            maps = flip_test(self.network, crops) if self.flip else self.network(crops).float().cpu().numpy()
            found.append(final_preds(maps, centers, scales)[0])
        return np.concatenate(found)

    def _cut(self, image: Array, center: Array, scale: Array) -> Tensor:
        matrix = get_affine_transform(center, scale, 0.0, self.size)
        return to_network(cv2.warpAffine(image, matrix, self.size, flags=cv2.INTER_LINEAR))


class HostProcessing:
    """The people of a picture are a batch; all that surrounds the network is NumPy and SciPy on the host.

    As the image processor of ViTPose in Hugging Face's transformers is made: each crop is cut by
    scipy.ndimage.affine_transform a channel at a time, and rescaled and normalised by array operations.
    """

    def __init__(self, network: Network, size: tuple[int, int], device: str) -> None:
        self.network, self.size, self.device = network, size, device

    @torch.no_grad()
    def __call__(self, pictures: list[Encoded]) -> Array:
        """Keypoints (N, K, 2) of all people."""
        found = []
        for picture in pictures:
            image = decode_rgb(picture.data)
            center, scale = box_to_center_scale(picture.boxes, self.size[0] / self.size[1])
            crops = [self._cut(image, c, s) for c, s in zip(center, scale, strict=True)]
            heatmaps = flip_test(self.network, torch.from_numpy(np.stack(crops)).to(self.device))
            found.append(final_preds(heatmaps, center, scale)[0])
        return np.concatenate(found)

    def _cut(self, image: Array, center: Array, scale: Array) -> Array:
        """(3, H, W) float32, normalised."""
        back = get_affine_transform(center, scale, 0.0, self.size, inverse=True)
        rows_first = back[::-1, [1, 0, 2]]  # SciPy counts (y, x)
        matrix, offset = rows_first[:, :2], rows_first[:, 2]
        shape = (self.size[1], self.size[0])
        planes = [
            affine_transform(image[..., c], matrix, offset=offset, output_shape=shape, order=1)
            for c in range(3)
        ]
        pixels = np.stack(planes, axis=-1).astype(np.float32) * np.float32(1 / 255)
        normal = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))
