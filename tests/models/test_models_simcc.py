"""Networks of bins: names and shapes of mmpose, files of it and our own, and what cannot be."""

import pytest
import torch
from golden_models import fill

from fastpose.codecs import CODECS
from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import (
    HRNetConfig,
    ModelMeta,
    SimCCHRNet,
    SimCCPoseResNet,
    create_model,
    create_trained,
    load_model,
    load_weights,
    read_meta,
    registry,
    save_weights,
)
from fastpose.models.reading import reading_of
from fastpose.models.simcc import _load, _meta

THIN = HRNetConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1))


def tiny_simcc(num_joints=3, *, weights=None, **options):
    """A factory like those of `fastpose.models.simcc`."""
    return _load(SimCCHRNet(THIN, _meta("tiny_simcc", num_joints, weights, options)), weights, options)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(registry._factories, "tiny_simcc", tiny_simcc)
    monkeypatch.setitem(registry._tasks, "tiny_simcc", ModelMeta.task)


def empty(*shape: int) -> torch.Tensor:
    """All zeros, of one number in a file."""
    return torch.zeros(1).expand(shape)


def norm(name: str, width: int) -> dict[str, torch.Tensor]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": empty(width) for part in parts} | {
        f"{name}.num_batches_tracked": torch.tensor(0)
    }


def mmpose_resnet50(head: str = "head.") -> dict[str, torch.Tensor]:
    """Names and shapes of mmpose's simcc_res50 at 256x192, from the description of its parts."""
    state = {"backbone.conv1.weight": empty(64, 3, 7, 7), **norm("backbone.bn1", 64)}
    inputs = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            at = f"backbone.layer{layer}.{block}"
            for i, (a, b, size) in enumerate(
                ((inputs, width, 1), (width, width, 3), (width, 4 * width, 1)), start=1
            ):
                state |= {f"{at}.conv{i}.weight": empty(b, a, size, size), **norm(f"{at}.bn{i}", b)}
            if block == 0:
                state[f"{at}.downsample.0.weight"] = empty(4 * width, inputs, 1, 1)
                state |= norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    for i in range(3):
        state[f"{head}deconv_head.deconv_layers.{3 * i}.weight"] = empty(inputs if i == 0 else 256, 256, 4, 4)
        state |= norm(f"{head}deconv_head.deconv_layers.{3 * i + 1}", 256)
    state[f"{head}deconv_head.final_layer.weight"] = empty(17, 256, 1, 1)
    state[f"{head}deconv_head.final_layer.bias"] = empty(17)
    for axis, bins in (("x", 384), ("y", 512)):
        state[f"{head}mlp_head_{axis}.weight"] = empty(bins, 48 * 64)
        state[f"{head}mlp_head_{axis}.bias"] = empty(bins)
    return state


def test_mmposes_resnet_loads_whole(tmp_path):
    state = mmpose_resnet50()
    state["head.mlp_head_x.bias"] = torch.arange(384.0)
    state["head.deconv_head.final_layer.bias"] = torch.arange(17.0)
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "simcc.pth")
    model = create_model("simcc_resnet50")
    assert load_weights(model, tmp_path / "simcc.pth") == ()
    assert torch.equal(model.mlp_head_x.bias, torch.arange(384.0))
    assert torch.equal(model.final_layer.bias, torch.arange(17.0))
    assert len(model.state_dict()) == len(state)
    assert model.meta.codec == "simcc"
    assert model.meta.channel_order == "rgb"


def test_a_missing_name_is_told(tmp_path):
    state = mmpose_resnet50()
    del state["head.mlp_head_y.bias"]
    torch.save(state, tmp_path / "simcc.pth")
    with pytest.raises(CheckpointError, match=r"missing \(1\): mlp_head_y.bias"):
        load_weights(create_model("simcc_resnet50"), tmp_path / "simcc.pth")


@pytest.mark.parametrize("name", ["simcc_hrnet_w32", "simcc_hrnet_w48"])
def test_names_on_hrnet_are_its_own_and_the_two_layers(name):
    with torch.device("meta"):
        model = create_model(name)
        body = create_model(name.removeprefix("simcc_"))
    added = {"mlp_head_x.weight", "mlp_head_x.bias", "mlp_head_y.weight", "mlp_head_y.bias"}
    assert set(model.state_dict()) == set(body.state_dict()) | added


