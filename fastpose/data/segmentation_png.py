"""Label maps as PNG: palette indices, grey values or colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from fastpose.classes import IGNORE, ClassSet, voc_color
from fastpose.data.images import decode_pixels, header_problem
from fastpose.errors import DataError, ImageError

VOC_BORDER = voc_color(IGNORE)  # (224, 224, 192)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _COLOUR = 24, 25  # where in a file its first chunk, IHDR, says how pixels are stored
_GREY, _RGB, _INDEX, _RGBA = 0, 2, 3, 6


def decode_labels(data: bytes, name: str, classes: ClassSet) -> np.ndarray:
    """The labels in a PNG, (H, W) uint8; what is no class of the set becomes IGNORE.

    The values of a grey PNG and the indices of one with a palette are labels. The colours of an RGB PNG are
    looked up among those of the classes; VOC's border colour (224, 224, 192) is IGNORE.
    `name` only serves the message.
    Raises ImageError as `decode_image`, and for another format, grey with alpha, or unknown colours.
    """
    values = _values(data, name)
    if values.ndim == 3:
        return _labels_of_colours(values, name, classes)
    return np.where(values < classes.num_classes, values, IGNORE).astype(np.uint8)


def unknown_labels(data: bytes, name: str, classes: ClassSet) -> dict[int, int]:
    """The values that `decode_labels` makes IGNORE though they are another number, and how many pixels have
    each; raises ImageError as it does."""
    values = _values(data, name)
    if values.ndim == 3:
        return {}
    found, counts = np.unique(values, return_counts=True)
    pairs = zip(found.tolist(), counts.tolist(), strict=True)
    return {value: count for value, count in pairs if value >= classes.num_classes and value != IGNORE}


def _values(data: bytes, name: str) -> np.ndarray:
    """(H, W) values or indices as they are stored, or the colours (H, W, 3 or 4)."""
    if not data.startswith(_SIGNATURE) or len(data) <= _COLOUR or data[12:16] != b"IHDR":
        raise ImageError(f"{name}: labels must be a PNG, which loses nothing; convert the file")
    depth, colour = data[_DEPTH], data[_COLOUR]
    reason = header_problem(data, whole=True)
    if reason is not None:
        raise ImageError(f"{name}: {reason}")
    if colour == _INDEX:
        # OpenCV gives a palette's colours only; as a grey picture the same pixels are the indices.
        data = b"".join(_chunks(data, _GREY))
    elif colour not in (_GREY, _RGB, _RGBA):
        raise ImageError(f"{name}: a PNG of grey values with alpha; save the labels without alpha")
    values = decode_pixels(data, name, cv2.IMREAD_UNCHANGED)
    if values.ndim == 2 and depth < 8:
        return values // (255 // ((1 << depth) - 1))  # OpenCV spreads few bits over all 256 greys
    return values


def encode_labels(labels: np.ndarray, classes: ClassSet) -> bytes:
    """(H, W) uint8 labels as a PNG with a palette: the colours of the set, and VOC's for all other values.

    Raises DataError for an array of another kind and for labels that are neither a class nor IGNORE.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise DataError(f"labels: expected (H, W) uint8, got {labels.dtype} {labels.shape}")
    wrong = labels[(labels >= classes.num_classes) & (labels != IGNORE)]
    if wrong.size:
        raise DataError(
            f"labels: {int(wrong[0])} is no class of {classes.name}: 0 to {classes.num_classes - 1}, or "
            f"{IGNORE} for what is to be ignored"
        )
    grey = cv2.imencode(".png", np.ascontiguousarray(labels))[1].tobytes()
    return b"".join(_chunks(grey, _INDEX, palette=_palette(classes)))


def _palette(classes: ClassSet) -> bytes:
    rest = [voc_color(label) for label in range(classes.num_classes, 256)]
    return np.array([*classes.colors, *rest], np.uint8).tobytes()


def _chunks(data: bytes, colour: int, palette: bytes = b"") -> Iterator[bytes]:
    """The pieces of a PNG that is to be read as another kind of pixels."""
    yield _SIGNATURE
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if kind == b"IHDR":
            header = bytearray(data[position + 8 : position + 8 + length])
            header[9] = colour
            yield _chunk(kind, bytes(header))
            if palette:
                yield _chunk(b"PLTE", palette)
        elif kind in (b"IDAT", b"IEND"):
            yield data[position:end]
        position = end


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _labels_of_colours(values: np.ndarray, name: str, classes: ClassSet) -> np.ndarray:
    if values.dtype != np.uint8:
        raise ImageError(f"{name}: colours of 16 bits; save the labels as an index PNG")
    blue, green, red = (values[..., channel].astype(np.int32) for channel in range(3))
    code = red << 16 | green << 8 | blue
    known = {**_codes(classes), _code(VOC_BORDER): IGNORE}
    codes = np.array(sorted(known))
    labels = np.array([known[each] for each in codes.tolist()], np.uint8)
    place = np.searchsorted(codes, code).clip(max=len(codes) - 1)
    unknown = code[codes[place] != code]
    if unknown.size:
        first = int(unknown[0])
        rgb = first >> 16, first >> 8 & 255, first & 255
        raise ImageError(
            f"{name}: colour {rgb} of {unknown.size} pixels is that of no class of {classes.name}; save the "
            "labels as an index PNG"
        )
    return labels[place]


def _codes(classes: ClassSet) -> dict[int, int]:
    codes = {_code(color): label for label, color in enumerate(classes.colors)}
    if len(codes) < classes.num_classes:
        raise DataError(f"{classes.name}: two classes share a colour, so labels cannot be told by colour")
    return codes


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
