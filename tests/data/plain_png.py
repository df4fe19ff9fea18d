"""A PNG writer of few lines, for every kind of pixels that OpenCV does not write."""

import struct
import zlib

import numpy as np

GREY, RGB, INDEX, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, INDEX: 1, GREY_ALPHA: 2, RGBA: 4}


def png(values, kind, depth=8, palette=None, extra=()):
    """`values` (H, W) or (H, W, C) as a PNG; `palette` (n, 3) rgb, `extra` further (name, bytes) chunks."""
    height, width = values.shape[:2]
    if depth == 16:
        rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        bits = np.unpackbits(values.astype(np.uint8).reshape(height, -1, 1), axis=2)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra]
    if palette is not None:
        chunks.append((b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    chunks += [(b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
