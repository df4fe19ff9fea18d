"""The weights files and the configurations of SimpleBaseline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_models import fill

from fastpose.errors import CheckpointError
from fastpose.models import (
    ModelMeta,
    PoseResNet,
    create_model,
    load_model,
    load_weights,
    pose_resnet50,
    save_weights,
)
from fastpose.train.config_io import load_config

HEAD = ("deconv_layers", "final_layer")


@pytest.fixture(scope="module")
def filled() -> PoseResNet:
    model = pose_resnet50()
    fill(model)
    return model


def imagenet_file(path: Path, name: str, counters: bool) -> dict[str, torch.Tensor]:
    """A classification network's file; every tensor is one number, another for each."""
    with torch.device("meta"):
        model = create_model(name)
    shapes = {n: t.shape for n, t in model.state_dict().items() if not n.startswith(HEAD)}
    shapes |= {"fc.weight": torch.Size((1000, 2048)), "fc.bias": torch.Size((1000,))}
    kinds = {n: torch.int64 if n.endswith("num_batches_tracked") else torch.float32 for n in shapes}
    state = {
        n: torch.tensor(i, dtype=kinds[n]).expand(shape)
        for i, (n, shape) in enumerate(shapes.items())
        if counters or kinds[n] == torch.float32
    }
    torch.save(state, path)
    return state


@pytest.mark.parametrize("counters", [True, False], ids=["counters", "before_0.4.1"])
def test_imagenet_file_fills_the_body_alone(tmp_path: Path, counters: bool) -> None:
    path = tmp_path / "resnet50.pth"
    found = imagenet_file(path, "pose_resnet50", counters)
    model = pose_resnet50()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unset = load_weights(model, path)
    assert set(unset) == {name for name in before if name.startswith(HEAD)}
    for name, tensor in model.state_dict().items():
        want = found[name] if name in found else before[name]
        assert torch.equal(tensor, want.expand_as(tensor)), name
    assert model.meta.channel_order == "bgr"


def test_imagenet_file_of_another_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet101.pth"
    imagenet_file(path, "pose_resnet101", counters=True)
    with pytest.raises(
        CheckpointError, match=r"does not fit pose_resnet50 .*\n +unexpected \(306\): layer3\.6"
    ):
        pose_resnet50(weights=path)


@pytest.mark.parametrize("head", ["head.", "keypoint_head."])
def test_mmpose_file_loads_whole(tmp_path: Path, filled: PoseResNet, head: str) -> None:
    prefix = {True: head, False: "backbone."}
    state = {prefix[name.startswith(HEAD)] + name: t for name, t in filled.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "mmpose.pth")
    model = pose_resnet50(weights=tmp_path / "mmpose.pth", channel_order="rgb")
    assert model.meta.channel_order == "rgb"
    for name, tensor in filled.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_saved_file_says_that_pixels_are_bgr(tmp_path: Path) -> None:
    model = pose_resnet50(16, input_size=(256, 256))
    assert model.meta == ModelMeta("pose_resnet50", 16, (256, 256), "bgr")
    save_weights(model, tmp_path / "best.safetensors")
    assert load_model(tmp_path / "best.safetensors").meta == model.meta


@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.parametrize(
    ("data", "size", "sigma", "rotation", "scale"),
    [
        ("coco/{}_256x192", [192, 256], 2.0, 40.0, 0.3),
        ("coco/{}_384x288", [288, 384], 3.0, 40.0, 0.3),
        ("mpii/{}_256x256", [256, 256], 2.0, 30.0, 0.25),
        ("mpii/{}_384x384", [384, 384], 3.0, 30.0, 0.25),
    ],
    ids=["coco_256", "coco_384", "mpii_256", "mpii_384"],
)
def test_official_experiments(
    depth: int, data: str, size: list[int], sigma: float, rotation: float, scale: float
) -> None:
    name = f"pose_resnet{depth}"
    config = load_config(data.format(name), ["data.root=x"])
    assert (config.model.name, config.model.channel_order) == (name, "auto")
    assert (config.data.format, config.data.input_size, config.data.sigma) == (data[:4], size, sigma)
    assert (config.augment.rotation_factor, config.augment.scale_factor) == (rotation, scale)
    assert (config.augment.rotation_prob, config.augment.half_body_prob) == (0.6, 0.0)
    assert (config.train.batch_size, config.train.epochs, config.train.milestones) == (128, 140, [90, 120])
    assert (config.train.lr, config.train.optimizer, config.train.weight_decay) == (1e-3, "adam", 0.0)
    assert config.name.endswith(data.format(name).split("/")[1])
