"""Official hourglass files with their dead parameters, and our own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import shared_path
from golden_models import fill, read_golden
from tiny_hourglass import tiny_hourglass
from tiny_models import same
from torch import Tensor

from fastpose.errors import CheckpointError
from fastpose.models import (
    Hourglass,
    HourglassConfig,
    ModelMeta,
    create_model,
    hourglass2,
    load_model,
    load_weights,
    save_weights,
)
from fastpose.models.hourglass_blocks import PreResidual

ONE = torch.ones(1)


def dead_shortcuts(model: Hourglass) -> dict[str, Tensor]:
    """What the official residuals hold where the width stays."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, PreResidual) and module.skip_layer is None:
            width = module.bn1.num_features
            found[f"{name}.skip_layer.conv.weight"] = torch.randn(width, width, 1, 1)
            found[f"{name}.skip_layer.conv.bias"] = torch.randn(width)
    return found


def official_file(path: Path, state: dict[str, Tensor]) -> Path:
    """A checkpoint of the official trainer, which holds the model in a DataParallel."""
    named = {f"model.module.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": named, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}, path)
    return path


def empty() -> Hourglass:
    return Hourglass(tiny_hourglass().config, ModelMeta("tiny", 3))


def test_official_checkpoint_loads_and_names_what_is_never_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled, model = tiny_hourglass(), empty()
    dead = dead_shortcuts(filled)
    path = official_file(tmp_path / "checkpoint.pt", {**filled.state_dict(), **dead})
    with caplog.at_level(logging.INFO, logger="fastpose"):
        assert load_weights(model, path) == ()
    assert same(model, filled)
    text = caplog.text
    assert f"{len(filled.state_dict())} tensors loaded into tiny" in text
    assert f"{len(dead)} tensors that tiny does not take left out: " in text
    assert next(iter(dead)) in text


def test_every_name_of_the_official_network_is_loaded_or_known_to_be_dead(tmp_path: Path) -> None:
    golden = read_golden(shared_path("golden", "models", "hourglass2_princeton.json"))
    filled, model = hourglass2(), hourglass2()
    fill(filled)
    dead = {name: shape for name, shape in golden.state_dict.items() if golden.grad_norm.get(name, 1) is None}
    found, unused = model.adapt_names(
        {**filled.state_dict(), **{name: torch.zeros(shape) for name, shape in dead.items()}}
    )
    assert set(unused) == set(dead)
    assert found.keys() == filled.state_dict().keys()
    load_weights(
        model, official_file(tmp_path / "hg2.pth", {**found, **{n: torch.zeros(s) for n, s in dead.items()}})
    )
    assert same(model, filled)


def test_layers_that_hand_on_from_the_last_stack_are_left_out(tmp_path: Path) -> None:
    filled, model = tiny_hourglass(), empty()
    surplus = {
        "merge_features.1.conv.conv.weight": torch.zeros(8, 8, 1, 1),
        "merge_preds.1.conv.conv.bias": torch.zeros(8),
    }
    _, unused = model.adapt_names({**filled.state_dict(), **surplus})
    assert unused == list(surplus)
    load_weights(model, official_file(tmp_path / "a.pth", {**filled.state_dict(), **surplus}))
    assert same(model, filled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("pre.1.skip_layer.conv.bias"), "missing (1): pre.1.skip_layer.conv.bias"),
        (lambda state: state.update({"hgs.0.0.up1.skip": ONE}), "unexpected (1): hgs.0.0.up1.skip"),
        (lambda state: state.update({"merge_preds.2.conv": ONE}), "unexpected (1): merge_preds.2.conv"),
        (lambda state: state.update({"outs.2.conv.bias": ONE}), "unexpected (1): outs.2.conv.bias"),
    ],
    ids=["live_shortcut_missing", "other_name", "stack_too_many", "output_too_many"],
)
def test_other_differences_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    model = empty()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {**tiny_hourglass().state_dict(), **dead_shortcuts(model)}
    change(state)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, official_file(tmp_path / "a.pth", state))
    assert message in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_file_of_more_stacks_is_refused(tmp_path: Path) -> None:
    path = official_file(tmp_path / "a.pth", tiny_hourglass(stacks=3).state_dict())
    with pytest.raises(CheckpointError, match=r"unexpected .*hgs\.2\.0"):
        load_weights(tiny_hourglass(stacks=2), path)


@pytest.mark.parametrize("name", ["hourglass2", "hourglass2_paper", "hourglass2_post", "hourglass2_mobile"])
def test_saved_weights_build_their_model_again(tmp_path: Path, name: str) -> None:
    model = create_model(name, 5, input_size=(128, 192), mean=(0.1, 0.2, 0.3))
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    loaded = load_model(path)
    assert same(loaded, model)
    assert loaded.meta == model.meta
    assert isinstance(loaded, Hourglass)
    assert loaded.config == model.config


def test_weights_and_options_of_a_factory(tmp_path: Path) -> None:
    filled = hourglass2()
    fill(filled)
    path = official_file(tmp_path / "hg2.pth", filled.state_dict())
    model = hourglass2(weights=path, channel_order="bgr")
    assert same(model, filled)
    assert model.meta.channel_order == "bgr"
    assert model.config == HourglassConfig(2)
