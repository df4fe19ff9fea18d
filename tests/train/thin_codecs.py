"""Networks of a moment for every codec, and the settings that train them."""

from __future__ import annotations

import pytest
import torch

from fastpose.models import HRNet, HRNetConfig, ModelMeta, SimCCHRNet, registry
from fastpose.models.weights import layer_options, load_weights
from fastpose.train.config_io import load_config
from fastpose.train.tasks import task_for

CPU = torch.device("cpu")
THIN = HRNetConfig(width=4, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
SMALL = [
    "data.figures.train_count=4",
    "data.figures.val_count=4",
    "data.figures.image_size=[96, 96]",
    "data.figures.people=[1, 1]",
    "data.input_size=[64, 64]",
    "data.workers=0",
]
CODECS = {
    "msra": ["model.name=thin_heatmaps"],
    "dark": ["model.name=thin_heatmaps", "data.target=unbiased", "val.refine=dark"],
    "udp": ["model.name=thin_heatmaps", "data.codec=udp"],
    "simcc": ["model.name=thin_simcc", "data.codec=simcc", "data.simcc_sigma=[3, 3]"],
}


def thin_heatmaps(num_joints=17, *, weights=None, **options):
    return filled(HRNet(THIN, ModelMeta("thin_heatmaps", num_joints).with_options(options)), weights)


def thin_simcc(num_joints=17, *, weights=None, **options):
    meta = ModelMeta("thin_simcc", num_joints, codec="simcc").with_options(
        layer_options("thin_simcc", weights)
    )
    return filled(SimCCHRNet(THIN, meta.with_options(options)), weights)


def filled(model, weights):
    if weights is not None:
        load_weights(model, weights)
    return model


@pytest.fixture
def thin_networks(monkeypatch):
    for factory in (thin_heatmaps, thin_simcc):
        monkeypatch.setitem(registry._factories, factory.__name__, factory)
        monkeypatch.setitem(registry._tasks, factory.__name__, ModelMeta.task)


def task(*settings):
    return task_for(load_config("samples/figures", [*SMALL, *settings]))
