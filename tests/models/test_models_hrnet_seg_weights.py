"""Files of the official segmentation trainer, of classification networks and our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_models import fill
from tiny_models import same
from tiny_seg import tiny_seg
from torch import Tensor, nn

from fastpose.errors import CheckpointError
from fastpose.models import create_model, load_model, load_weights, save_weights

SMALL = "hrnet_seg_w18_small_v1"


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "module.model.", "model.module."])
@pytest.mark.parametrize("whole", [False, True], ids=["weights", "checkpoint"])
def test_file_of_the_official_trainer_loads(tmp_path: Path, wrapper: str, whole: bool) -> None:
    filled, model = tiny_seg(), tiny_seg(filled=False)
    state: dict[str, Tensor] = {wrapper + name: t for name, t in filled.state_dict().items()}
    if "model." in wrapper:
        state[f"{wrapper.replace('model.', '')}loss.criterion.weight"] = torch.ones(3)
    wrapped = {"epoch": 7, "best_mIoU": 0.8, "state_dict": state, "optimizer": {}} if whole else state
    assert load_weights(model, saved(tmp_path / "official.pth", wrapped)) == ()
    assert same(model, filled)


def test_what_the_network_never_uses_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {f"model.{name}": t for name, t in tiny_seg().state_dict().items()}
    state["loss.criterion.weight"] = torch.ones(3)
    with caplog.at_level("INFO", logger="fastpose"):
        load_weights(tiny_seg(), saved(tmp_path / "official.pth", state))
    assert "loss.criterion.weight" in caplog.text


def test_a_surplus_tensor_is_refused(tmp_path: Path) -> None:
    model, state = tiny_seg(), {f"model.{name}": t for name, t in tiny_seg().state_dict().items()}
    state["model.aux_head.0.weight"] = torch.ones(3)
    with pytest.raises(CheckpointError, match=r"unexpected \(1\): aux_head\.0\.weight"):
        load_weights(model, saved(tmp_path / "other.pth", state))


def test_classification_file_fills_all_but_the_head(tmp_path: Path) -> None:
    filled, model = tiny_seg(), tiny_seg(filled=False)
    body = {n: t for n, t in filled.state_dict().items() if not n.startswith("last_layer")}
    head = {
        "incre_modules.0.0.conv1.weight": torch.zeros(4, 2, 1, 1),
        "downsamp_modules.0.0.weight": torch.zeros(8, 4, 3, 3),
        "final_layer.0.weight": torch.zeros(16, 8, 1, 1),
        "classifier.weight": torch.zeros(10, 16),
    }
    before = {name: tensor.clone() for name, tensor in model.last_layer.state_dict().items()}
    unset = load_weights(model, saved(tmp_path / "imagenet.pth", body | head))
    assert set(unset) == {f"last_layer.{name}" for name in before}
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in body.items())
    assert all(torch.equal(after[f"last_layer.{name}"], tensor) for name, tensor in before.items())


def test_pose_network_is_no_backbone_its_last_exchange_has_one_row(tmp_path: Path) -> None:
    pose, model = create_model("hrnet_w18_small"), create_model("hrnet_seg_w18_small_v2")
    path = saved(tmp_path / "pose.pth", pose.state_dict())
    with pytest.raises(CheckpointError, match=r"missing.*stage4\.1\.fuse_layers\.1"):
        load_weights(model, path)


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "21.pth", tiny_seg(21).state_dict())
    with pytest.raises(CheckpointError, match=r"only num_classes differs: .*num_classes=21"):
        load_weights(tiny_seg(3), path)


def test_saved_network_comes_back_with_its_conventions(tmp_path: Path) -> None:
    model = create_model(SMALL, 4, align_corners=True, bn_momentum=0.01, input_size=(96, 64)).eval()
    fill(model)
    save_weights(model, tmp_path / "own.safetensors")
    back = load_model(tmp_path / "own.safetensors").eval()
    x = torch.rand(1, 3, 64, 96)
    assert back.meta == model.meta
    assert torch.equal(back(x), model(x))
    into = create_model(SMALL, 4).eval()
    load_weights(into, tmp_path / "own.safetensors")
    assert torch.equal(into(x), model(x)), "the file's align_corners reaches a network that exists"
    assert {m.momentum for m in into.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    override = create_model(SMALL, 4, weights=tmp_path / "own.safetensors", bn_momentum=0.2)
    assert (override.meta.align_corners, override.bn1.momentum) == (True, 0.2)
