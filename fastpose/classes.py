"""Sets of classes that pixels are labelled with: names and colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastpose.errors import ConfigError

IGNORE = 255
"""Label of pixels that count neither in a loss nor in a score."""

BACKGROUND = "background"
"""Name of the class of all that is no class."""


@dataclass(frozen=True)
class ClassSet:
    """`names[i]` and `colors[i]`, (r, g, b) from 0 to 255, belong to label i.

    A set that has a background has it first, under the name BACKGROUND. Values that cannot be raise
    ConfigError.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.colors) or len(self.names) > IGNORE:
            raise ConfigError(
                f"class set {self.name!r}: needs one colour for each of 1 to {IGNORE} names, got "
                f"{len(self.names)} names and {len(self.colors)} colours"
            )
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"class set {self.name!r}: a name appears twice")
        if not all(len(c) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in c) for c in self.colors):
            raise ConfigError(f"class set {self.name!r}: colours must be three numbers from 0 to 255")

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassSet:
        """Inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return cls(
            str(values["name"]),
            tuple(str(name) for name in values["names"]),
            tuple(tuple(color) for color in values["colors"]),
        )


def voc_color(label: int) -> tuple[int, int, int]:
    """(r, g, b) of a label from 0 to 255 in the palette of PASCAL VOC.

    Bits 0, 3, 6 of the label are the highest bits of red, bits 1, 4, 7 those of green, bits 2, 5 those of
    blue (VOC development kit, VOClabelcolormap).
    """
    red, green, blue = (
        sum((label >> 3 * place + channel & 1) << 7 - place for place in range(3)) for channel in range(3)
    )
    return red, green, blue


_VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_CITYSCAPES = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152),
    "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142),
    "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}  # fmt: skip

VOC_21 = ClassSet("voc21", (BACKGROUND, *_VOC_NAMES), tuple(voc_color(label) for label in range(21)))
"""PASCAL VOC 2007 and 2012: 20 classes and the background, in their own palette."""

CITYSCAPES_19 = ClassSet("cityscapes19", tuple(_CITYSCAPES), tuple(_CITYSCAPES.values()))
"""The 19 training classes of Cityscapes in the order of their train ids, without a background."""

PERSON_2 = ClassSet("person2", (BACKGROUND, "person"), ((0, 0, 0), (0, 200, 170)))
"""Persons, in a colour that no skin has, and all else."""

BODY_PARTS = ClassSet(
    "bodyparts7",
    (BACKGROUND, "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    ((0, 0, 0), (240, 228, 66), (0, 114, 178), (230, 159, 0), (213, 94, 0), (86, 180, 233), (0, 158, 115)),
)
"""The parts of PASCAL-Person-Part (Chen et al., CVPR 2014, as merged by Chen et al., CVPR 2016), in colours
that colour-blind eyes tell apart (Okabe and Ito)."""

CLASS_SETS = {each.name: each for each in (VOC_21, CITYSCAPES_19, PERSON_2, BODY_PARTS)}
"""The sets above by name."""
