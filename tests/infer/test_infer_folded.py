"""Folding BatchNorm into convolutions: the same function, fewer layers, and the network given untouched."""

import copy

import pytest
import torch
from torch import nn

from fastpose.infer.folded import folded, with_cast_convolutions
from fastpose.infer.network_in import for_running
from fastpose.models import PRTR, Hourglass, HourglassConfig, HRNet, HRNetFullRes, ModelMeta, create_model
from fastpose.models.hrnet import CONFIGS
from fastpose.models.hrnet_cls import HRNetBody
from fastpose.models.simcc import SimCCHRNet
from fastpose.nn.frozen_norm import FrozenBatchNorm2d
from fastpose.nn.resnet import ResNetBody

SIZE = 64
META = ModelMeta("hourglass", 16)
SMALL = CONFIGS["hrnet_w18_small"]
FAMILIES = {
    "hrnet": lambda: HRNet(SMALL, ModelMeta("hrnet", 17)),
    "hrnet at full resolution": lambda: HRNetFullRes(SMALL, ModelMeta("fullres", 17)),
    "hrnet of prtr": lambda: HRNetBody(SMALL),
    "hrnet of segmentation": lambda: create_model("hrnet_seg_w18_small_v1"),
    "simple baseline": lambda: create_model("pose_resnet50"),
    "simcc": lambda: SimCCHRNet(SMALL, ModelMeta("simcc", 17, (SIZE, SIZE), codec="simcc")),
    "prtr": lambda: PRTR(ResNetBody(50, FrozenBatchNorm2d), ModelMeta("prtr", 17), channels=32, layers=1),
    "hourglass": lambda: create_model("hourglass2"),
    "hourglass, post": lambda: Hourglass(HourglassConfig(1, width=32, residual="post"), META),
    "hourglass, mobile": lambda: Hourglass(HourglassConfig(1, width=32, residual="separable"), META),
}
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def norms_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}


def randomise(model):
    """Statistics, scales and offsets as a trained network has them: none is 0 or 1, none blows up."""
    draw = torch.Generator().manual_seed(5)
    for norm in norms_of(model).values():
        for tensor, low, high in (
            (norm.weight, 0.5, 1.2),
            (norm.bias, -0.5, 0.5),
            (norm.running_mean, -0.5, 0.5),
            (norm.running_var, 0.5, 2.0),
        ):
            tensor.data.uniform_(low, high, generator=draw)
    return model.eval()


def outputs(model, x):
    with torch.no_grad():
        found = model(x)
    if isinstance(found, dict):
        return [found["pred_logits"], found["pred_coords"]]
    return found if isinstance(found, tuple) else [found]


def apart(a, b):
    """Largest difference over the largest value."""
    return max(((p - q).abs().max() / q.abs().max()).item() for p, q in zip(a, b, strict=True))


# Behind a ReLU, but for those that the first kind has before its convolutions.
LEFT = {
    "hourglass": lambda name: name.endswith(".bn1"),
    "hourglass, post": lambda name: True,
    "hourglass, mobile": lambda name: True,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_copy_computes_the_same_and_the_network_is_untouched(family):
    network = FAMILIES[family]()
    network.reset_parameters(*(["kaiming"] if family != "hrnet of prtr" else []))
    randomise(network)
    x = torch.randn(1, 3, SIZE, SIZE)
    before = copy.deepcopy(network.state_dict())
    copied = folded(network)
    stays = LEFT.get(family, lambda norm: False)
    assert set(norms_of(copied)) == {norm for norm in norms_of(network) if stays(norm)}
    assert apart(outputs(copied, x), outputs(network, x)) < 1e-5
    kept = network.state_dict()
    assert list(kept) == list(before)
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert any(p.requires_grad for p in network.parameters())
    network.double()
    assert apart(outputs(folded(network), x.double()), outputs(network, x.double())) < 1e-12


def chain(*layers):
    return randomise(nn.Sequential(*layers))


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(nn.ConvTranspose2d(3, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6)),
        lambda: chain(nn.ConvTranspose2d(3, 6, 3, 2, output_padding=1), nn.BatchNorm2d(6, eps=0.1)),
        lambda: chain(nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6)),
        lambda: chain(nn.Conv2d(3, 6, 1), FrozenBatchNorm2d(6)),
    ],
    ids=["transposed", "transposed with bias", "grouped", "frozen"],
)
def test_kinds_of_convolution(make):
    model = make().double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    copied = folded(model)
    assert isinstance(copied[1], nn.Identity)
    assert apart([copied(x)], [model(x)]) < 1e-12


