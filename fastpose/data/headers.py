"""What an image file says about itself before a pixel is decoded: its size, and whether it is cut short."""

from __future__ import annotations

import struct

FORMATS = "JPEG, PNG, BMP or WebP"

_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a JPEG, PNG, BMP or WebP; None where there is no such header.

    `data` may be the beginning of a file only.
    """
    if data.startswith(b"\xff\xd8"):
        return _walk_jpeg(data)[0]
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"BM"):
            return _bmp_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except struct.error:
        return None
    return None


def is_truncated(data: bytes) -> bool:
    """True when a whole file lacks the mark that ends it; decoders would fill the rest with grey."""
    if data.startswith(b"\xff\xd8"):
        scan = _walk_jpeg(data)[1]
        return scan is None or data.rfind(b"\xff\xd9", scan) < 0
    if data.startswith(_PNG):
        return not _reaches_png_end(data)
    if data.startswith(b"RIFF") and len(data) >= 8:
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _walk_jpeg(data: bytes) -> tuple[tuple[int, int] | None, int | None]:
    """Size in the frame header and offset of the first scan, found by the marker lengths: a thumbnail in
    the metadata has both too and must not be taken for the picture."""
    size: tuple[int, int] | None = None
    position = data.find(b"\xff", 2)
    while 0 <= position <= len(data) - 4:
        marker = data[position + 1]
        if marker == 0xFF:
            step = 1
        elif marker in _WITHOUT_LENGTH:
            step = 2
        elif marker == _END_OF_IMAGE:
            return size, None
        elif marker == _START_OF_SCAN:
            return size, position
        else:
            if marker in _START_OF_FRAME and position + 9 <= len(data):
                height, width = struct.unpack_from(">HH", data, position + 5)
                size = (width, height)
            step = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        position = data.find(b"\xff", position + step)
    return size, None


def _reaches_png_end(data: bytes) -> bool:
    """Whether every chunk up to the last lies in the data: OpenCV takes as much memory as a chunk claims."""
    position = len(_PNG)
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IEND":
            return position <= len(data)
    return False


def _bmp_size(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[14:18], "little") == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return None
