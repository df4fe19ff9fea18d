"""The rows of the data feed compute what they say, and their rival is the official pipeline."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import bench.bench_feed as feed
from bench.measure import measure
from bench.official_feed import OfficialSamples
from fastpose.data import CropDataset, coco_layout, read_coco
from fastpose.data.figures import write_figures
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.heatmap import gaussian_heatmaps

SIZE = (96, 128)


def test_official_samples_are_ours_as_floats_with_targets(tmp_path):
    write_figures(tmp_path, 3, image_size=(160, 128))
    table = read_coco(*coco_layout(tmp_path, "train2017"), aspect_ratio=0.75)
    root = tmp_path / "images" / "train2017"
    official = OfficialSamples(table, root, input_size=SIZE, sigma=2.0, augmentation=None)
    ours = CropDataset(table, input_size=SIZE)
    for i in range(len(table)):
        crop, target, weight, meta = official[i]
        sample = ours[i]
        assert torch.allclose(crop, normalize_crops(torch.from_numpy(sample["crop"][None]))[0], atol=1e-6)
        assert np.allclose(meta["joints"], sample["joints"], atol=1e-4)
        joints, visible = (torch.from_numpy(sample[name])[None] for name in ("joints", "visible"))
        maps, kept = gaussian_heatmaps(joints, visible, heatmap_size=(24, 32), input_size=SIZE, sigma=2.0)
        assert torch.allclose(target, maps[0], atol=1e-6)
        assert torch.equal(weight[:, 0], kept[0])


@pytest.fixture
def rendered(monkeypatch):
    """The rows without the sample photographs, on a few figures."""
    monkeypatch.setattr(feed, "PHOTOGRAPHS", Path("nowhere"))
    monkeypatch.setattr(feed, "FIGURES", 4)
    monkeypatch.setattr(feed, "BATCH", 4)
    for name in ("data", "_scratch", "crops"):
        monkeypatch.setattr(feed, name, functools.cache(getattr(feed, name).__wrapped__))


@pytest.mark.parametrize("row", feed.rows, ids=str)
def test_every_row_passes_its_check(rendered, row):
    assert measure(row, seconds=0, seed=0, check_only=True)["id"] == row.id


def test_figures_beside_the_times_are_counted(rendered):
    figures = feed.epochs_case(feed.FEEDS["group-images"]).figures()
    assert figures["pictures"] == 4 <= figures["decodes"] < figures["persons"]
    single = feed.epochs_case(feed.FEEDS["pictures"]).figures()
    assert single["persons"] == single["decodes"] == 4
    assert feed.epochs_case(feed.FEEDS["crop-cache-jpeg"]).figures()["cache bytes"] > 1000


def test_a_wrong_sample_fails_the_check(rendered, monkeypatch):
    cut = feed.Cutter.cut
    monkeypatch.setattr(feed.Cutter, "cut", lambda *args, **options: cut(*args, **options) // 2)
    (row,) = (row for row in feed.rows if row.id.endswith("group-images"))
    with pytest.raises(AssertionError):
        measure(row, seconds=0, seed=0, check_only=True)
