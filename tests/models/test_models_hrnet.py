"""HRNet: its official size, and the modes people run it in."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from golden_models import relative_error
from tiny_models import tiny
from torch import nn

from fastpose.errors import ConfigError
from fastpose.keypoints import MPII_16
from fastpose.models import (
    ModelMeta,
    create_model,
    hrnet_w18_small,
    list_models,
)
from fastpose.nn import Exchange


@pytest.mark.parametrize(
    ("name", "joints", "parameters"),
    [
        ("hrnet_w32", 17, 28_536_113),
        ("hrnet_w32", 16, 28_536_080),
        ("hrnet_w48", 17, 63_595_745),
        ("hrnet_w48", 16, 63_595_696),
    ],
)
def test_size_is_the_official_one(name: str, joints: int, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, joints)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 1754
    kinds = [type(module) for module in model.modules()]
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Upsample)] == [293, 292, 28]


def test_w18_small_has_the_body_of_the_official_small_v2_segmentation_network() -> None:
    widths = [18, 36, 72, 144]
    with torch.device("meta"):
        pose = hrnet_w18_small()
        all_rows, first_row = Exchange(widths), Exchange(widths, num_outputs=1)
        last_layer = nn.Sequential(
            nn.Conv2d(270, 270, 1), nn.BatchNorm2d(270), nn.ReLU(), nn.Conv2d(270, 19, 1)
        )

    def size(module: nn.Module) -> np.ndarray:
        return np.array([len(module.state_dict()), sum(p.numel() for p in module.parameters())])

    segmentation = size(pose) - size(pose.final_layer) + size(all_rows) - size(first_row) + size(last_layer)
    assert segmentation.tolist() == [873, 3_939_579]


def test_initialisation_is_the_official_one() -> None:
    model = hrnet_w18_small()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            assert module.weight.std().item() == pytest.approx(1e-3, rel=0.1), name
            assert abs(module.weight.mean().item()) < 1e-4, name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name
            assert (module.momentum, module.eps) == (0.1, 1e-5), name
    assert (model.final_layer.bias == 0).all()


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 32, 32), (0, 3, 64, 32)], ids=str)
def test_heatmaps_have_a_quarter_of_the_input_size(shape: tuple[int, ...]) -> None:
    output = tiny(width=4, filled=True).eval()(torch.rand(shape))
    assert output.shape == (shape[0], 3, shape[2] // 4, shape[3] // 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 48), "width 48, height 64"),
        ((1, 3, 100, 64), "width 64, height 100"),
        ((1, 3, 0, 32), "width 32, height 0"),
        ((1, 4, 64, 64), "(1, 4, 64, 64)"),
        ((3, 64, 64), "(3, 64, 64)"),
    ],
    ids=str,
)
def test_other_input_is_refused_with_its_size(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="HRNet") as caught:
        tiny(width=4, filled=True)(torch.rand(shape))
    assert message in str(caught.value)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_compiles_as_one_graph(training: bool) -> None:
    torch.compiler.reset()
    model = tiny(width=4, filled=True).train(training)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(compiled(x), model(x))
    if training:
        model(x).sum().backward()
        compiled(x).sum().backward()
        for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_channels_last_gives_the_same_and_keeps_the_layout() -> None:
    model = tiny(width=4, filled=True).eval()
    x = torch.rand(2, 3, 64, 64)
    want = model(x)
    output = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, want, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_bf16_autocast_is_close_and_trains() -> None:
    model = tiny(width=4, filled=True)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want = model.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    assert relative_error(output.float(), want.numpy()) < 0.03
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_models_are_listed_and_built_by_name() -> None:
    assert {"hrnet_w18_small", "hrnet_w32", "hrnet_w48"} <= set(list_models())
    model = create_model("hrnet_w18_small", 16, input_size=[256, 256], channel_order="bgr", keypoints=MPII_16)
    assert model.meta == ModelMeta("hrnet_w18_small", 16, (256, 256), "bgr", MPII_16)
    assert hrnet_w18_small(channel_order=None).meta == ModelMeta(
        "hrnet_w18_small", 17, (192, 256), "rgb", None
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hrnet_w23"}, "did you mean 'hrnet_w32'"),
        ({"name": "vgg"}, "unknown model 'vgg'; `fastpose models` lists all"),
        ({"colour": "rgb"}, "unknown option 'colour'; known: channel_order, input_size, keypoints"),
        ({"num_joints": 0}, "num_joints must be a whole number above 0, got 0"),
        ({"num_joints": True}, "num_joints must be"),
        ({"channel_order": "gbr"}, "channel_order must be 'rgb' or 'bgr', got 'gbr'"),
        ({"input_size": 256}, "input_size must be (width, height)"),
        ({"input_size": (256.0, 192)}, "input_size must be (width, height)"),
        ({"input_size": (200, 256)}, "input_size must be multiples of 32"),
        ({"keypoints": MPII_16}, "give num_joints=16"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_wrong_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model(**{"name": "hrnet_w18_small", **arguments})
    assert message in str(caught.value)
