"""Random changes of a crop's colours: one gain and one shift a channel."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fastpose.data.augment import Augmentation

MIDDLE = 127.5
"""The grey level that a change of contrast leaves as it is."""


class Colour(NamedTuple):
    """Grey levels become `gain * grey + shift`, cut to 0..255; both (3,) float32 in the crop's channels."""

    gain: np.ndarray
    shift: np.ndarray


PLAIN = Colour(np.ones(3, np.float32), np.zeros(3, np.float32))


def draw_colour(options: Augmentation, rng: np.random.Generator) -> Colour:
    """A random Colour.

    All five numbers are uniform from -1 to 1: contrast turns every grey level about the middle, brightness
    adds to all of them, tint multiplies each channel by a factor of its own.
    """
    contrast, brightness, *tint = rng.uniform(-1, 1, 5)
    gain = 1 + options.contrast * contrast
    shift = MIDDLE * (1 - gain) + 255 * options.brightness * brightness
    factor = 1 + options.tint * np.array(tint)
    return Colour((gain * factor).astype(np.float32), (shift * factor).astype(np.float32))


def apply_colour(crop: np.ndarray, colour: Colour) -> np.ndarray:
    """The crop (H, W, 3) uint8 in other colours, rounded ties to even, as `fastpose.ops.warp_crops` does it.

    Changed in place. A crop has 256 grey levels a channel, so a table of 768 numbers is all arithmetic.
    """
    levels = np.arange(256, dtype=np.float32)[:, None] * colour.gain + colour.shift
    table = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return cv2.LUT(crop, table[None], crop)
