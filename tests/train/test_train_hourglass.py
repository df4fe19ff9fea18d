"""Stacked hourglass networks in training and evaluation: recipes, a loss a stack, the last stack read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.models import Hourglass, HourglassConfig, ModelMeta, create_model
from fastpose.ops import decode_heatmaps
from fastpose.reference.heatmap import gaussian_heatmaps
from fastpose.reference.loss import heatmap_mse
from fastpose.train.config_check import check_config
from fastpose.train.config_io import list_configs, load_config
from fastpose.train.objectives import HeatmapObjective

ADAM = ("adam", 1e-3, 16, 144, [72], 0.2)
PAPER = ("rmsprop", 2.5e-4, 6, 100, [60, 90], 0.1)
KERAS = ("rmsprop", 5e-4, 6, 100, [], 0.1)
RECIPES = {"": ADAM, "_paper": PAPER, "_post": KERAS, "_mobile": KERAS}

MPII_PERSONS = 22_246


def small(stacks: int, **variant: Any) -> Hourglass:
    config = HourglassConfig(stacks, depth=2, width=8, stem_widths=(6, 6), **variant)
    model = Hourglass(config, ModelMeta("small", 3))
    model.reset_parameters("kaiming")
    for out in model.outs:
        torch.nn.init.normal_(out.conv.weight)
    return model


@pytest.mark.parametrize("kind", RECIPES, ids=lambda kind: kind or "official")
@pytest.mark.parametrize("stacks", [2, 8])
def test_recipes_of_the_shipped_configurations(stacks: int, kind: str) -> None:
    network = f"hourglass{stacks}{kind}"
    config = load_config(f"mpii/{network}_256x256", ["data.root=somewhere"])
    check_config(config)
    assert config.name == f"mpii_{network}_256x256"
    train, data, augment = config.train, config.data, config.augment
    recipe = (train.optimizer, train.lr, train.batch_size, train.epochs, train.milestones, train.gamma)
    assert recipe == RECIPES[kind]
    assert (train.momentum, train.weight_decay, train.schedule) == (0.0, 0.0, "step")
    assert (data.format, data.input_size, data.sigma) == ("mpii", [256, 256], 1.0)
    assert (augment.scale_factor, augment.rotation_factor, augment.half_body_prob) == (0.25, 30.0, 0.0)
    assert config.model.name == network
    with torch.device("meta"):
        assert create_model(network).meta.input_size == tuple(data.input_size)


def test_the_official_rate_falls_after_100_000_of_200_000_steps() -> None:
    steps = -(-MPII_PERSONS // ADAM[2])
    assert steps * ADAM[4][0] == pytest.approx(100_000, rel=0.005)
    assert steps * ADAM[3] == pytest.approx(200_000, rel=0.005)


def test_every_configuration_is_in_the_table() -> None:
    shipped = [name for name in list_configs() if name.startswith("mpii/hourglass")]
    assert len(shipped) == 2 * len(RECIPES)


def test_objective_adds_a_loss_for_each_stack_and_scores_the_last() -> None:
    model = small(3)
    mean, std = (0.4, 0.5, 0.6), (1.0, 1.0, 1.0)
    objective = HeatmapObjective(sigma=1.0, heatmaps=model.heatmaps, mean=mean, std=std)
    batch = {
        "crop": torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8),
        "joints": torch.rand(2, 3, 2) * 40 + 4,
        "weight": torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]),
    }
    x = objective.network_input(batch)
    torch.testing.assert_close(x, batch["crop"].permute(0, 3, 1, 2) / 255 - torch.tensor(mean)[:, None, None])
    output = model(x)
    target, weight = gaussian_heatmaps(
        batch["joints"], batch["weight"], input_size=(48, 64), heatmap_size=(12, 16), sigma=1.0
    )
    want = sum(heatmap_mse(output[:, i], target, weight) for i in range(3))
    torch.testing.assert_close(objective.loss(output, batch), want, rtol=1e-5, atol=0)
    perfect = torch.stack([torch.rand_like(target), torch.rand_like(target), target], 1)
    assert objective.score(perfect, batch)[0] == 1.0
    assert objective.score(perfect.flip(1), batch)[0] < 1.0


@pytest.mark.parametrize("flip_test", [False, True], ids=["plain", "flip"])
def test_keypoints_come_from_the_last_stack(flip_test: bool) -> None:
    model = small(3, residual="post").eval()
    crops = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    center, scale = torch.tensor([[20.0, 30.0], [50.0, 60.0]]), torch.tensor([[0.5, 0.7], [0.3, 0.4]])
    options = ForwardOptions(
        torch.device("cpu"), [0, 2, 1], flip_test, shift=False, mean=(0, 0, 0), std=(1, 1, 1)
    )
    found = forward_crops(model, crops, center, scale, options)
    x = crops.permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        maps = model(x)[:, -1]
        if flip_test:
            maps = (maps + model(x.flip(3))[:, -1].flip(3)[:, [0, 2, 1]]) / 2
    want = decode_heatmaps(maps, center, scale)
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
