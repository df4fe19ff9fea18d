"""Reading weights files of every kind, refusing the bad ones, and writing our own."""

from __future__ import annotations

import errno
import io
import logging
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_models import same, tiny
from torch import Tensor

from fastpose.errors import CheckpointError, ConfigError, OutputError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import (
    HRNet,
    ModelMeta,
    create_model,
    hrnet_w18_small,
    load_model,
    load_weights,
    read_meta,
    save_weights,
)
from fastpose.models.weights import create_fitting
from fastpose.nn import Exchange

THREE = KeypointSet(
    "three", ("head", "hand_l", "hand_r"), ((1, 2),), ((0, 1),), (0.1, 0.2, 0.2), (0,), (1, 1, 1)
)


@pytest.fixture(scope="module")
def filled() -> HRNet:
    return tiny(filled=True)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def mmpose_names(state: dict[str, Tensor], head: str = "head.") -> dict[str, Tensor]:
    names = {name: (head if name.startswith("final_layer") else "backbone.") + name for name in state}
    return {names[name]: tensor for name, tensor in state.items()}


def classification_network(model: HRNet) -> dict[str, Tensor]:
    """As in the official ImageNet files: the body with every row of the last exchange, and another head."""
    body = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("final_layer")}
    rows = Exchange([2, 4, 8, 16]).state_dict()
    head = {
        "incre_modules.0.0.conv1.weight": torch.zeros(4, 2, 1, 1),
        "downsamp_modules.0.0.weight": torch.zeros(8, 4, 3, 3),
        "final_layer.0.weight": torch.zeros(16, 8, 1, 1),
        "final_layer.0.bias": torch.zeros(16),
        "classifier.weight": torch.zeros(10, 16),
        "classifier.bias": torch.zeros(10),
    }
    return {**{f"stage4.0.fuse_layers.{name}": tensor for name, tensor in rows.items()}, **body, **head}


def training_checkpoint(state: dict[str, Tensor]) -> dict[str, object]:
    """The official `checkpoint.pth`: the score in it is a NumPy scalar."""
    return {
        "epoch": 3,
        "model": "pose_hrnet",
        "state_dict": prefixed(state, "module."),
        "perf": np.float64(0.7),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    }


def mmpose_checkpoint(state: dict[str, Tensor]) -> dict[str, object]:
    """mmpose 1.x: data set facts are NumPy arrays, and the preprocessor may have buffers."""
    buffers = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    meta = {"dataset_meta": {"sigmas": np.ones(17, np.float32), "names": ["nose"]}, "epoch": 210}
    return {"meta": meta, "state_dict": {**buffers, **mmpose_names(state)}}


