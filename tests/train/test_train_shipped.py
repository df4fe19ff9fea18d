"""What comes with fastpose: every configuration can be built, every family of networks has one."""

import functools
import typing

import pytest
import torch
from family_runs import FAMILIES

from fastpose.classes import PERSON_2
from fastpose.cli import main
from fastpose.models import HRNetSeg, Network, registry
from fastpose.train.config_io import list_configs, load_config
from fastpose.train.optim import FACTOR, build_optimizer
from fastpose.train.tasks import task_for


def family_of(network: str) -> type:
    return typing.get_type_hints(registry._factories[network])["return"]


@functools.cache
def built(network: str, size: tuple[int, int], joints: int) -> Network:
    """Without memory for its weights. `size` stands for all inputs that leave the same rest by 64."""
    count = PERSON_2.num_classes if registry.task_of(network) == "segmentation" else joints
    with torch.device("meta"):
        return registry.create_model(network, count, input_size=size)


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configuration_fits_its_network(name: str) -> None:
    config = load_config(name, ["data.root=somewhere"])
    width, height = config.data.input_size
    joints = 16 if config.data.format == "mpii" else 17
    model = built(config.model.name, (64 + width % 64, 64 + height % 64), joints)
    assert set(task_for(config).objective(model).inputs) >= {"crop"}
    groups = build_optimizer(model, config.train, torch.device("cpu")).param_groups
    rates = {config.train.lr * group.get(FACTOR, 1.0) for group in groups}
    assert rates == {config.train.lr, config.train.backbone_lr or config.train.lr}


def test_every_family_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == list_configs()
    networks = {name: load_config(name, ["data.root=x"]).model.name for name in listed}
    assert {family_of(network) for network in registry.list_models()} <= set(
        map(family_of, networks.values())
    )
    on_figures = {family_of(network) for name, network in networks.items() if "/figures" in name}
    assert on_figures >= {typing.get_type_hints(family.toy)["return"] for family in FAMILIES.values()}
    assert HRNetSeg in on_figures
