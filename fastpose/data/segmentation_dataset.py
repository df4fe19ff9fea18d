"""From a table of labelled pictures to samples: uint8 pixels and their labels."""

from __future__ import annotations

import logging
from typing import Literal

import cv2
import numpy as np
from torch.utils.data import Dataset

from fastpose.classes import IGNORE
from fastpose.data.annotations import OnBad
from fastpose.data.cache import ImageCache
from fastpose.data.segmentation import Labelled, SegmentationTable
from fastpose.data.segmentation_augment import MEAN_RGB, SegmentationAugmentation, augment_labelled
from fastpose.errors import ConfigError, ImageError

Sample = dict[str, np.ndarray]
_log = logging.getLogger("fastpose.data")


class SegmentationDataset(Dataset[Sample]):
    """Pictures of a table: `dataset[i]`, or `dataset[epoch, i]` for the randomness of an epoch.

    A sample is a dict of arrays: `crop` (H, W, 3) uint8, `label` (H, W) uint8 with IGNORE where nothing
    counts, `index` int64 row of the table, `usable` bool. With an augmentation H and W are those of
    `crop_size`; without one the sample is the whole picture, so a batch of them is one picture.

    The random numbers of a sample depend on (seed, epoch, i) alone, as in `CropDataset`, so any number of
    workers gives the same samples.

    Args:
        table: pictures from a reader.
        crop_size: (width, height) of an augmented crop.
        channel_order: "rgb" or "bgr".
        augmentation: random changes for training; None for evaluation.
        seed: any non-negative int.
        on_bad: "skip" turns a picture that cannot be read, or whose labels cannot, into zeros of
            `crop_size` with `usable` False and label IGNORE, logged once; "stop" raises the ImageError.
        fill: (r, g, b) around a picture smaller than the crop; by default the mean, which the network sees
            as about zero.
        cache_mb: decoded pictures to keep, per worker.

    `decodes` counts the pictures that this process has decoded. Raises ConfigError for arguments outside
    these.
    """

    def __init__(
        self,
        table: SegmentationTable,
        *,
        crop_size: tuple[int, int] = (512, 512),
        channel_order: Literal["rgb", "bgr"] = "rgb",
        augmentation: SegmentationAugmentation | None = None,
        seed: int = 0,
        on_bad: OnBad = "skip",
        fill: tuple[int, int, int] = MEAN_RGB,
        cache_mb: float = 0,
    ) -> None:
        _check(crop_size, channel_order, seed, on_bad, cache_mb)
        self.table = table
        self.crop_size = int(crop_size[0]), int(crop_size[1])
        self.channel_order = channel_order
        self.augmentation = augmentation
        self.seed, self.on_bad, self.fill, self.decodes = seed, on_bad, fill, 0
        self._cache: ImageCache[Labelled] = ImageCache(int(cache_mb * 2**20))
        self._random = np.random.Philox(key=np.random.SeedSequence(seed).generate_state(2, np.uint64))
        self._state = self._random.state
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Sample `i`, or sample (epoch, i). Raises IndexError, and ImageError with `on_bad="stop"`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        sample = self._read(index)
        usable = sample is not None
        if sample is None:
            width, height = self.crop_size
            blank = np.full((height, width), IGNORE, np.uint8)
            sample = Labelled(np.zeros((height, width, 3), np.uint8), blank)
        elif self.augmentation is not None:
            rng = self._generator(epoch, index)
            sample = augment_labelled(self.augmentation, sample, self.crop_size, rng, fill=self.fill)
        rgb = self.channel_order == "rgb"
        return {
            # Copies: a sample must not be a view into the cache.
            "crop": cv2.cvtColor(sample.pixels, cv2.COLOR_BGR2RGB) if rgb else sample.pixels.copy(),
            "label": sample.labels.copy(),
            "index": np.array(index, np.int64),
            "usable": np.array(usable),
        }

    def _generator(self, epoch: int, index: int) -> np.random.Generator:
        # The two low words of the counter are left to the draws of one sample.
        self._state["state"]["counter"] = np.array([0, 0, index, epoch], np.uint64)
        self._random.state = self._state
        return np.random.Generator(self._random)

    def _read(self, index: int) -> Labelled | None:
        try:
            return self._cache.get(index, lambda: self._decode(index))
        except ImageError as error:
            if self.on_bad == "stop":
                raise
            if index not in self._reported:
                self._reported.add(index)
                _log.warning("a picture that cannot be read is skipped: %s", error)
            return None

    def _decode(self, index: int) -> Labelled:
        self.decodes += 1
        return self.table.read(index)


def _check(crop_size: tuple[int, int], channel_order: str, seed: int, on_bad: str, cache_mb: float) -> None:
    if len(crop_size) != 2 or not all(0 < side < 2**15 for side in crop_size):
        raise ConfigError(f"crop_size must be (width, height) in pixels, got {crop_size!r}")
    if channel_order not in ("rgb", "bgr"):
        raise ConfigError(f"channel_order must be 'rgb' or 'bgr', got {channel_order!r}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed!r}")
    if on_bad not in ("skip", "stop"):
        raise ConfigError(f"on_bad must be 'skip' or 'stop', got {on_bad!r}")
    if not cache_mb >= 0:
        raise ConfigError(f"cache_mb must not be negative, got {cache_mb!r}")
