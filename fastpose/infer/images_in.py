"""Pictures in any form that users hold them in, as the one form that everything here works on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from fastpose.data.images import MAX_PIXELS, MAX_SIDE
from fastpose.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

EXPECTED = "a path, an array (H, W, 3) uint8 in BGR order, a PIL image or a tensor (3, H, W) in RGB order"


def is_pil(value: object) -> bool:
    """Whether this is a PIL image, without importing PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def to_bgr(value: Any, name: str, *, upright: bool = True) -> np.ndarray:
    """(H, W, 3) uint8 BGR, contiguous; the array itself where it is just that already.

    value: a NumPy array in OpenCV's order, (H, W, 3) BGR, (H, W, 4) BGRA or grey (H, W) or (H, W, 1), uint8,
    or uint16, of which the upper byte is kept; a PIL image of any mode, turned by its EXIF orientation if
    `upright`; or a torch tensor in torchvision's order, (3, H, W) RGB or (1, H, W) grey, uint8 or floating
    point from 0 to 1, on any device. Alpha is dropped, CMYK converted, grey becomes three equal channels.
    Raises ImageError, calling the picture `name`, for anything else, and for more than 100 megapixels or
    32,767 pixels on a side.
    """
    if value is None:
        raise ImageError(f"{name} is None: cv2.imread gives that for a file that it cannot read")
    if isinstance(value, torch.Tensor):
        return _bgr(_from_tensor(value, name), name)
    if is_pil(value):
        return _bgr(_from_pil(value, name, upright), name)
    if isinstance(value, np.ndarray):
        return _bgr(value, name)
    raise ImageError(f"{name}: expected {EXPECTED}, got {type(value).__name__}")


def _bgr(array: np.ndarray, name: str) -> np.ndarray:
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{name}: expected (H, W, 3) uint8 in BGR order, got {array.shape} {array.dtype}; "
            "grey (H, W), BGRA (H, W, 4) and uint16 are taken too, floating point only as a tensor"
        )
    _check_size(image.shape[1], image.shape[0], name)
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width}x{height} pixels; expected 1 to {MAX_SIDE} on a side, "
            f"at most {MAX_PIXELS} in all"
        )


def _from_tensor(tensor: torch.Tensor, name: str) -> np.ndarray:
    """The tensor's picture as an array in BGR order, or grey."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        hint = "; a tensor is (3, H, W) in RGB order, an array (H, W, 3) in BGR" if tensor.ndim == 3 else ""
        raise ImageError(f"{name}: expected a tensor (3, H, W), got {tuple(tensor.shape)}{hint}")
    pixels = tensor.detach()
    if pixels.is_floating_point():
        if pixels.numel() and not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ImageError(f"{name}: a floating-point tensor must lie in 0 to 1, without NaN; got others")
        pixels = (pixels.float() * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise ImageError(f"{name}: expected a uint8 or floating-point tensor, got {pixels.dtype}")
    return pixels.permute(1, 2, 0).cpu().resolve_neg().numpy()[..., ::-1]


def _from_pil(image: Image, name: str, upright: bool) -> np.ndarray:
    from PIL import ImageOps

    _check_size(*image.size, name)  # before any memory is taken for pixels
    try:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("I", "F"):
            raise ImageError(
                f"{name}: a PIL image of mode {image.mode} has no fixed range; convert it to RGB"
            )
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except ImageError:
        raise
    except Exception as error:  # PIL reads the file only now; its decoders raise errors of many kinds
        raise ImageError(f"{name}: PIL cannot read its pixels ({error}); replace the file") from error
