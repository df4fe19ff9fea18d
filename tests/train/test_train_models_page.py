"""docs/models.md and what it counts."""

from pathlib import Path

import pytest
import torch

from fastpose.models import create_model, list_models
from fastpose.models.costs import count_macs, count_parameters
from fastpose.models.published import PUBLISHED
from fastpose.train.models_page import model_rows, models_table, write_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_page_is_up_to_date():
    assert PAGE.read_text() == write_page(), "run `fastpose models --markdown > docs/models.md`"


@pytest.mark.parametrize(
    ("name", "outputs", "size", "gmac"),
    [
        ("hrnet_w32", 17, (192, 256), 7.645),
        ("hrnet_w48", 16, (256, 256), 20.92),
        ("pose_resnet50", 17, (192, 256), 5.43),
        ("pose_resnet152", 17, (288, 384), 28.57),
        ("hourglass8", 16, (256, 256), 27.44),
        ("hrnet_seg_w18_small_v1", 19, (2048, 1024), 33.4),
    ],
)
def test_multiply_adds_are_those_measured_on_the_official_networks(name, outputs, size, gmac):
    """PARITY.md 3; the official counts leave nothing out that these count."""
    with torch.device("meta"):
        model = create_model(name, outputs)
    assert count_macs(model, size) / 1e9 == pytest.approx(gmac, rel=2e-3)


def test_costs_of_a_convolution_by_hand():
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    assert count_parameters(layer) == 3 * 8 * 9 + 8
    assert count_macs(layer, (10, 20)) == 10 * 20 * 3 * 8 * 9


def test_published_networks_exist():
    assert set(PUBLISHED) <= set(list_models())


def test_table_names_the_configurations_of_a_single_network():
    line = models_table(["hrnet_w48"]).splitlines()[1]
    assert line.split()[:2] == ["hrnet_w48", "192x256"]
    assert {"coco/hrnet_w48_256x192", "coco/hrnet_w48_384x288", "mpii/hrnet_w48_256x256"} <= set(line.split())


@pytest.mark.parametrize(
    ("name", "config", "others"),
    [
        ("hrnet_fullres_w32", "samples/figures_fullres", "coco/"),
        ("prtr_hrnet_w18_small", "samples/figures_prtr", "coco/"),
        ("pose_resnet50", "coco/pose_resnet50_256x192", "samples/"),
    ],
)
def test_samples_stand_where_nothing_is_published(name, config, others):
    (row,) = model_rows([name])
    assert config in row.configs
    assert not any(found.startswith(others) for found in row.configs)


@pytest.mark.parametrize(
    ("name", "repository", "licence"),
    [
        ("hourglass2_post", "yuanyuanli85/Stacked_Hourglass_Network_Keras", "none stated"),
        ("hourglass8_mobile", "yuanyuanli85/Stacked_Hourglass_Network_Keras", "none stated"),
        ("hrnet_fullres_w32", "VXallset/deep-high-resolution-net.TensorFlow", "MIT"),
    ],
)
def test_networks_without_weights_of_others_name_whom_they_follow(name, repository, licence):
    (line,) = [
        line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` | {repository}")
    ]
    assert f"| {licence} |  |" in line
    assert "names of tensors are ours" in line
