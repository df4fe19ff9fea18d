"""Sheets of predictions: the fastest way to see what a run has learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastpose.data.affine import get_affine_transform, transform_points, warp_crop
from fastpose.data.persons import PersonTable
from fastpose.errors import ImageError
from fastpose.infer.draw import draw_poses
from fastpose.infer.forward import Predictions
from fastpose.infer.predictor import Predictor
from fastpose.infer.results import write_png
from fastpose.infer.sheet import contact_sheet

CELL = (192, 256)


def save_sheet(path: Path, table: PersonTable, predictions: Predictions, count: int = 24) -> None:
    """Writes a PNG with `count` persons spread evenly over the table, each cut out and drawn."""
    usable = np.flatnonzero(predictions.usable)
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).astype(int))]
    cells = []
    for position in chosen:
        try:
            cells.append(_cell(table, predictions, int(position)))
        except ImageError:
            continue
    if cells:
        write_png(path, contact_sheet(cells, columns=6, cell=CELL))


def _cell(table: PersonTable, predictions: Predictions, position: int) -> np.ndarray:
    row = predictions.index[position]
    image = table.images.read(str(table.file_names[table.image_index[row]]))
    matrix = get_affine_transform(table.center[row], table.scale[row], 0.0, CELL)
    crop = warp_crop(image, matrix, CELL)
    keypoints = transform_points(predictions.keypoints[position].astype(np.float64), matrix)
    return draw_poses(crop, keypoints[None], predictions.score[position][None], table.keypoints)


def save_pictures(path: Path, table: PersonTable, predictor: Predictor, count: int = 12) -> None:
    """Writes a PNG with the first `count` pictures of the table, each with all its persons predicted."""
    cells = []
    for row in np.unique(table.image_index)[:count]:
        image = table.images.read(str(table.file_names[row]))
        (result,) = predictor(image, table.box[table.image_index == row])
        points = result.keypoints
        cells.append(draw_poses(image, points.xy, points.conf, predictor.keypoints, boxes=result.boxes.xywh))
    write_png(path, contact_sheet(cells, columns=4, cell=(256, 256)))
