"""Options of a Predictor that cannot be are refused by name before any file is read; others are taken."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pose_stubs import TWO, ChannelPeaks
from torch import nn

from fastpose.errors import ConfigError
from fastpose.infer import predictor_options
from fastpose.infer.predictor import Predictor
from fastpose.infer.smooth import OneEuro
from fastpose.infer.track import Tracker
from fastpose.keypoints import COCO_17
from fastpose.models import ModelMeta, PoseModel, load_weights, registry, save_weights

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)

MAKE_TRACKER = partial(Tracker, TWO.sigmas)

SWITCH = "expected True or False"
FOLLOWED = "expected True, False or a function that makes a"
WRONG = {
    "flip_test": (SWITCH, ["no", 1, None, np.zeros(2)]),
    "upright": (SWITCH, ["no", 0]),
    "graph": (SWITCH, ["x", 0, None]),
    "fold": ("expected None, True or False", ["x", 1]),
    "refine": ("expected one of auto, none, quarter", ["x", "", 3, None, {}]),
    "blur_kernel": ("expected an odd number from 1 to 63", [4, 0, -1, 65]),
    "rate": ("a number of frames a second above 0", ["x", "25", None, True, 0, -1.0, np.nan, np.inf, 1j]),
    "track": (f"{FOLLOWED} Tracker", ["yes", 3, None, [], Tracker()]),
    "smooth": (f"{FOLLOWED} OneEuro", ["no", 3, 0.5, OneEuro()]),
    "batch_size": ("expected a whole number above 0", [True, 0, -1, 2.5, "8", None]),
    "workers": ("expected 'auto' or a whole number from 0 to 256", [-1, True, 2.5, "many", None, 257]),
    "compile": ("expected False, True, 'default' or 'max-autotune'", [3, 1, "fast", "", None, [], {}]),
    "warp": ("expected 'auto', 'cpu' or 'gpu'", ["cuda", True, None]),
    "device": ("auto, cpu, cuda or cuda:N", [None, True, 2.5, "tpu"]),
    "amp": ("auto, none, bf16 or fp16", [3, None, [], "fp8"]),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{value!r:.12}")
        for name, (_, all) in WRONG.items()
        for value in all
    ],
)
def test_wrong_options_are_named_before_anything_is_read(name, value):
    with pytest.raises(ConfigError, match=f"^{name}") as refused:
        Predictor("gone.safetensors", **{name: value})
    assert WRONG[name][0] in str(refused.value)
    if name != "blur_kernel":
        assert repr(value) in str(refused.value)


@pytest.mark.parametrize(("value", "got"), [("x", "str"), (2.5, "float"), (True, "bool")])
def test_a_kernel_of_another_type(value, got):
    with pytest.raises(ConfigError, match=f"blur_kernel: expected an int, got {got}"):
        Predictor("gone.safetensors", blur_kernel=value)


def test_half_precision_that_the_device_does_not_have():
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        Predictor("gone.safetensors", amp="fp16", device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"flip_test": np.False_, "upright": np.bool_(True)},
        {"track": MAKE_TRACKER, "smooth": OneEuro, "rate": np.float32(30)},
        {"track": True, "smooth": np.True_, "rate": 1},
        {"workers": 0, "batch_size": 1, "device": torch.device("cpu")},
        {"refine": "dark", "blur_kernel": 63},
        {"refine": "dark_udp", "blur_kernel": 17, "batch_size": np.int64(4)},
        {"batch_size": 10**18},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_that_are_taken(options):
    options = {"device": "cpu", "detector": "whole"} | options
    (result,) = Predictor(ChannelPeaks(), **options)([IMAGE])
    assert result.error is None
    assert len(result) == 1


def test_a_kernel_that_nothing_would_use_is_refused():
    for refine in ("auto", "quarter", "none"):
        with pytest.raises(ConfigError, match="blur_kernel=17: belongs to dark and dark_udp"):
            Predictor(ChannelPeaks(), refine=refine, blur_kernel=17)


@pytest.mark.parametrize("number", [0, np.int64(0), 1], ids=repr)
def test_a_number_is_that_of_a_gpu(number, monkeypatch):
    asked = []
    monkeypatch.setattr(predictor_options, "pick_device", lambda name: asked.append(name) or CPU)
    monkeypatch.setattr(predictor_options, "device_for", lambda network, name: asked.append(name) or CPU)
    Predictor(ChannelPeaks(), detector="whole", device=number)
    assert asked == [f"cuda:{number}"] * 2
    assert Predictor(ChannelPeaks(), batch_size=np.int32(4)).batch_size == 4


@pytest.mark.parametrize("stream", ["yes", 1, None])
def test_stream_is_a_switch(stream):
    with pytest.raises(ConfigError, match="stream: expected True or False"):
        Predictor(ChannelPeaks(), detector="whole")(IMAGE, stream=stream)


class Normed(PoseModel):
    """A convolution and its BatchNorm, which `folded` knows to be one in an nn.Sequential."""

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__(meta)
        self.final_layer = nn.Sequential(nn.Conv2d(3, meta.num_joints, 1), nn.BatchNorm2d(meta.num_joints))
        norm = self.final_layer[1]
        nn.init.uniform_(norm.bias, 5, 6)
        nn.init.uniform_(norm.running_mean, -1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(x[..., ::4, ::4])


@pytest.fixture
def normed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Normed, Path]:
    """A network with a BatchNorm, and its file."""

    def factory(num_joints: int = 17, *, weights: str | None = None, **options: object) -> Normed:
        network = Normed(ModelMeta("normed", num_joints).with_options(options))
        if weights is not None:
            load_weights(network, weights)
        return network

    monkeypatch.setitem(registry._factories, "normed", factory)
    monkeypatch.setitem(registry._tasks, "normed", ModelMeta.task)
    torch.manual_seed(0)
    network = Normed(ModelMeta("normed", 17, (64, 64), keypoints=COCO_17)).eval()
    save_weights(network, tmp_path / "normed.safetensors")
    return network, tmp_path / "normed.safetensors"


def norms(predictor: Predictor) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in predictor.model.modules())


def test_whose_network_is_folded(normed):
    network, file = normed
    more = {"device": "cpu", "detector": "whole", "flip_test": False}
    found = {
        (source, fold): Predictor(model, fold=fold, **more)
        for source, model in (("network", network), ("file", file))
        for fold in (None, False, True)
    }
    assert {key: norms(predictor) for key, predictor in found.items()} == {
        ("network", None): 1, ("network", False): 1, ("network", True): 0,
        ("file", None): 0, ("file", False): 1, ("file", True): 0,
    }  # fmt: skip
    assert isinstance(network.final_layer[1], nn.BatchNorm2d), "the caller's own stays as it is"
    expected = found["network", False](IMAGE)[0].keypoints
    for predictor in found.values():
        points = predictor(IMAGE)[0].keypoints
        np.testing.assert_allclose(points.conf, expected.conf, rtol=1e-5)


def test_a_folded_copy_has_the_weights_of_autocast(normed):
    network, file = normed
    for model, fold in ((network, True), (file, None)):
        copy = Predictor(model, fold=fold, amp="bf16", device="cpu").model
        assert copy.final_layer[0].weight.dtype == torch.bfloat16
    assert network.final_layer[0].weight.dtype == torch.float32
    plain = Predictor(network, amp="bf16", device="cpu").model
    assert plain.final_layer[0].weight.dtype == torch.float32, "autocast casts those of a network in training"
