"""SimpleBaseline: its official size, and the modes people run it in."""

from __future__ import annotations

import copy

import pytest
import torch
from golden_models import fill, relative_error
from torch.utils.flop_counter import FlopCounterMode

from fastpose.errors import ConfigError
from fastpose.models import ModelMeta, PoseResNet, create_model, pose_resnet50
from fastpose.nn import resnet


@pytest.fixture(scope="module")
def small() -> PoseResNet:
    """One Bottleneck a layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 14, (1, 1, 1, 1))
        model = PoseResNet(14, ModelMeta("pose_resnet14", 3))
    fill(model)
    return model


def on_meta(name: str, joints: int = 17) -> PoseResNet:
    with torch.device("meta"):
        return create_model(name, joints)


@pytest.mark.parametrize(
    ("name", "parameters", "keys"),
    [
        ("pose_resnet50", 33_999_697, 338),
        ("pose_resnet101", 52_991_825, 644),
        ("pose_resnet152", 68_635_473, 950),
    ],
)
@pytest.mark.parametrize("joints", [17, 16])
def test_size_is_the_official_one(name: str, joints: int, parameters: int, keys: int) -> None:
    model = on_meta(name, joints)
    assert len(model.state_dict()) == keys
    assert sum(p.numel() for p in model.parameters()) == parameters - (17 - joints) * 257


@pytest.mark.parametrize(
    ("name", "width", "height", "gmacs"),
    [
        ("pose_resnet50", 192, 256, 5.43),
        ("pose_resnet101", 192, 256, 9.06),
        ("pose_resnet152", 192, 256, 12.70),
        ("pose_resnet50", 288, 384, 12.21),
        ("pose_resnet101", 288, 384, 20.39),
        ("pose_resnet152", 288, 384, 28.57),
    ],
)
def test_cost_is_that_of_the_official_network(name: str, width: int, height: int, gmacs: float) -> None:
    model = on_meta(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(torch.empty(1, 3, height, width, device="meta"))
    assert output.shape == (1, 17, height // 4, width // 4)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.005)


@pytest.mark.parametrize("init", ["official", "kaiming"])
def test_fresh_parameters_have_the_stated_spread(small: PoseResNet, init: str) -> None:
    model = copy.deepcopy(small)
    model.reset_parameters(init)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
            continue
        fan_out = parameter[0].numel() * parameter.shape[0] / parameter.shape[1]
        kaiming = init == "kaiming" and not name.startswith("final_layer")
        want = (2 / fan_out) ** 0.5 if kaiming else 1e-3
        # A standard deviation from n numbers is itself off by 1 / sqrt(2 n).
        assert parameter.std().item() == pytest.approx(want, rel=4 / (2 * parameter.numel()) ** 0.5), name


def test_unknown_init_is_refused(small: PoseResNet) -> None:
    with pytest.raises(ConfigError, match="init must be 'official' or 'kaiming', got 'xavier'"):
        small.reset_parameters("xavier")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 48), "width 48, height 64"),
        ((1, 4, 64, 64), "(1, 4, 64, 64)"),
        ((3, 64, 64), "(3, 64, 64)"),
    ],
    ids=str,
)
def test_other_input_is_refused_with_its_size(
    small: PoseResNet, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match="PoseResNet") as caught:
        small(torch.rand(shape))
    assert message in str(caught.value)


def test_input_size_off_the_stride_is_refused() -> None:
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match="pose_resnet50: input_size must be multiples"),
    ):
        pose_resnet50(input_size=(200, 256))


def test_compiles_as_one_graph(small: PoseResNet) -> None:
    torch.compiler.reset()
    model = copy.deepcopy(small)
    compiled = torch.compile(copy.deepcopy(small), fullgraph=True, backend="eager")
    x = torch.rand(2, 3, 64, 32)
    torch.testing.assert_close(compiled(x), model(x))


def test_channels_last_and_bf16_give_the_same(small: PoseResNet) -> None:
    model = copy.deepcopy(small).eval()
    x = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        want = model(x)
        output = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(x)
    torch.testing.assert_close(output, want, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert rounded.dtype == torch.bfloat16
    assert relative_error(rounded.float(), want.numpy()) < 0.03
