"""From a table of persons to samples: a uint8 crop with its joints, before any tensor or heatmap."""

from __future__ import annotations

import logging
from typing import Literal

import cv2
import numpy as np
from torch.utils.data import Dataset

from fastpose.codecs import check_codec
from fastpose.data.affine import crop_transform, transform_points
from fastpose.data.annotations import OnBad
from fastpose.data.augment import Augmentation, AugmentedPerson, augment_person
from fastpose.data.cache import ImageCache
from fastpose.data.colour import PLAIN, Colour, apply_colour, draw_colour
from fastpose.data.crop_cache import CropCache
from fastpose.data.persons import PersonTable
from fastpose.data.region import Cutter, Region, whole_picture
from fastpose.data.warp_batch import cut_part, empty_part
from fastpose.errors import ConfigError, ImageError

Sample = dict[str, np.ndarray]
_log = logging.getLogger("fastpose.data")


class CropDataset(Dataset[Sample]):
    """Crops of the persons of a table: `dataset[i]`, or `dataset[epoch, i]` for the randomness of an epoch.

    A sample is a dict of arrays: `crop` (H, W, 3) uint8, `joints` (K, 2) float32 in crop pixels, `visible`
    (K,) and `weight` (K,) float32, `center` (2,) and `scale` (2,) float32 of this crop (augmented, mirrored
    picture if mirrored), `index` int64 row of the table, `usable` bool. As in the official code, joints that
    are not visible are not warped: they keep picture pixels (0 after a mirror), so go by `visible`.

    The random numbers of a sample depend on (seed, epoch, i) alone: the worker's one Philox generator is
    keyed by the seed and its counter set to (epoch, i), so any number of workers gives the same samples.

    Args:
        table: persons from a reader.
        input_size: (width, height) of the crop.
        channel_order: "rgb", or "bgr" for the official pose_resnet weights.
        augmentation: random changes for training; None for evaluation.
        seed: any non-negative int.
        on_bad: "skip" turns a person whose picture cannot be read into a sample of zeros with `usable`
            False and weight 0, logged once per file and process; "stop" raises the ImageError.
        joint_weights: multiply `weight` by the official weights per joint.
        cache_mb: decoded pictures to keep, per worker.
        crops: where to read the persons from instead of `table.images`. In a lossless cache every sample is
            the same to the byte.
        codec: of the network, one of `fastpose.codecs.CODECS`, which decides how long a crop is.
        parts: the part of the picture that the crop shows instead of `crop`, in the fields PART of
            `fastpose.data.warp_batch`, whose WarpFeed makes the same crops of them on a GPU.

    `decodes` counts the pictures that this process has decoded. Raises ConfigError for arguments outside
    these and for a crop cache that does not fit the table and the augmentation.
    """

    def __init__(
        self,
        table: PersonTable,
        *,
        input_size: tuple[int, int] = (192, 256),
        channel_order: Literal["rgb", "bgr"] = "rgb",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        on_bad: OnBad = "skip",
        joint_weights: bool = False,
        cache_mb: float = 0,
        crops: CropCache | None = None,
        codec: str = "msra",
        parts: bool = False,
    ) -> None:
        _check(input_size, channel_order, seed, on_bad, cache_mb)
        check_codec(codec, "dataset")
        if crops is not None:
            crops.check_fits(table, augmentation, input_size[0] / input_size[1])
        self.table = table
        self.input_size = int(input_size[0]), int(input_size[1])
        self.channel_order = channel_order
        self.codec = codec
        self.augmentation = augmentation
        self.seed = seed
        self.on_bad = on_bad
        weights = table.keypoints.joint_weights if joint_weights else (1.0,) * table.keypoints.num_joints
        self._joint_weights = np.array(weights, np.float32)
        self.crops, self.parts, self.decodes = crops, parts, 0
        self._cache: ImageCache[Region] = ImageCache(int(cache_mb * 2**20))
        self._cutter = Cutter()
        self._random = np.random.Philox(key=np.random.SeedSequence(seed).generate_state(2, np.uint64))
        self._state = self._random.state
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Sample `i`, or sample (epoch, i). Raises IndexError, and ImageError with `on_bad="stop"`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"person {index} of {len(self)}")
        region = self._region(index)
        if region is None:
            return self._unusable(index)
        person = self._person(index, region.picture[0], self._generator(epoch, index))
        matrix = crop_transform(self.codec, person.center, person.scale, person.rotation, self.input_size)
        shown = (person.visible > 0)[:, None]
        joints = np.where(shown, transform_points(person.joints, matrix), person.joints)
        return {
            **self._pixels(region, matrix, person.flipped, self._colour(epoch, index)),
            "joints": joints.astype(np.float32),
            "visible": person.visible,
            "weight": person.visible * self._joint_weights,
            "center": person.center,
            "scale": person.scale,
            "index": np.array(index, np.int64),
            "usable": np.array(True),
        }

    def _pixels(self, region: Region, matrix: np.ndarray, flipped: bool, colour: Colour | None) -> Sample:
        if self.parts:
            part = cut_part(region, matrix, self.input_size, cutter=self._cutter, flipped=flipped)
            return part if colour is None else {**part, **colour._asdict()}
        crop = self._cutter.cut(region, matrix, self.input_size, flipped=flipped)
        if self.channel_order == "rgb":
            crop = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, crop)
        return {"crop": crop if colour is None else apply_colour(crop, colour)}

    def _colour(self, epoch: int, index: int) -> Colour | None:
        # Numbers of their own, so that everything else is drawn as without colours.
        options = self.augmentation
        if options is None or not options.recolours:
            return None
        return draw_colour(options, self._generator(epoch, index, stream=1))

    def _person(self, index: int, image_width: int, rng: np.random.Generator) -> AugmentedPerson:
        table = self.table
        joints, visible = table.joints[index], table.visible[index].copy()
        center, scale = table.center[index].copy(), table.scale[index].copy()
        if self.augmentation is None:
            return AugmentedPerson(joints, visible, center, scale, 0.0, False)
        return augment_person(
            self.augmentation,
            table.keypoints,
            joints,
            visible,
            center,
            scale,
            aspect_ratio=self.input_size[0] / self.input_size[1],
            image_width=image_width,
            rng=rng,
        )

    def _generator(self, epoch: int, index: int, stream: int = 0) -> np.random.Generator:
        # The lowest word of the counter is left to the draws of one stream of a sample.
        self._state["state"]["counter"] = np.array([0, stream, index, epoch], np.uint64)
        self._random.state = self._state
        return np.random.Generator(self._random)

    def _region(self, index: int) -> Region | None:
        key = index if self.crops is not None else int(self.table.image_index[index])
        try:
            return self._cache.get(key, lambda: self._decode(index))
        except ImageError as error:
            if self.on_bad == "stop":
                raise
            if key not in self._reported:
                self._reported.add(key)
                _log.warning("persons of an unreadable picture are skipped: %s", error)
            return None

    def _decode(self, index: int) -> Region:
        name = str(self.table.file_names[self.table.image_index[index]])
        self.decodes += 1
        if self.crops is not None:
            return self.crops.read(index, name)
        return whole_picture(self.table.images.read(name))

    def _unusable(self, index: int) -> Sample:
        width, height = self.input_size
        joints = self.table.keypoints.num_joints
        black = {"crop": np.zeros((height, width, 3), np.uint8)}
        recolours = self.augmentation is not None and self.augmentation.recolours
        part = {**empty_part(), **PLAIN._asdict()} if recolours else empty_part()
        return {
            **(part if self.parts else black),
            "joints": np.zeros((joints, 2), np.float32),
            "visible": np.zeros(joints, np.float32),
            "weight": np.zeros(joints, np.float32),
            "center": self.table.center[index].copy(),
            "scale": self.table.scale[index].copy(),
            "index": np.array(index, np.int64),
            "usable": np.array(False),
        }


def _check(input_size: tuple[int, int], channel_order: str, seed: int, on_bad: str, cache_mb: float) -> None:
    if len(input_size) != 2 or not all(0 < side < 2**15 for side in input_size):
        raise ConfigError(f"input_size must be (width, height) in pixels, got {input_size!r}")
    if channel_order not in ("rgb", "bgr"):
        raise ConfigError(f"channel_order must be 'rgb' or 'bgr', got {channel_order!r}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed!r}")
    if on_bad not in ("skip", "stop"):
        raise ConfigError(f"on_bad must be 'skip' or 'stop', got {on_bad!r}")
    if cache_mb < 0:
        raise ConfigError(f"cache_mb must not be negative, got {cache_mb!r}")
