"""Full-resolution HRNet against arithmetic written out from its names; it has no official numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_models import fill, relative_error
from named_layers import NamedLayers
from tiny_models import same
from tiny_models import tiny as tiny_hrnet
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastpose.errors import CheckpointError, ConfigError
from fastpose.models import (
    HRNetConfig,
    HRNetFullRes,
    ModelMeta,
    create_model,
    hrnet_fullres_w32,
    load_model,
    load_weights,
    save_weights,
)
from fastpose.models.hrnet import CONFIGS
from fastpose.nn import blocks
from fastpose.ops import decode_heatmaps, gaussian_heatmaps, heatmap_loss


def tiny_fullres(width: int = 2, joints: int = 3) -> HRNetFullRes:
    config = HRNetConfig(width=width, layer1_blocks=2, blocks=1, modules=(1, 1, 2))
    return HRNetFullRes(config, ModelMeta("tiny", joints))


@pytest.fixture
def tiny() -> HRNetFullRes:
    model = tiny_fullres()
    fill(model)
    return model


class Written(NamedLayers):
    """The whole network over its names."""

    def network(self, x: Tensor) -> Tensor:
        branches = [self.layer(x, "layer1")]
        for stage in (2, 3, 4):
            branches = self.transition(branches, f"transition{stage - 1}")
            module = 0
            while f"stage{stage}.{module}.branches.0.0.conv1.weight" in self.state:
                branches = self.module(branches, f"stage{stage}.{module}")
                module += 1
        weight, bias = self.state["final_layer.weight"], self.state["final_layer.bias"]
        return F.conv2d(branches[0], weight, bias)

    def transition(self, branches: list[Tensor], name: str) -> list[Tensor]:
        new = len(branches)
        down = self.activate(self.conv_bn(branches[-1], f"{name}.{new}.0.0", f"{name}.{new}.0.1", 2))
        if new == 1:
            branches = [self.activate(self.conv_bn(branches[0], f"{name}.0.0", f"{name}.0.1"))]
        return [*branches, down]

    def module(self, branches: list[Tensor], name: str) -> list[Tensor]:
        branches = [self.layer(x, f"{name}.branches.{i}") for i, x in enumerate(branches)]
        fuse = f"{name}.fuse_layers"
        rows = sorted({int(n.split(".")[3]) for n in self.state if n.startswith(fuse)})
        return [
            self.activate(sum(self.path(x, f"{fuse}.{i}.{j}", j - i) for j, x in enumerate(branches)))
            for i in rows
        ]

    def path(self, x: Tensor, name: str, octaves: int) -> Tensor:
        if octaves > 0:
            x = x.repeat_interleave(2**octaves, 2).repeat_interleave(2**octaves, 3)
            return self.conv_bn(x, f"{name}.1", f"{name}.2")
        for step in range(-octaves):
            x = self.conv_bn(x, f"{name}.{step}.0", f"{name}.{step}.1", 2)
            x = self.activate(x) if step < -octaves - 1 else x
        return x


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_heatmaps_are_those_of_the_network_written_out(tiny: HRNetFullRes, training: bool) -> None:
    model = tiny.double().train(training)
    written = Written(copy.deepcopy(model.state_dict()), training, slope=0.1)
    x = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        output = model(x)
    assert output.shape == (2, 3, 24, 40)
    torch.testing.assert_close(output, written.network(x), rtol=1e-9, atol=1e-9)


def test_layers_are_never_taken_for_those_of_relu(
    monkeypatch: pytest.MonkeyPatch, tiny: HRNetFullRes
) -> None:
    """The fused end of a Bottleneck is a ReLU."""
    x = torch.randn(1, 3, 16, 16)
    want = tiny.eval()(x)
    monkeypatch.setattr(blocks, "fuses", lambda images: True)
    assert torch.equal(tiny(x), want)


def test_w32_is_hrnet_w32_without_its_stem() -> None:
    """Same names but in the ways up, where the convolution is number 1, after the enlargement."""
    with torch.device("meta"):
        full, usual = hrnet_fullres_w32(), create_model("hrnet_w32")
    stem = ("conv1.", "bn1.", "conv2.", "bn2.")
    body = {_moved(n): t.shape for n, t in usual.state_dict().items() if not n.startswith(stem)}
    found = {n: t.shape for n, t in full.state_dict().items()}
    assert list(found) == list(body)
    differ = [n for n in body if body[n] != found[n]]
    assert differ == ["layer1.0.conv1.weight", "layer1.0.downsample.0.weight"]
    assert sum(p.numel() for p in full.parameters()) == 28_477_745
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = full.eval()(torch.empty(1, 3, 256, 192, device="meta"))
    assert output.shape == (1, 17, 256, 192)
    assert counter.get_total_flops() / 2e9 == pytest.approx(_gmacs(found, 256 * 192), rel=1e-6)


def _moved(name: str) -> str:
    parts = name.split(".")
    if "fuse_layers" in parts and int(parts[4]) > int(parts[3]):
        parts[5] = str(int(parts[5]) + 1)
    return ".".join(parts)


def _gmacs(shapes: dict[str, torch.Size], pixels: int) -> float:
    """From the names: each 4-D weight times the pixels of its output."""
    total = 0
    for name, shape in shapes.items():
        if len(shape) != 4:
            continue
        parts = name.split(".")
        octaves = 0
        if parts[0].startswith("transition"):
            octaves = int(parts[1])
        elif parts[0].startswith("stage") and parts[2] == "branches":
            octaves = int(parts[3])
        elif parts[0].startswith("stage"):
            row, source = int(parts[3]), int(parts[4])
            # Upwards at the size of the row; downwards one octave a step.
            octaves = row if source > row else source + int(parts[5]) + 1
        total += shape.numel() * pixels // 4**octaves
    return total / 1e9


def test_learns_where_the_spots_are() -> None:
    """Two coloured spots on noise are two joints, which heatmaps of full resolution find to the pixel."""
    torch.manual_seed(0)
    config = HRNetConfig(width=4, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    model = HRNetFullRes(config, ModelMeta("tiny", 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        crops, joints = _spots(4)
        loss = heatmap_loss(model(crops), joints, torch.ones(4, 2), input_size=(24, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    crops, joints = _spots(16)
    with torch.no_grad():
        found = decode_heatmaps(model(crops), refine="none").keypoints
    assert (found - joints).norm(dim=-1).mean() < 0.5


def _spots(count: int) -> tuple[Tensor, Tensor]:
    joints = torch.stack([torch.randint(3, 21, (count, 2)), torch.randint(3, 13, (count, 2))], -1).float()
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    squares = (x - joints[..., 0, None, None]) ** 2 + (y - joints[..., 1, None, None]) ** 2
    crops = 0.1 * torch.randn(count, 3, 16, 24)
    crops[:, :2] += 2 * torch.exp(-squares / 8)
    return crops, joints


def test_mirrored_targets_need_no_shift() -> None:
    joints = torch.randint(0, 24, (5, 2, 2)).float()
    sizes = {"input_size": (24, 24), "heatmap_size": (24, 24)}
    mirrored = torch.stack([23 - joints[..., 0], joints[..., 1]], -1)
    heatmaps, _ = gaussian_heatmaps(joints, torch.ones(5, 2), **sizes)
    again, _ = gaussian_heatmaps(mirrored, torch.ones(5, 2), **sizes)
    assert torch.equal(again.flip(-1), heatmaps)


def test_saved_file_builds_the_network_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = HRNetConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    monkeypatch.setitem(CONFIGS, "hrnet_w32", small)
    model = hrnet_fullres_w32(14, input_size=(96, 128))
    assert model.meta == ModelMeta("hrnet_fullres_w32", 14, (96, 128), "rgb", shift=False)
    save_weights(model, tmp_path / "best.safetensors")
    loaded = load_model(tmp_path / "best.safetensors")
    assert same(loaded, model)
    assert loaded.meta == model.meta


def test_weights_of_hrnet_are_refused(tmp_path: Path) -> None:
    torch.save(tiny_hrnet().state_dict(), tmp_path / "hrnet.pth")
    with pytest.raises(CheckpointError, match=r"unexpected .*conv1\.weight"):
        load_weights(tiny_fullres(), tmp_path / "hrnet.pth")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 44), "multiple of 8 wide and high, got width 44, height 64"),
        ((1, 1, 64, 64), "(1, 1, 64, 64)"),
    ],
    ids=str,
)
def test_other_input_is_refused_with_its_size(
    tiny: HRNetFullRes, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match="HRNetFullRes") as caught:
        tiny(torch.rand(shape))
    assert message in str(caught.value)


def test_input_size_off_the_stride_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=r"must be multiples of 8, got \(192, 254\)"):
        hrnet_fullres_w32(input_size=(192, 254))


def test_compiles_as_one_graph(tiny: HRNetFullRes) -> None:
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(tiny), fullgraph=True, backend="eager")
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(compiled(x), tiny(x))


def test_bf16_autocast_is_close_and_trains(tiny: HRNetFullRes) -> None:
    x = torch.rand(2, 3, 32, 24)
    with torch.no_grad():
        want = tiny.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny(x)
    assert relative_error(output.float(), want.numpy()) < 0.03
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tiny.parameters())
