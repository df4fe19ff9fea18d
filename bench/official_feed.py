"""The official training pipeline of one sample, written from its description: the rival of bench_feed.py.

It keeps what decides the time: each person's picture is read, decoded and converted anew, mirrored whole and
cut, the crop made a normalised float tensor, the joints taken through the matrix one by one, and the target
drawn in NumPy.
Source: hrnet lib/dataset/JointsDataset.py, `__getitem__`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.official_heatmap import generate_target
from fastpose.data.affine import get_affine_transform
from fastpose.data.augment import Augmentation, augment_person
from fastpose.data.persons import PersonTable

Array = np.ndarray
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_rgb(path: Path) -> Array:
    """The decoded picture, all of it converted to RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise ValueError(f"{path}: cannot be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def to_network(crop: Array) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32, as ToTensor and Normalize of torchvision do."""
    tensor = torch.from_numpy(crop.transpose(2, 0, 1)).contiguous().to(torch.float32).div(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return tensor.sub_(mean).div_(std)


def warp_joints(joints: Array, visible: Array, matrix: Array) -> Array:
    """(K, 2) through the matrix, one small product a joint."""
    warped = joints.copy()
    for k in range(len(joints)):
        if visible[k] > 0:
            warped[k] = np.dot(matrix, np.array([joints[k][0], joints[k][1], 1.0]))[:2]
    return warped


class OfficialSamples(Dataset[Any]):
    """Item i: the input (3, H, W) float32, target (K, h, w), weight (K, 1) and the rest, of person i.

    `augmentation` None cuts the plain crops. The random numbers are those of one generator.
    """

    def __init__(
        self,
        table: PersonTable,
        root: Path,
        *,
        input_size: tuple[int, int],
        sigma: float,
        augmentation: Augmentation | None,
    ) -> None:
        self.table, self.root, self.input_size, self.sigma = table, root, input_size, sigma
        self.augmentation, self.rng = augmentation, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        table = self.table
        path = self.root / str(table.file_names[table.image_index[index]])
        picture = read_rgb(path)
        joints, visible = table.joints[index].copy(), table.visible[index].copy()
        center, scale, rotation = table.center[index].copy(), table.scale[index].copy(), 0.0
        if self.augmentation is not None:
            width = picture.shape[1]
            joints, visible, center, scale, rotation, flipped = augment_person(
                self.augmentation, table.keypoints, joints, visible, center, scale,
                aspect_ratio=self.input_size[0] / self.input_size[1], image_width=width, rng=self.rng,
            )  # fmt: skip
            if flipped:
                picture = picture[:, ::-1, :]
        matrix = get_affine_transform(center, scale, rotation, self.input_size)
        crop = to_network(cv2.warpAffine(picture, matrix, self.input_size, flags=cv2.INTER_LINEAR))
        joints = warp_joints(joints, visible, matrix)
        heatmap_size = self.input_size[0] // 4, self.input_size[1] // 4
        target, weight = generate_target(joints, visible, heatmap_size, self.input_size, self.sigma)
        meta = {"image": str(path), "joints": joints, "joints_vis": visible, "center": center, "scale": scale}
        meta |= {"rotation": rotation, "score": 1.0}
        return crop, torch.from_numpy(target), torch.from_numpy(weight[:, None]), meta
