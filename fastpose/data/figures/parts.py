"""Body parts of rendered figures as a segmentation set, exact to the pixel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastpose.classes import BODY_PARTS, IGNORE
from fastpose.data.figures.render import dress, fill
from fastpose.data.figures.scene import Scene
from fastpose.data.figures.shapes import PARTS
from fastpose.data.figures.style import FigureStyle
from fastpose.data.figures.table import FigureImages, file_name
from fastpose.data.segmentation import SegmentationTable
from fastpose.data.voc import write_voc

_CLASS_OF = {
    "background": "background", "head": "head", "neck": "torso", "torso": "torso", "pelvis": "torso",
    "upper_arm": "upper arms", "forearm": "lower arms", "hand": "lower arms", "thigh": "upper legs",
    "shin": "lower legs", "foot": "lower legs",
}  # fmt: skip
_LABELS = [BODY_PARTS.names.index(_CLASS_OF[p.removeprefix("left_").removeprefix("right_")]) for p in PARTS]


@dataclass(frozen=True)
class FigureParts:
    """A LabelSource: the body parts in the pictures of a FigureImages, under the pictures' names."""

    images: FigureImages

    def read(self, name: str) -> np.ndarray:
        """(H, W) uint8 labels of BODY_PARTS; ImageError when no picture has this name."""
        return part_labels(self.images.scene(name))


def part_labels(scene: Scene) -> np.ndarray:
    """(H, W) uint8 labels of BODY_PARTS of the picture that `render` draws.

    Neck and pelvis belong to the torso, hands to the lower arms, feet to the lower legs; hair is the head's,
    a skirt the torso's, and what stands in front is background. A pixel on an edge, in which the picture
    mixes two classes, is IGNORE, as in PASCAL VOC.
    """
    width, height = scene.image_size
    canvas = np.zeros((2 * height, 2 * width), np.uint8)
    _, _, patches = dress(scene)
    for place, figure in enumerate(scene.figures):
        for shape in figure.shapes:
            for outline in (shape.outline, *(patch for patch, _ in patches[place].get(shape.details, []))):
                fill(canvas, outline, _LABELS[shape.part])
        for prop in scene.props:
            if prop.after == place + 1:
                for outline in prop.outlines:
                    fill(canvas, outline, 0)
    first, *others = (canvas[y::2, x::2] for y in (0, 1) for x in (0, 1))
    mixed = np.logical_or.reduce([first != other for other in others])
    labels = first.copy()
    labels[mixed] = IGNORE
    return labels


def read_figure_parts(
    count: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = (256, 256),
    style: FigureStyle | None = None,
) -> SegmentationTable:
    """`count` rendered pictures with the labels of `part_labels`; the pictures are those of `read_figures`.

    image_size is (width, height). Take another seed for held-out pictures. Raises DataError for what
    FigureImages refuses.
    """
    images = FigureImages(count, seed, image_size, style or FigureStyle())
    names = np.array([file_name(index) for index in range(count)])
    return SegmentationTable(BODY_PARTS, images, FigureParts(images), names, names)


def write_figure_parts(
    out: str | os.PathLike[str],
    count: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = (256, 256),
    split: str = "train",
    style: FigureStyle | None = None,
) -> Path:
    """Writes `read_figure_parts` of the same arguments in VOC's layout and returns the list of the split.

    The layout has one folder of pictures for all splits, so a picture's name starts with that of its split.
    Raises DataError for bad arguments and OutputError when a file cannot be written.
    """
    table = read_figure_parts(count, seed=seed, image_size=image_size, style=style)
    pictures = ((f"{split}_{name}", image, labels) for name, image, labels in table.pictures())
    return write_voc(out, split, pictures, table.classes)