def test_imagenet_weights_fill_the_body(tmp_path):
    state = mmpose_resnet50()
    body = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    torch.save({**body, "fc.weight": empty(1000, 2048), "fc.bias": empty(1000)}, tmp_path / "resnet50.pth")
    unset = load_weights(create_model("simcc_resnet50"), tmp_path / "resnet50.pth")
    assert {name.split(".")[0] for name in unset} == {
        "deconv_layers", "final_layer", "mlp_head_x", "mlp_head_y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "bins"),
    [
        ({}, (384, 512)),
        ({"input_size": (64, 96)}, (128, 192)),
        ({"input_size": (64, 96), "split_ratio": 3.0}, (192, 288)),
    ],
    ids=["default", "small", "finer"],
)
def test_files_say_the_sizes_that_layers_depend_on(registered, tmp_path, options, bins):
    model = tiny_simcc(**options)
    path = tmp_path / "own.safetensors"
    save_weights(model, path)
    assert read_meta(path) == model.meta
    width, height = model.meta.input_size
    images = torch.rand(2, 3, height, width)
    for again in (load_model(path), create_trained("tiny_simcc", 3, path), tiny_simcc(weights=path)):
        assert again.meta == model.meta
        x, y = again.eval()(images)
        assert (x.shape, y.shape) == ((2, 3, bins[0]), (2, 3, bins[1]))
        torch.testing.assert_close(x, model.eval()(images)[0])


def test_each_joint_reads_its_own_map_alone():
    model = tiny_simcc(input_size=(64, 96)).eval()
    fill(model)
    torch.nn.init.normal_(model.mlp_head_x.weight)
    images = torch.rand(1, 3, 96, 64)
    before = model(images)
    with torch.no_grad():
        model.final_layer.bias[1] += 1.0
    after = model(images)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, [0, 2]], b[:, [0, 2]])
        assert not torch.allclose(a[:, 1], b[:, 1])


@pytest.mark.parametrize(
    "build", [lambda meta: SimCCHRNet(THIN, meta), lambda meta: SimCCPoseResNet(50, meta)]
)
def test_other_sizes_of_input_are_refused(build):
    model = build(ModelMeta("simcc", 3, (64, 96), codec="simcc")).eval()
    with pytest.raises(ValueError, match="built for inputs of width 64, height 96, got width 96, height 64"):
        model(torch.zeros(1, 3, 64, 96))


def test_fresh_parameters_are_mmposes():
    model = tiny_simcc(input_size=(192, 256))
    with torch.no_grad():
        model.mlp_head_x.weight.fill_(9.0)
        model.mlp_head_x.bias.fill_(9.0)
    model.reset_parameters("kaiming")
    assert model.mlp_head_x.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model.mlp_head_x.bias.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: create_model("hrnet_w18_small", codec="simcc"),
            "predicts heatmaps: codec must be 'msra' or 'udp'",
        ),
        (lambda: tiny_simcc(codec="msra"), "predicts bins: codec must be 'simcc', got 'msra'"),
        (lambda: ModelMeta("any", 3, codec="dark"), "codec must be 'msra' or 'udp' or 'simcc', got 'dark'"),
        (lambda: create_model("hrnet_w18_small", split_ratio=3.0), "split_ratio is of codec 'simcc'"),
        (lambda: tiny_simcc(split_ratio=0.0), "split_ratio must be above 0"),
        (lambda: tiny_simcc(input_size=(60, 96)), "input_size must be multiples of 32"),
    ],
    ids=["heatmaps", "bins", "unknown", "ratio of heatmaps", "no ratio", "size"],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_queries_speak_no_other_codec():
    with pytest.raises(ConfigError, match="predicts queries: codec must be 'msra', got 'udp'"):
        create_model("prtr_resnet50", codec="udp")


@pytest.mark.parametrize("codec", ["msra", "udp"])
def test_the_codec_travels_with_the_weights(codec, tmp_path):
    path = tmp_path / "own.safetensors"
    save_weights(create_model("hrnet_w18_small", 3, codec=codec), path)
    assert load_model(path).meta.codec == codec
    assert create_model("hrnet_w18_small", 3, weights=path).meta.codec == codec


def test_files_of_before_say_msra():
    text = ModelMeta("hrnet_w32", 17, codec="udp").to_json()
    old = text.replace(', "codec": "udp", "split_ratio": 2.0', "")
    assert old != text
    assert ModelMeta.from_json(old).codec == "msra"


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_asked_for_comes_before_the_codecs_own(codec):
    own = CODECS[codec]
    meta = ModelMeta("any", 17, codec=codec)
    assert reading_of(meta)[:2] == (own.refine, own.shift)
    assert reading_of(meta, refine="dark", shift=not own.shift)[:2] == ("dark", not own.shift)
