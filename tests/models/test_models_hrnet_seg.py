"""HRNetV2 for segmentation: its official size, and the modes people run it in."""

from __future__ import annotations

import copy

import pytest
import torch
from golden_models import relative_error
from tiny_seg import tiny_seg
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastpose.classes import ClassSet
from fastpose.errors import ConfigError
from fastpose.models import SegmentationMeta, create_model, list_models
from fastpose.models.meta import meta_from_json
from fastpose.models.registry import task_of
from fastpose.nn.bilinear import enlarge

NAMES = ["hrnet_seg_w18", "hrnet_seg_w18_small_v1", "hrnet_seg_w18_small_v2",
         "hrnet_seg_w30", "hrnet_seg_w32", "hrnet_seg_w48"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "classes", "keys", "parameters"),
    [
        ("hrnet_seg_w18_small_v1", 19, 435, 1_540_819),
        ("hrnet_seg_w18_small_v2", 19, 873, 3_939_579),
        ("hrnet_seg_w48", 19, 1839, 65_859_379),
        ("hrnet_seg_w18", 21, 1839, 9_641_661),
        ("hrnet_seg_w30", 21, 1839, 26_025_597),
        ("hrnet_seg_w32", 21, 1839, 29_547_477),
        ("hrnet_seg_w48", 21, 1839, 65_860_821),
    ],
)
def test_size_is_the_official_one(name: str, classes: int, keys: int, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, classes)
    assert len(model.state_dict()) == keys
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("hrnet_seg_w18_small_v1", 33.4), ("hrnet_seg_w18_small_v2", 76.9), ("hrnet_seg_w48", 747.5)],
)
def test_work_for_a_street_scene_is_the_official_one(name: str, gmacs: float) -> None:
    with torch.device("meta"):
        model, x = create_model(name), torch.empty(1, 3, 1024, 2048)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    assert round(counter.get_total_flops() / 2e9, 1) == gmacs


def test_initialisation_is_the_official_one_or_kaiming() -> None:
    model = create_model("hrnet_seg_w18_small_v1")
    for init in ("kaiming", "official"):
        model.reset_parameters(init)
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
                fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
                kaiming = init == "kaiming" and name != "last_layer.3"
                std = (2 / fan_out) ** 0.5 if kaiming else 1e-3
                assert module.weight.std().item() == pytest.approx(std, rel=0.1), name
                assert module.bias is None or (module.bias == 0).all(), name
    with pytest.raises(ConfigError, match="init must be 'official' or 'kaiming', got 'zero'"):
        model.reset_parameters("zero")


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("size", [(64, 32), (33, 47), (63, 130), (5, 3), (1, 1)], ids=str)
def test_any_size_gives_logits_at_a_quarter_rounded_up(size: tuple[int, int], align_corners: bool) -> None:
    height, width = size
    output = tiny_seg(align_corners=align_corners).eval()(torch.rand(2, 3, height, width))
    assert output.shape == (2, 3, -(-height // 4), -(-width // 4))
    assert output.isfinite().all()


def test_an_odd_size_trains_every_parameter() -> None:
    model = tiny_seg()
    model(torch.rand(2, 3, 45, 71)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 64, 64), (1, 3, 0, 64)], ids=str)
def test_other_input_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="HRNetSeg takes images") as caught:
        tiny_seg()(torch.rand(shape))
    assert str(shape) in str(caught.value)


def test_align_corners_holds_for_the_whole_network() -> None:
    x = torch.rand(1, 3, 64, 64)
    edges, corners = tiny_seg().eval(), tiny_seg(align_corners=True).eval()
    assert relative_error(corners(x), edges(x).detach().numpy()) > 1e-3
    edges.meta = corners.meta
    assert torch.equal(edges(x), corners(x))


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_the_head_sees_all_branches_at_the_size_of_the_finest(align_corners: bool) -> None:
    model, seen = tiny_seg(align_corners=align_corners).eval(), {}
    model.stage4.register_forward_hook(lambda module, inputs, output: seen.update(branches=output))
    model.last_layer.register_forward_pre_hook(lambda module, inputs: seen.update(head=inputs[0]))
    model(torch.rand(1, 3, 45, 71))
    parts = [enlarge(branch, (12, 18), align_corners) for branch in seen["branches"]]
    assert [part.shape[1] for part in parts] == [2, 4, 8, 16]
    assert torch.equal(seen["head"], torch.cat(parts, 1))


def test_batchnorm_momentum_is_the_metas() -> None:
    x = torch.rand(2, 3, 32, 32)
    averages = {}
    for momentum in (0.1, 0.01):
        torch.manual_seed(0)
        model = create_model("hrnet_seg_w18_small_v1", bn_momentum=momentum).train()
        model(x)
        averages[momentum] = model.bn1.running_mean
        assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {momentum}
    torch.testing.assert_close(averages[0.1], 10 * averages[0.01])


def test_compiles_as_one_graph() -> None:
    torch.compiler.reset()
    model = tiny_seg().double()
    twin = copy.deepcopy(model)
    x = torch.rand(2, 3, 40, 56, dtype=torch.float64)
    output, compiled = model(x), torch.compile(twin, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, output)
    output.square().sum().backward()
    compiled.square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_channels_last_gives_the_same_and_keeps_the_layout() -> None:
    model = tiny_seg().eval()
    x = torch.rand(2, 3, 40, 56)
    want = model(x)
    output = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, want, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_bf16_autocast_is_close_and_trains() -> None:
    model = tiny_seg()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want = model.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    assert relative_error(output.float(), want.numpy()) < 0.03
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_models_are_listed_as_segmentation_and_built_by_name() -> None:
    assert set(NAMES) <= set(list_models("segmentation"))
    assert not set(NAMES) & set(list_models("pose"))
    assert {task_of(name) for name in NAMES} == {"segmentation"}
    classes = ClassSet("two", ("ground", "person"), ((0, 0, 0), (255, 0, 0)))
    given = {"input_size": [96, 64], "classes": classes, "align_corners": True, "bn_momentum": 0.01}
    meta = create_model("hrnet_seg_w18_small_v1", 2, **given).meta
    assert meta == SegmentationMeta(
        "hrnet_seg_w18_small_v1", 2, (96, 64), classes=classes, align_corners=True, bn_momentum=0.01
    )
    assert meta_from_json(meta.to_json()) == meta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number above 0, got 0"),
        ({"align_corners": "no"}, "align_corners must be true or false, got 'no'"),
        ({"bn_momentum": 0}, "bn_momentum must be above 0 and at most 1, got 0"),
        ({"bn_momentum": 1.5}, "bn_momentum must be above 0 and at most 1, got 1.5"),
        ({"bn_momentum": float("nan")}, "bn_momentum must be above 0 and at most 1, got nan"),
        ({"bn_momentum": True}, "bn_momentum must be above 0 and at most 1, got True"),
        ({"keypoints": 17}, "unknown option 'keypoints'; known: channel_order, input_size, classes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "=".join(map(str, *value.items())),
)
def test_wrong_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("hrnet_seg_w18_small_v1", **arguments)
    assert message in str(caught.value)
