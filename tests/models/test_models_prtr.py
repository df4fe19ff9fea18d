"""PRTR: its official size, and the modes people run it in."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_models import fill
from tiny_prtr import crops, outputs_of, tiny_prtr
from torch import Tensor, nn

from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import (
    PRTR,
    create_model,
    load_backbone,
    load_weights,
    prtr_resnet50,
    prtr_resnet101,
    save_weights,
)
from fastpose.nn.frozen_norm import FrozenBatchNorm2d

BODY = "backbone.0.body."


@pytest.fixture(scope="module")
def resnet50() -> PRTR:
    model = prtr_resnet50()
    fill(model)
    return model


@pytest.mark.parametrize(
    ("name", "keys", "parameters", "trained"),
    [
        ("prtr_resnet50", 458, 41_505_236, 41_282_836),
        ("prtr_resnet101", 713, 60_445_140, None),
        ("prtr_hrnet_w32", 2147, 57_234_004, 57_234_004),
    ],
)
def test_size_is_the_official_one(name: str, keys: int, parameters: int, trained: int | None) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert len(model.state_dict()) == keys
    assert sum(p.numel() for p in model.parameters()) == parameters
    if trained is not None:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained


def test_resnet152_differs_from_101_by_its_depth_alone() -> None:
    with torch.device("meta"):
        deep, shallow = create_model("prtr_resnet152"), prtr_resnet101()
    surplus = deep.state_dict().keys() - shallow.state_dict().keys()
    assert {name.split(".")[3] for name in surplus} == {"layer2", "layer3"}
    assert shallow.state_dict().keys() < deep.state_dict().keys()
    # Published: ResNet-152 has 8 and 36 Bottlenecks where ResNet-101 has 4 and 23.
    assert len(surplus) == (4 + 13) * 3 * 5


@pytest.mark.parametrize(
    ("name", "order"), [("prtr_resnet50", "bgr"), ("prtr_hrnet_w32", "rgb"), ("prtr_hrnet_w48", "rgb")]
)
def test_channel_order_and_size_are_those_of_the_official_weights(name: str, order: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert (model.meta.channel_order, model.meta.input_size) == (order, (288, 384))
    assert model.output == "queries"


def test_first_layers_and_norms_of_a_resnet_are_frozen(resnet50: PRTR) -> None:
    frozen = {name for name, p in resnet50.named_parameters() if not p.requires_grad}
    parts = {name.removeprefix(BODY).split(".")[0] for name in frozen}
    assert parts == {"conv1", "layer1"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in resnet50.modules())
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in resnet50.modules()) == 53
    model = copy.deepcopy(resnet50).train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    sum(output.sum() for output in outputs_of(model(crops(1)))).backward()  # type: ignore[union-attr]
    assert {name for name, p in model.named_parameters() if p.grad is None} == frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())


def test_outputs_are_logits_and_places_in_the_crop_of_every_layer() -> None:
    for training in (True, False):
        output = tiny_prtr(filled=True).train(training)(crops(2))
        assert set(output) == {"pred_logits", "pred_coords", "aux_outputs"}
        assert len(output["aux_outputs"]) == 1
        for layer in (output, *output["aux_outputs"]):
            assert layer["pred_logits"].shape == (2, 7, 4)
            assert layer["pred_coords"].shape == (2, 7, 2)
            assert ((layer["pred_coords"] > 0) & (layer["pred_coords"] < 1)).all()


def test_mirrored_features_are_told_apart_by_their_places() -> None:
    model, x = tiny_prtr(filled=True).eval(), crops(1, 128)
    straight, mirrored = model(x)["pred_coords"], model(x.roll(64, 3))["pred_coords"]
    assert (straight - mirrored).abs().max() > 1e-3


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_compiles_as_one_graph(training: bool) -> None:
    torch.compiler.reset()
    model = tiny_prtr(filled=True).train(training)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = crops()
    for a, b in zip(outputs_of(compiled(x)), outputs_of(model(x)), strict=True):
        torch.testing.assert_close(a, b)


def test_channels_last_gives_the_same() -> None:
    model, x = tiny_prtr(filled=True).eval(), crops()
    want = outputs_of(model(x))
    found = outputs_of(model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)))
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_heads_stay_in_float32_under_autocast() -> None:
    model, x = tiny_prtr(filled=True), crops()
    want = outputs_of(model(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = outputs_of(model(x))
    for a, b in zip(found, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)
    assert (found[-2].bfloat16().float() != found[-2]).any(), "not rounded to bfloat16"
    sum(output.square().mean() for output in found).backward()  # type: ignore[union-attr]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 48), "width 48, height 64"),
        ((1, 4, 64, 64), r"\(1, 4, 64, 64\)"),
        ((3, 64, 64), r"\(3, 64"),
    ],
    ids=str,
)
def test_other_input_is_refused_with_its_size(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"PRTR.*{message}"):
        tiny_prtr()(torch.rand(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_joints": 101}, "prtr_resnet50: 101 joints need as many queries, it has 100"),
        ({"input_size": (100, 128)}, "input_size must be multiples of 32"),
        ({"colour": "rgb"}, "unknown option 'colour'"),
    ],
    ids=["joints", "size", "option"],
)
def test_wrong_arguments_are_explained(arguments: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model("prtr_resnet50", **arguments)


def test_fresh_parameters() -> None:
    model = tiny_prtr()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.reset_parameters("kaiming")
    conv = model.backbone[0].body.conv1.weight
    assert not torch.equal(conv, first[f"{BODY}conv1.weight"])
    assert conv.std().item() == pytest.approx((2 / (2048 * 32 * 32)) ** 0.5, rel=0.01)
    assert model.query_embed.weight.std().item() == pytest.approx(1.0, rel=0.3)
    with pytest.raises(ConfigError, match="init must be"):
        model.reset_parameters("xavier")


def save(state: dict[str, Any], path: Path) -> Path:
    torch.save(state, path)
    return path


class TestWeights:
    """Files of others; `given` is a filled model, `fresh` another one."""

    @pytest.fixture
    def given(self) -> PRTR:
        return tiny_prtr(filled=True)

    @pytest.fixture
    def fresh(self) -> PRTR:
        return tiny_prtr()

    def test_own_file_comes_back_whole(self, given: PRTR, fresh: PRTR, tmp_path: Path) -> None:
        given.meta = given.meta.with_options({"channel_order": "bgr"})
        save_weights(given, tmp_path / "prtr.safetensors")
        assert load_weights(fresh, tmp_path / "prtr.safetensors") == ()
        assert fresh.meta == given.meta
        assert all(torch.equal(t, given.state_dict()[n]) for n, t in fresh.state_dict().items())

    @pytest.mark.parametrize("prefix", ["backbone.0.body.", "backbone.body."], ids=["newer", "older"])
    def test_official_files_of_both_ages(self, given: PRTR, fresh: PRTR, prefix: str, tmp_path: Path) -> None:
        state = {name.replace(BODY, prefix): tensor for name, tensor in given.state_dict().items()}
        assert load_weights(fresh, save(state, tmp_path / "official.pth")) == ()
        assert all(torch.equal(t, given.state_dict()[n]) for n, t in fresh.state_dict().items())

    @pytest.mark.parametrize("classifier", ["fc", "classifier"])
    def test_imagenet_file_fills_the_backbone(
        self, given: PRTR, fresh: PRTR, classifier: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        state = {
            name.removeprefix(BODY): tensor
            for name, tensor in given.state_dict().items()
            if name.startswith(BODY)
        }
        state |= {f"{classifier}.weight": torch.zeros(1000, 2048), f"{classifier}.bias": torch.zeros(1000)}
        state["bn1.num_batches_tracked"] = torch.tensor(7)
        with caplog.at_level(logging.INFO):
            unset = load_weights(fresh, save(state, tmp_path / "imagenet.pth"))
        self.assert_backbone_alone(given, fresh, unset)
        assert f"{classifier}.weight" in caplog.text

    def detr(self, given: PRTR) -> dict[str, Tensor]:
        """What DETR's files hold: all of PRTR's names but kpt_embed, and a head of boxes and 91 classes."""
        state = {name: t for name, t in given.state_dict().items() if not name.startswith("kpt_embed.")}
        state["class_embed.weight"], state["class_embed.bias"] = torch.zeros(92, 16), torch.zeros(92)
        for i, size in enumerate((16, 16, 4)):
            state[f"bbox_embed.layers.{i}.weight"] = torch.zeros(size, 16)
            state[f"bbox_embed.layers.{i}.bias"] = torch.zeros(size)
        return state

    @pytest.mark.parametrize("file", ["bare", "released", "of a training"])
    def test_detr_file_fills_the_backbone(
        self, given: PRTR, fresh: PRTR, file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        state: dict[str, Any] = self.detr(given)
        if file != "bare":
            state = {"model": state}
        if file == "of a training":
            state |= {"optimizer": {"state": {}}, "epoch": 299, "args": Namespace(lr=1e-4, masks=False)}
        with caplog.at_level(logging.INFO):
            unset = load_weights(fresh, save(state, tmp_path / "detr.pth"))
        self.assert_backbone_alone(given, fresh, unset)
        body = sum(name.startswith(BODY) for name in fresh.state_dict())
        assert f"a backbone, {body} tensors loaded into tiny" in caplog.text
        assert "fresh stay class_embed, input_proj, kpt_embed, query_embed, transformer" in caplog.text

    def test_detr_file_is_a_start_of_load_backbone_too(
        self, given: PRTR, fresh: PRTR, tmp_path: Path
    ) -> None:
        before = fresh.query_embed.weight.clone()
        assert load_backbone(fresh, save({"model": self.detr(given)}, tmp_path / "detr.pth")) == ()
        assert torch.equal(fresh.backbone[0].body.conv1.weight, given.backbone[0].body.conv1.weight)
        assert torch.equal(fresh.query_embed.weight, before)

    def assert_backbone_alone(self, given: PRTR, fresh: PRTR, unset: tuple[str, ...]) -> None:
        names = set(fresh.state_dict())
        assert set(unset) == {name for name in names if not name.startswith(BODY)}
        for name in names - set(unset):
            assert torch.equal(fresh.state_dict()[name], given.state_dict()[name]), name
        assert not torch.equal(fresh.query_embed.weight, given.query_embed.weight)

    @pytest.mark.parametrize("broken", ["missing", "surplus"])
    def test_what_does_not_fit_is_named(self, given: PRTR, fresh: PRTR, broken: str, tmp_path: Path) -> None:
        state = dict(given.state_dict())
        if broken == "missing":
            del state["query_embed.weight"]
        else:
            state["final_layer.weight"] = torch.zeros(3)
        name = "query_embed.weight" if broken == "missing" else "final_layer.weight"
        before = fresh.query_embed.weight.clone()
        with pytest.raises(CheckpointError, match=name):
            load_weights(fresh, save(state, tmp_path / "broken.pth"))
        assert torch.equal(fresh.query_embed.weight, before)
