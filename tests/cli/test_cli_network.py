"""Which network `fastpose predict` and `fastpose app` run: by the file, a configuration or a name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fastpose.cli import _parse
from fastpose.cli._network import network_of
from fastpose.cli.predict import _predictor
from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import ModelMeta, PoseModel, create_model, load_weights, registry, save_weights

NAME = "tiny_for_network"
TWELVE = KeypointSet("twelve", tuple(f"joint_{n}" for n in range(12)), (), (), (0.05,) * 12, (), (1.0,) * 12)


class Tiny(PoseModel):
    """A convolution with its BatchNorm, and the layer of joints."""

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__(meta)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4))
        self.final_layer = nn.Conv2d(4, meta.num_joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.stem(x))


def tiny(num_joints: int = 17, *, weights: str | None = None, **options: object) -> Tiny:
    model = Tiny(ModelMeta(NAME, num_joints).with_options(options))
    if weights is not None:
        load_weights(model, weights)
    return model


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._factories, NAME, tiny)
        patch.setitem(registry._tasks, NAME, ModelMeta.task)
        yield


@pytest.fixture(scope="module")
def folder(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official-looking weights of 12, 16 and 17 joints, a file that says all, and what is no network."""
    made = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for joints in (12, 16, 17):
        network = create_model(NAME, joints)
        torch.save(network.state_dict(), made / f"{joints}.pth")
    save_weights(create_model(NAME, keypoints=COCO_17, input_size=(64, 96)), made / "best.safetensors")
    save_weights(create_model(NAME, 12, keypoints=TWELVE), made / "twelve.safetensors")
    (made / "net.onnx").write_bytes(b"not read")
    (made / "small.yaml").write_text(f"model: {{name: {NAME}}}\ndata: {{input_size: [64, 64]}}\n")
    (made / "mpii.yaml").write_text(
        f"model: {{name: {NAME}}}\ndata: {{format: mpii, input_size: [96, 64]}}\n"
    )
    return made


def test_a_file_that_says_what_it_is_is_left_to_the_predictor(folder: Path) -> None:
    assert network_of(folder) == network_of(folder / "best.safetensors") == folder / "best.safetensors"
    assert network_of(folder / "net.onnx") == folder / "net.onnx"


@pytest.mark.parametrize(
    ("config", "joints", "size", "keypoints"),
    [("small.yaml", 17, (64, 64), COCO_17), ("mpii.yaml", 16, (96, 64), MPII_16)],
)
def test_a_configuration_says_the_network_its_joints_and_size(
    folder: Path, config: str, joints: int, size: tuple[int, int], keypoints: KeypointSet
) -> None:
    network = network_of(folder / f"{joints}.pth", config=str(folder / config))
    meta = network.meta
    assert (meta.model, meta.num_joints, meta.input_size, meta.keypoints) == (NAME, joints, size, keypoints)
    stored = torch.load(folder / f"{joints}.pth", weights_only=True)
    assert torch.equal(network.state_dict()["final_layer.weight"], stored["final_layer.weight"])


@pytest.mark.parametrize(("joints", "keypoints"), [(16, MPII_16), (17, COCO_17)])
def test_of_a_name_the_file_says_how_many_joints_there_are(
    folder: Path, joints: int, keypoints: KeypointSet
) -> None:
    network = network_of(folder / f"{joints}.pth", model=NAME)
    assert network.meta.num_joints == joints
    assert Predictor(network, device="cpu").keypoints is keypoints
    stored = torch.load(folder / f"{joints}.pth", weights_only=True)
    assert torch.equal(network.state_dict()["final_layer.weight"], stored["final_layer.weight"])


def test_joints_that_a_file_names_itself(folder: Path) -> None:
    assert network_of(folder / "twelve.safetensors", model=NAME).meta.keypoints == TWELVE


@pytest.mark.parametrize(
    ("file", "named", "error", "words"),
    [
        ("17.pth", {}, CheckpointError, "--config coco/"),
        ("12.pth", {"model": NAME}, CheckpointError, "12 joints and does not say which; give a run folder"),
        ("17.pth", {"model": "hrnet_w23"}, ConfigError, "did you mean"),
        ("17.pth", {"model": "hrnet_seg_w18_small_v1"}, ConfigError, "segmentation network; for poses: "),
        ("17.pth", {"model": NAME, "config": "small.yaml"}, ConfigError, "give one of the two"),
        ("net.onnx", {"model": NAME}, ConfigError, "--model: .*exported network, which says what it is"),
        ("net.onnx", {"config": "small.yaml"}, ConfigError, "--config: .*leave it out"),
        ("gone.pth", {"model": NAME}, CheckpointError, "no such file"),
    ],
    ids=["nothing", "twelve-joints", "unknown", "segmentation", "both", "named-onnx", "onnx", "gone"],
)
def test_refusals_are_for_the_command_line(
    folder: Path, file: str, named: dict[str, str], error: type[Exception], words: str
) -> None:
    named = {key: str(folder / value) if key == "config" else value for key, value in named.items()}
    with pytest.raises(error, match=words) as refused:
        network_of(folder / file, **named)
    assert "Predictor(" not in str(refused.value), "a remedy in Python"


def words_of(folder: Path, *more: str) -> Namespace:
    named = ["--config", str(folder / "small.yaml")]
    return _parse(["predict", str(folder / "17.pth"), "x.png", *named, "--device", "cpu", *more])


@pytest.mark.parametrize(("amp", "dtype"), [("none", torch.float32), ("bf16", torch.bfloat16)])
def test_the_network_of_a_configuration_is_folded_in_the_type_of_autocast(
    folder: Path, amp: str, dtype: torch.dtype
) -> None:
    network = _predictor(words_of(folder, "--amp", amp)).model
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2
    assert {module.weight.dtype for module in convolutions} == {dtype}
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_every_option_of_speed_reaches_the_predictor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}
    monkeypatch.setattr("fastpose.infer.predictor.Predictor", lambda model, **options: taken.update(options))
    monkeypatch.setattr("fastpose.cli.predict.print_network", lambda predictor: None)
    _predictor(words_of(folder))
    usual = {key: taken[key] for key in ("batch_size", "workers", "compile", "detector", "fold")}
    assert usual == {"batch_size": 32, "workers": "auto", "compile": False, "detector": "whole", "fold": True}
    more = (
        "--batch-size 4 --workers 3 --compile max-autotune --warp cpu "
        "--no-exif --no-flip --refine dark --blur-kernel 17"
    )
    _predictor(words_of(folder, *more.split(), "--detector", "people", "--rate", "12.5"))
    expected = {
        "batch_size": 4,
        "workers": 3,
        "compile": "max-autotune",
        "warp": "cpu",
        "upright": False,
        "flip_test": False,
    }
    expected |= {"refine": "dark", "blur_kernel": 17, "detector": "people", "rate": 12.5}
    assert {key: taken[key] for key in expected} == expected
