"""docs/models.md and what it counts."""

from pathlib import Path

import pytest
import torch

from fastpose.models import create_model, list_models
from fastpose.models.costs import count_macs, count_parameters
from fastpose.models.published import PUBLISHED
from fastpose.train.models_page import models_table, write_page

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
