"""Ground truth of real photographs through reader, crop, target, decode, inverse matrix and evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import shared_path

from fastpose.data import CropDataset, EpochSampler, PersonTable, coco_layout, make_loader, read_coco
from fastpose.data.affine import box_to_center_scale
from fastpose.metrics.coco_eval import evaluate_coco
from fastpose.metrics.coco_results import coco_results
from fastpose.reference.decode import decode_heatmaps
from fastpose.reference.heatmap import gaussian_heatmaps

W32_256, W48_384 = ((192, 256), 2.0), ((288, 384), 3.0)  # input (width, height) and sigma as published


def read(folder: str, split: str) -> PersonTable:
    return read_coco(*coco_layout(shared_path("data", folder), split), aspect_ratio=0.75)


def with_joints_in_the_box(table: PersonTable) -> PersonTable:
    """Crops that hold every labelled joint: six persons of coco_mini have joints outside their padded box."""
    shown = table.visible[..., None] > 0
    corner = np.minimum(np.where(shown, table.joints, np.inf).min(1), table.box[:, :2])
    end = np.maximum(np.where(shown, table.joints, -np.inf).max(1), table.box[:, :2] + table.box[:, 2:])
    center, scale = box_to_center_scale(np.concatenate([corner, end - corner], 1), 0.75)
    return replace(table, center=center, scale=scale)


def encoded_and_decoded(table: PersonTable, input_size: tuple[int, int], sigma: float) -> np.ndarray:
    """(N, K, 3) keypoints in image pixels with scores."""
    found = []
    dataset = CropDataset(table, input_size=input_size)
    for batch in make_loader(dataset, EpochSampler(len(dataset), 64, shuffle=False)):
        heatmaps, _ = gaussian_heatmaps(
            batch["joints"],
            batch["visible"],
            heatmap_size=(input_size[0] // 4, input_size[1] // 4),
            input_size=input_size,
            sigma=sigma,
        )
        decoded = decode_heatmaps(heatmaps, batch["center"], batch["scale"])
        found.append(torch.cat([decoded.keypoints, decoded.score[..., None]], -1).numpy())
    return np.concatenate(found)


def average_precision(table: PersonTable, keypoints: np.ndarray) -> float:
    area = np.prod(table.scale.astype(np.float64) * 200, axis=1)
    image_ids = table.image_ids[table.image_index]
    results = coco_results(image_ids, keypoints, area, table.score, table.keypoints.sigmas)
    return evaluate_coco(table.annotations, results)["AP"]


@pytest.mark.parametrize(("input_size", "sigma"), [W32_256, W48_384], ids=["256x192", "384x288"])
def test_coco_sample_survives_the_round_trip(input_size, sigma):
    table = read("coco_sample", "val2017")
    assert average_precision(table, encoded_and_decoded(table, input_size, sigma)) >= 0.99


def test_coco_mini_survives_the_round_trip():
    table = with_joints_in_the_box(read("coco_mini", "train2017"))
    assert average_precision(table, encoded_and_decoded(table, *W48_384)) >= 0.99


@pytest.mark.parametrize(
    ("setup", "ceiling"), [(W32_256, 0.9638), (W48_384, 0.9758)], ids=["256x192", "384x288"]
)
def test_official_crops_of_coco_mini_have_a_ceiling(setup, ceiling):
    """Joints outside the crop cannot be found, and small people suffer from whole heatmap cells."""
    table = read("coco_mini", "train2017")
    assert average_precision(table, encoded_and_decoded(table, *setup)) == pytest.approx(ceiling, abs=5e-4)


def test_decoded_joints_lie_within_a_cell_of_the_truth():
    table = with_joints_in_the_box(read("coco_mini", "train2017"))
    found = encoded_and_decoded(table, *W32_256)[..., :2]
    cell = table.scale[:, 0] * 200 / 48
    error = np.abs(found - table.joints).max(-1) / cell[:, None]
    assert error[table.visible > 0].max() <= 0.51
