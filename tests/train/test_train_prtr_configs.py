"""PRTR's shipped configurations against the published settings."""

from importlib.resources import files

import pytest
import torch

from fastpose.keypoints import MPII_16
from fastpose.models import create_model
from fastpose.nn.resnet import ResNetBody
from fastpose.train.config_io import list_configs, load_config
from fastpose.train.set_objective import SetObjective
from fastpose.train.tasks.pose import PoseTask
from fastpose.train.tasks.pose_data import build_model

NAMES = [name for name in list_configs() if name.startswith(("coco/prtr", "mpii/prtr"))]
RESNETS = [f"prtr_resnet{depth}" for depth in (50, 101, 152)]
HRNETS = ["prtr_hrnet_w32", "prtr_hrnet_w48"]
COCO = {f"coco/{model}_{size}" for model in RESNETS + HRNETS for size in ("384x288", "512x384")}
MPII = {f"mpii/{model}_{side}x{side}" for model in RESNETS for side in (256, 384, 512)}
MPII |= {f"mpii/{model}_{side}x{side}" for model in HRNETS for side in (256, 384)}


def test_every_published_experiment_is_there() -> None:
    assert set(NAMES) == COCO | MPII


@pytest.mark.parametrize("name", NAMES)
def test_official_settings(name: str) -> None:
    config = load_config(name, ["data.root=x"])
    data, stem = name.split("/")
    model, size = stem.rsplit("_", 1)
    height, width = map(int, size.split("x"))
    resnet = "resnet" in model
    assert (config.model.name, config.data.format) == (model, data)
    assert config.data.input_size == [width, height]
    train = config.train
    assert (train.optimizer, train.lr, train.weight_decay, train.clip_grad) == ("adamw", 1e-4, 1e-4, 0.1)
    assert train.backbone_lr == (1e-5 if resnet else 1e-4)
    assert (train.batch_size, train.batch_per) == (32 if resnet else 16, "process")
    assert (train.epochs, train.gamma) == (200, 0.5)
    assert train.milestones == ([120, 140] if data == "coco" else [60])
    augment = config.augment
    assert (augment.rotation_factor, augment.scale_factor) == (
        (40.0, 0.3) if data == "coco" else (30.0, 0.25)
    )
    assert augment.half_body_prob == 0.0
    assert not train.visible_only
    assert config.model.channel_order == "auto"


@pytest.mark.parametrize("name", sorted(COCO))
def test_borrowed_steps_are_marked(name: str) -> None:
    text = (files("fastpose") / "configs" / f"{name}.yaml").read_text()
    assert ("steps (train.milestones) are borrowed" in text) == (name != "coco/prtr_resnet50_384x288")


@pytest.mark.parametrize(
    ("model", "start", "warns"),
    [
        ("prtr_resnet50", None, True),
        ("prtr_resnet50", "weights", False),
        ("prtr_resnet50", "backbone", False),
        ("prtr_hrnet_w18_small", None, False),
    ],
)
def test_frozen_layers_want_something_to_start_from(model, start, warns, tmp_path, caplog) -> None:
    settings = ["data.root=x", f"model.name={model}"]
    if start is not None:
        path = tmp_path / "resnet50.pth"
        torch.save(ResNetBody(50).state_dict(), path)
        settings.append(f"model.{start}={path}")
    build_model(load_config("mpii/prtr_resnet50_256x256", settings), MPII_16)
    lines = [record.getMessage() for record in caplog.records if "never learn" in record.getMessage()]
    assert len(lines) == warns
    assert all("prtr_resnet50 starts from nothing" in line for line in lines)
    assert all(line.endswith("model.weights=resnet50.pth") for line in lines)


def test_names_are_their_own() -> None:
    names = [load_config(name, ["data.root=x"]).name for name in NAMES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("visible_only", [False, True])
def test_networks_of_queries_get_the_set_loss(visible_only: bool) -> None:
    config = load_config(NAMES[0], ["data.root=x", f"train.visible_only={str(visible_only).lower()}"])
    with torch.device("meta"):
        model = create_model(config.model.name, 17, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    objective = PoseTask(config).objective(model)
    assert isinstance(objective, SetObjective)
    assert objective.visible_only is visible_only
    assert (objective.mean, objective.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