WRAPPINGS = {
    "official": lambda state: state,
    "data_parallel": lambda state: prefixed(state, "module."),
    "compiled_and_parallel": lambda state: prefixed(state, "module._orig_mod."),
    "training_checkpoint": training_checkpoint,
    "mmpose": mmpose_checkpoint,
    "mmpose_0": lambda state: {"state_dict": mmpose_names(state, "keypoint_head.")},
    "no_counters": lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
    "half": lambda state: {n: t.half() if t.is_floating_point() else t for n, t in state.items()},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pth_of_every_origin_loads(tmp_path: Path, filled: HRNet, wrapping: str, legacy: bool) -> None:
    path = tmp_path / "weights.pth"
    content = WRAPPINGS[wrapping](filled.state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model = tiny()
    meta = model.meta
    assert load_weights(model, path) == ()
    for name, tensor in model.state_dict().items():
        want = filled.state_dict()[name]
        assert torch.equal(tensor, want.half().float() if wrapping == "half" else want), name
    assert model.meta == meta


def test_history_buffers_of_mmengine_are_passed_over(tmp_path: Path, filled: HRNet) -> None:
    """A raw mmengine checkpoint names a class that is not installed here; the pickle is made by renaming."""
    stand_in = type("HistoryBufferX", (), {})
    stand_in.__module__, stand_in.__qualname__ = __name__, "HistoryBufferX"
    globals()["HistoryBufferX"] = stand_in
    log = stand_in()
    log.__dict__.update(max_length=10, _log_history=np.arange(3.0))
    data = io.BytesIO()
    content = {
        "message_hub": {"log_scalars": OrderedDict(loss=log)},
        **mmpose_checkpoint(filled.state_dict()),
    }
    torch.save(content, data)
    path = tmp_path / "epoch_1.pth"
    old = f"c{__name__}\nHistoryBufferX\n".encode()
    new = b"cmmengine.logging.history_buffer\nHistoryBuffer\n"
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            bytes_ = source.read(entry)
            assert old in bytes_ or not entry.filename.endswith("data.pkl")
            target.writestr(entry.filename, bytes_.replace(old, new))
    model = tiny()
    load_weights(model, path)
    assert same(model, filled)


def test_official_w18_file_keeps_family_defaults_unless_told(tmp_path: Path) -> None:
    source = hrnet_w18_small(16)
    path = tmp_path / "pose.pth"
    torch.save(source.state_dict(), path)
    model = hrnet_w18_small(16, weights=path)
    assert same(model, source)
    assert model.meta == ModelMeta("hrnet_w18_small", 16, (192, 256), "rgb", None)
    told = create_model(
        "hrnet_w18_small", 16, weights=path, channel_order="bgr", input_size=(256, 256), keypoints=MPII_16
    )
    assert told.meta == ModelMeta("hrnet_w18_small", 16, (256, 256), "bgr", MPII_16)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."], ids=["plain", "data_parallel", "mmpose"])
def test_imagenet_backbone_fills_all_but_the_head(
    tmp_path: Path, filled: HRNet, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hrnet.pth"
    torch.save(prefixed(classification_network(filled), prefix), path)
    model = tiny(num_joints=5)
    head = model.final_layer.weight.clone()
    with caplog.at_level(logging.INFO, "fastpose"):
        assert load_weights(model, path) == ("final_layer.weight", "final_layer.bias")
    body = {n: t for n, t in filled.state_dict().items() if not n.startswith("final_layer")}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in body.items())
    assert torch.equal(model.final_layer.weight, head)
    assert f"a backbone, {len(body)} tensors loaded into tiny" in caplog.text
    assert "; fresh stay final_layer" in caplog.text


def change(state: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    if what == "truncated":
        return {n: t for n, t in state.items() if not n.startswith("stage3")}
    if what == "deeper":
        return {**state, "layer1.1.conv1.weight": torch.zeros(64, 256, 1, 1)}
    return {"features.0.weight": torch.zeros(3), "classifier.weight": torch.zeros(3)}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "missing ("),
        ("deeper", "unexpected (1): layer1.1.conv1.weight"),
        ("another_network", "missing ("),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(
    tmp_path: Path, filled: HRNet, what: str, message: str
) -> None:
    path = tmp_path / "hrnet.pth"
    torch.save(change(classification_network(filled), what), path)
    with pytest.raises(CheckpointError, match="does not fit tiny") as caught:
        load_weights(tiny(), path)
    assert message in str(caught.value)


def test_a_mismatch_lists_everything_and_changes_nothing(tmp_path: Path, filled: HRNet) -> None:
    state = filled.state_dict()
    del state["bn1.weight"], state["final_layer.bias"]
    state |= {f"surplus.{i}": torch.zeros(1) for i in range(14)}
    state["conv1.weight"] = torch.zeros(64, 1, 3, 3)
    state["bn2.weight"] = torch.zeros(64, dtype=torch.int64)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    model, untouched = tiny(), tiny()
    untouched.load_state_dict(model.state_dict())
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert f"{path}: does not fit tiny with 3 joints" in message
    assert "missing (2): bn1.weight, final_layer.bias" in message
    assert "unexpected (14): surplus.0, " in message
    assert "surplus.9, and 4 more" in message
    assert "conv1.weight float32(64, 1, 3, 3) instead of float32(64, 3, 3, 3)" in message
    assert "bn2.weight int64(64,) instead of float32(64,)" in message
    assert same(model, untouched)


def test_another_joint_count_is_said_so(tmp_path: Path, filled: HRNet) -> None:
    path = tmp_path / "weights.pth"
    torch.save(filled.state_dict(), path)
    with pytest.raises(CheckpointError, match="create the model with num_joints=3"):
        load_weights(tiny(num_joints=4), path)
    with pytest.raises(CheckpointError, match="choose the model the file was made for"):
        load_weights(tiny(num_joints=4, width=3), path)
    flat = {**filled.state_dict(), "final_layer.weight": torch.ones(()), "final_layer.bias": torch.ones(())}
    torch.save(flat, path)
    with pytest.raises(CheckpointError, match="choose the model the file was made for"):
        load_weights(tiny(), path)


def test_meta_travels_in_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    meta = {"input_size": (64, 96), "channel_order": "bgr", "keypoints": THREE}
    source = tiny(filled=True, **meta).to(memory_format=torch.channels_last)
    save_weights(source, path)
    assert read_meta(path) == source.meta == ModelMeta("tiny", 3, (64, 96), "bgr", THREE)
    model = tiny()
    assert load_weights(model, path) == ()
    assert same(model, source)
    assert model.meta == source.meta
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_load_model_builds_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    source = hrnet_w18_small(16, input_size=(256, 256), keypoints=MPII_16)
    save_weights(source, path)
    model = load_model(path)
    assert same(model, source)
    assert model.meta == source.meta
    other = hrnet_w18_small(16, weights=path, channel_order="bgr")
    assert other.meta == ModelMeta("hrnet_w18_small", 16, (256, 256), "bgr", MPII_16)
    with pytest.raises(
        CheckpointError, match=r"holds hrnet_w18_small with 16 joints, not hrnet_w18_small with 17"
    ):
        hrnet_w18_small(17, weights=path)


def test_load_model_needs_to_know_the_model(tmp_path: Path, filled: HRNet) -> None:
    torch.save(filled.state_dict(), tmp_path / "a.pth")
    safetensors.torch.save_file(filled.state_dict(), tmp_path / "b.safetensors")
    save_weights(filled, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.safetensors"):
        assert read_meta(tmp_path / name) is None
        with pytest.raises(CheckpointError, match="does not say which model"):
            load_model(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=r"is for 'tiny', which is not known here; `fastpose models` lists"
    ):
        load_model(tmp_path / "c.safetensors")


def test_foreign_safetensors_load_by_their_names(tmp_path: Path, filled: HRNet) -> None:
    path = tmp_path / "hub.safetensors"
    safetensors.torch.save_file(mmpose_names(filled.state_dict()), path)
    model = tiny()
    load_weights(model, path)
    assert same(model, filled)


def test_wrapped_models_save_and_load_as_themselves(tmp_path: Path, filled: HRNet) -> None:
    path = tmp_path / "wrapped.safetensors"
    wrapped = torch.nn.DataParallel(torch.compile(filled, backend="eager"))
    save_weights(wrapped, path)
    model = tiny()
    load_weights(torch.nn.DataParallel(torch.compile(model, backend="eager")), path)
    assert same(model, filled)
    with pytest.raises(TypeError, match="got Linear"):
        save_weights(torch.nn.Linear(1, 1), path)


def test_an_average_can_be_saved_in_place_of_the_weights(tmp_path: Path, filled: HRNet) -> None:
    path = tmp_path / "ema.safetensors"
    average = {n: t * 0.5 if t.is_floating_point() else t for n, t in filled.state_dict().items()}
    save_weights(filled, path, prefixed(average, "module."))
    model = tiny()
    load_weights(model, path)
    assert torch.equal(model.conv1.weight, filled.conv1.weight * 0.5)
    with pytest.raises(CheckpointError, match="state_dict: does not fit tiny"):
        save_weights(filled, path, {"conv1.weight": average["conv1.weight"]})
    with pytest.raises(CheckpointError, match=r"name the file ema\.safetensors"):
        save_weights(filled, tmp_path / "ema.pth")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, filled: HRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(filled, path)
    before = path.read_bytes()

    def disk_full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OutputError, match=r"last\.safetensors: .*No space left"):
        save_weights(tiny(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_missing_folder_is_an_output_error(tmp_path: Path, filled: HRNet) -> None:
    with pytest.raises(OutputError, match=r"a\.safetensors"):
        save_weights(filled, tmp_path / "none" / "a.safetensors")


@pytest.mark.parametrize("keypoints", [None, COCO_17], ids=["none", "coco"])
def test_meta_survives_json(keypoints: KeypointSet | None) -> None:
    meta = ModelMeta("hrnet_w32", 17, (288, 384), "bgr", keypoints)
    assert ModelMeta.from_json(meta.to_json()) == meta


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '"x"', "[" * 100_000,
        '{"model": 1, "num_joints": 17, "keypoints": null}',
        '{"model": "a", "num_joints": 1e9, "keypoints": null}',
        '{"model": "a", "num_joints": 2, "keypoints": {"name": "x"}}',
        '{"model": "a", "num_joints": 2, "keypoints": null, "channel_order": ["rgb"]}',
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_wrong_meta_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        ModelMeta.from_json(text)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("hrnet_w18_small", 5), ("hourglass2_mobile", 5), ("pose_resnet50", 5), ("hrnet_seg_w18_small_v1", 5)],
)
def test_file_of_other_outputs_says_how_many(tmp_path, name, outputs):
    path = tmp_path / "five.pth"
    torch.save(create_model(name, outputs).state_dict(), path)
    counted = create_model(name).meta.outputs_name
    with pytest.raises(CheckpointError, match=f"only {counted} differs: create the model with {counted}=5"):
        load_weights(create_model(name), path)
    assert create_fitting(name, path).meta.outputs == outputs


def test_file_of_another_network_of_other_outputs_is_not_taken_for_it(tmp_path):
    path = tmp_path / "wide.pth"
    torch.save(create_model("hrnet_w32", 5).state_dict(), path)
    with pytest.raises(CheckpointError, match="choose the model the file was made for"):
        load_weights(create_model("hrnet_w48"), path)