def hooked():
    model = chain(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6))
    model[1].register_forward_hook(lambda module, args, output: output + 1)
    return model


def subclassed():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    return chain(nn.Conv2d(3, 6, 1), Doubled(6))


def used_twice():
    conv = nn.Conv2d(3, 3, 1)
    return chain(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3))


def patched():
    model = chain(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6))
    model[0].forward = lambda x: x.repeat(1, 2, 1, 1)
    return model


def grouped_transposed():
    return chain(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6))


def of_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)).eval()
    nn.init.uniform_(model[1].weight)
    return model


@pytest.mark.parametrize(
    "make",
    [hooked, subclassed, used_twice, patched, grouped_transposed, of_the_batch],
    ids=lambda f: f.__name__,
)
def test_what_cannot_be_folded_stays_and_works(make):
    model = make()
    x = torch.randn(2, 4 if make is grouped_transposed else 3, 5, 5)
    copied = folded(model)
    assert isinstance(copied[1], nn.BatchNorm2d)
    torch.testing.assert_close(copied(x), model(x), rtol=0, atol=0)


def test_half_precision_leaves_only_convolutions_to_cast():
    model = FAMILIES["prtr"]()
    half = folded(model, torch.bfloat16)
    found = {
        name.rpartition(".")[0]: p.dtype for name, p in half.named_parameters() if name.endswith("weight")
    }
    convolutions = {name for name, module in half.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions
    assert {name for name, dtype in found.items() if dtype == torch.bfloat16} == convolutions


def test_half_precision_is_what_autocast_computes():
    model = create_model("hrnet_w18_small")
    model.reset_parameters("kaiming")
    x = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, half = outputs(model.eval(), x), outputs(folded(model, torch.bfloat16), x)
    exact = outputs(model, x)
    assert apart(half, exact) < 1.5 * apart(plain, exact) + 1e-3
    assert not any(p.requires_grad for p in folded(model).parameters())


AUTOCAST = {
    "hrnet": FAMILIES["hrnet"],
    "prtr": FAMILIES["prtr"],
    "hourglass": FAMILIES["hourglass, mobile"],
    "transposed": lambda: chain(nn.ConvTranspose2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)),
}


def reset(model):
    if not isinstance(model, nn.Sequential):
        model.reset_parameters("kaiming")
    return model.eval()


@pytest.mark.parametrize("family", AUTOCAST)
def test_convolutions_cast_once_give_the_bits_of_autocast(family):
    """All weights but those of convolutions stay, and so does the network that was given."""
    model = reset(AUTOCAST[family]())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = with_cast_convolutions(model, torch.bfloat16)
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, got = outputs(model, x), outputs(copied, x)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    cast = {name for name, p in copied.named_parameters() if p.dtype == torch.bfloat16}
    convolutions = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert {name.rpartition(".")[0] for name in cast} == convolutions
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("device", "dtype", "norms", "weights"),
    [("cpu", None, False, torch.float32), ("cpu", torch.bfloat16, False, torch.bfloat16),
     ("cuda", None, True, torch.float32), ("cuda", torch.float16, True, torch.float16)],
)  # fmt: skip
def test_what_runs_on_a_device(device, dtype, norms, weights):
    """BatchNorm goes on a CPU alone; weights are in the dtype of the convolutions wherever there is one."""
    model = create_model("hrnet_w18_small")
    placed = for_running(model, torch.device(device), dtype)
    assert bool(norms_of(placed)) is norms
    assert placed.conv2.weight.dtype == weights
    assert model.conv2.weight.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_convolutions_cast_once_on_a_gpu(dtype):
    """The same bits, also with the kernels of the exchange units, and no cast of a weight is left."""
    model = reset(create_model("hrnet_w18_small")).cuda().to(memory_format=torch.channels_last)
    copied = with_cast_convolutions(model, dtype)
    x = torch.randn(4, 3, 128, 96, device="cuda").to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cuda", dtype=dtype):
        assert torch.equal(copied(x), model(x))
        with torch.profiler.profile() as plain:
            model(x)
        with torch.profiler.profile() as ours:
            copied(x)
    copies = [
        sum(event.count for event in run.key_averages() if event.key == "aten::copy_")
        for run in (plain, ours)
    ]
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert copies[0] - copies[1] > convolutions / 2
