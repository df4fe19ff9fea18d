"""The limit model against the tables of PERFORMANCE.md 2, which were made independently of it."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.ceilings import Ceilings
from bench.roofline import INFERENCE, TRAINING, Graph, Work, practical_time, step_time, trace, work
from fastpose.models import create_model
from fastpose.nn import BasicBlock, Bottleneck

H200 = Ceilings(4.3e12, 790e12, read_bytes_per_s=4.3e12, write_bytes_per_s=4.3e12)
SIZE = (192, 256)


@functools.cache
def graph_of(model: str, size: tuple[int, int] = SIZE) -> Graph:
    with torch.device("meta"):
        return trace(create_model(model).train(), size)


@functools.cache
def work_of(
    model: str, scheme: str, batch: int = 64, training: bool = True, size: tuple[int, int] = SIZE
) -> Work:
    return work(graph_of(model, size), scheme, training=training, batch=batch)


@pytest.mark.parametrize(
    ("model", "size", "macs"),
    [
        ("hrnet_w32", SIZE, 7_645_003_776),
        ("hrnet_w48", SIZE, 15_691_825_152),
        ("hrnet_w32", (288, 384), 17_201_258_496),
        ("hrnet_w48", (288, 384), 35_306_606_592),
    ],
)
def test_multiply_adds_are_those_of_the_table(model, size, macs):
    assert graph_of(model, size).macs == macs


def test_multiply_adds_and_parameters_are_those_pytorch_counts():
    model = create_model("hrnet_w18_small").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    graph = trace(model, (96, 64))
    assert 2 * graph.macs == counter.get_total_flops()
    assert graph.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "scheme", "megabytes"),
    [("hrnet_w32", s, n) for s, n in zip("abfpcxd", (882, 673, 665, 488, 448, 340, 242), strict=True)]
    + [("hrnet_w48", s, n) for s, n in zip("abfpcxd", (1186, 902, 891, 654, 603, 458, 326), strict=True)],
)
def test_bytes_of_an_image_in_training(model, scheme, megabytes):
    assert work_of(model, scheme).image_bytes() / 1e6 == pytest.approx(megabytes, rel=0.03)


@pytest.mark.parametrize(
    ("scheme", "forward", "backward"),
    [
        ("a", 464, 722),
        ("b", 289, 613),
        ("f", 288, 603),
        ("p", 172, 482),
        ("c", 172, 431),
        ("x", 172, 285),
        ("d", 109, 217),
    ],
)
def test_bytes_of_both_passes(scheme, forward, backward):
    step = work_of("hrnet_w48", scheme)
    assert step.image_bytes(backward=False) / 1e6 == pytest.approx(forward, rel=0.05)
    assert step.image_bytes(backward=True) / 1e6 == pytest.approx(backward, rel=0.03)


@pytest.mark.parametrize(
    ("scheme", "kernels"),
    [("a", 2947), ("b", 2068), ("f", 1926), ("p", 1169), ("c", 905), ("x", 641), ("d", 879)],
)
def test_kernels_of_a_step(scheme, kernels):
    assert len(work_of("hrnet_w32", scheme).kernels) == pytest.approx(kernels, rel=0.002)
    assert len(work_of("hrnet_w48", scheme).kernels) == len(work_of("hrnet_w32", scheme).kernels)


@pytest.mark.parametrize(("scheme", "kernels"), [("a", 1035), ("b", 555), ("t", 316), ("c", 288)])
def test_kernels_of_a_forward_pass(scheme, kernels):
    assert len(work_of("hrnet_w48", scheme, training=False).kernels) == pytest.approx(kernels, abs=1)


# Units E of one image tensor: forward, backward.
@pytest.mark.parametrize(
    ("scheme", "forward", "backward"),
    [("a", 17, 27), ("b", 11, 23), ("f", 11, 23), ("p", 6, 18), ("c", 6, 16), ("x", 6, 10), ("d", 4, 8)],
)
def test_a_basic_block_in_units_of_one_image(scheme, forward, backward):
    assert units(BasicBlock(8, 8), scheme) == (forward, backward)


@pytest.mark.parametrize(("scheme", "expected"), [("b", (34, 70)), ("c", (20, 50))])
def test_a_bottleneck_in_units_of_its_narrow_image(scheme, expected):
    """40.9 MB for layer1's under b, which is 104 images of 64 channels."""
    assert units(Bottleneck(32, 8), scheme) == expected


def units(block: nn.Module, scheme: str) -> tuple[float, float]:
    """What one block more costs a chain of them, forward and backward."""
    width = block.conv1.in_channels
    image = 8 * 16 * 16 * 2

    def step(blocks: int) -> Work:
        stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        chain = nn.Sequential(stem, *[block] * blocks, nn.Conv2d(width, 4, 1))
        return work(trace(chain.train(), (16, 16)), scheme)

    short, long = step(3), step(4)
    return tuple((long.image_bytes(back) - short.image_bytes(back)) / image for back in (False, True))


class Pair(nn.Module):
    """Two branches, 8 channels of 16x16 and 16 of 8x8, and row 0 of their exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(
            nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2)
        )
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fine(x)
        return self.last(torch.relu(x + self.up(self.coarse(x))))


@pytest.mark.parametrize("scheme", ["f", "p", "c", "x"])
def test_a_fused_sum_kernel_by_kernel(scheme):
    fine, coarse, pool = 8 * 256, 16 * 64, 8 * 64  # elements
    conv, gram = 16 * 8 * 64, 16 * 16 * 64  # multiply-adds
    kernels = work(trace(Pair().train(), (16, 16)), scheme).kernels
    found = {k.kind: (k.elements, k.macs) for k in kernels if k.kind in ("gram", "mask", "cross")}
    assert found == {
        "gram": (coarse, gram),
        "mask": (3 * fine + pool, 0),
        "cross": (pool + coarse, conv),
    }
    (source,) = (k for k in kernels if k.kind == "source dx")
    # From p on this kernel is the last to reach the gradient of the coarse image, so it also masks it, by the
    # image itself, and reads what went into its BatchNorm.
    assert source.elements == pool + 2 * coarse + (0 if scheme == "f" else coarse)
    assert source.macs == conv + gram
    applies = [k for k in kernels if k.kind == "apply" and k.macs]
    assert [k.elements for k in applies] == [2 * fine + coarse]


@pytest.mark.parametrize(
    ("model", "part", "bytes_", "flops"),
    [
        ("hrnet_w48", "branch 0", 36, 26),
        ("hrnet_w48", "branch 1", 18, 26),
        ("hrnet_w48", "branch 2", 8, 23),
        ("hrnet_w48", "branch 3", 2, 10),
        ("hrnet_w48", "layer1", 20, 5.5),
        ("hrnet_w48", "fuse down", 5.3, 5.0),
        ("hrnet_w48", "fuse up", 2.7, 0.5),
        ("hrnet_w48", "fuse sum", 2.9, 0),
        ("hrnet_w32", "branch 0", 32, 24),
        ("hrnet_w32", "layer1", 27, 11),
        ("hrnet_w32", "fuse up", 2.4, 0.4),
        ("hrnet_w32", "fuse sum", 2.6, 0),
    ],
)
def test_shares_of_the_parts(model, part, bytes_, flops):
    whole, one = work_of(model, "b"), work_of(model, "b").only(part)
    assert 100 * one.image_bytes() / whole.image_bytes() == pytest.approx(bytes_, abs=0.6)
    assert 100 * one.flops() / whole.flops() == pytest.approx(flops, abs=0.5)


def test_the_parts_are_the_whole():
    whole = work_of("hrnet_w48", "c")
    parts = [whole.only(part) for part in whole.parts()]
    assert whole.parts()[:2] == ["stem", "layer1"]
    assert whole.parts()[-1] == "head"
    assert sum(part.image_bytes() for part in parts) == whole.image_bytes()
    assert sum(len(part.kernels) for part in parts) == len(whole.kernels)


@pytest.mark.parametrize(
    ("model", "size", "batch", "scheme", "roofline", "practical"),
    [
        ("hrnet_w32", SIZE, 32, "a", 7.4, 12.8),
        ("hrnet_w32", SIZE, 64, "b", 11.4, 16.5),
        ("hrnet_w32", SIZE, 64, "p", 8.4, 11.8),
        ("hrnet_w32", SIZE, 128, "d", 9.8, 15.1),
        ("hrnet_w48", SIZE, 32, "b", 9.0, 14.5),
        ("hrnet_w48", SIZE, 64, "a", 21.8, 31.0),
        ("hrnet_w48", SIZE, 64, "b", 17.5, 25.4),
        ("hrnet_w48", SIZE, 64, "f", 17.4, 25.1),
        ("hrnet_w48", SIZE, 64, "p", 13.1, 19.1),
        ("hrnet_w48", SIZE, 64, "c", 11.8, 17.0),
        ("hrnet_w48", SIZE, 64, "d", 9.0, 15.1),
        ("hrnet_w48", SIZE, 128, "c", 23.1, 32.1),
        ("hrnet_w48", (288, 384), 128, "b", 77.2, 102.0),
        ("hrnet_w48", (288, 384), 128, "c", 51.4, 69.9),
    ],
)
def test_times_of_a_step(model, size, batch, scheme, roofline, practical):
    step = work_of(model, scheme, batch, size=size)
    assert 1e3 * step_time(step, H200) == pytest.approx(roofline, rel=0.01, abs=0.1)
    assert 1e3 * practical_time(step, H200) == pytest.approx(practical, rel=0.01, abs=0.1)


@pytest.mark.parametrize(
    ("batch", "roofline", "practical"), [(32, 5.9, 8.9), (64, 11.3, 16.3), (128, 22.1, 31.2)]
)
def test_times_of_x_are_below_the_table(batch, roofline, practical):
    """By how much, the package's docstring says; more would be a change."""
    step = work_of("hrnet_w48", "x", batch)
    assert 0.9 < 1e3 * step_time(step, H200) / roofline < 0.94
    assert 0.95 < 1e3 * practical_time(step, H200) / practical < 0.98


@pytest.mark.parametrize(
    ("model", "batch", "scheme", "roofline", "practical"),
    [
        ("hrnet_w32", 1, "a", 0.09, 1.65),
        ("hrnet_w32", 1, "t", 0.04, 0.52),
        ("hrnet_w32", 128, "b", 6.1, 8.3),
        ("hrnet_w48", 1, "a", 0.13, 1.70),
        ("hrnet_w48", 1, "b", 0.09, 0.94),
        ("hrnet_w48", 1, "c", 0.07, 0.52),
        ("hrnet_w48", 32, "t", 1.6, 2.8),
        ("hrnet_w48", 128, "a", 14.7, 19.5),
        ("hrnet_w48", 128, "c", 6.3, 9.8),
    ],
)
def test_times_of_a_forward_pass(model, batch, scheme, roofline, practical):
    step = work_of(model, scheme, batch, training=False)
    assert 1e3 * step_time(step, H200) == pytest.approx(roofline, rel=0.02, abs=0.005)
    assert 1e3 * practical_time(step, H200) == pytest.approx(practical, rel=0.02, abs=0.01)


def test_time_follows_from_the_ceilings():
    step = work_of("hrnet_w18_small", "b")
    memory = Ceilings(1e12, 1e30, read_bytes_per_s=1e12, write_bytes_per_s=1e12)
    assert step_time(step, memory) == pytest.approx(step.total_bytes / 1e12)
    arithmetic = Ceilings(1e30, 1e12, read_bytes_per_s=1e30, write_bytes_per_s=1e30)
    assert step_time(step, arithmetic, 0.5) == pytest.approx(step.flops() * 64 / 0.5e12)
    launches = step_time(step, memory, seconds_per_kernel=1e-3) - step_time(step, memory)
    assert launches == pytest.approx(1e-3 * len(step.kernels))


def test_the_optimizer_and_the_weights_count():
    step, half = work_of("hrnet_w48", "d"), work(graph_of("hrnet_w48"), "d", dtype=torch.float32)
    assert step.optimizer_bytes == 32 * 63_595_745
    assert work_of("hrnet_w48", "d", training=False).optimizer_bytes == 0
    assert step.total_bytes > step.image_bytes() * 64 + step.optimizer_bytes
    assert half.image_bytes() == 2 * step.image_bytes()


@pytest.mark.parametrize(("efficiency", "launch"), [(0, 0), (1.1, 0), (1, -1e-6)])
def test_time_rejects_what_cannot_be(efficiency, launch):
    with pytest.raises(ValueError, match=r"conv_efficiency|seconds_per_kernel"):
        step_time(work_of("hrnet_w18_small", "b"), H200, efficiency, launch)


def test_schemes_that_are_not_there():
    with pytest.raises(ValueError, match="expected one of a, b, t, c, d for inference, got 'x'"):
        work(graph_of("hrnet_w18_small"), "x", training=False)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        work(graph_of("hrnet_w18_small"), "b", batch=0)


class Mixed(nn.Module):
    """What HRNet has not: pre-activation, pooling, a transposed and a grouped convolution, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.pre = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1, groups=4))
        self.up = nn.Upsample(scale_factor=2)
        self.raised = nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.pre(x)
        x = x + self.up(self.low(x))
        x = torch.relu(self.norm(self.raised(x)))
        return self.last((torch.sigmoid(x) * x).mean((2, 3)))


def test_any_network_can_be_traced():
    model = Mixed().train()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 96, 64))
    graph = trace(model, (64, 96))
    assert 4 * graph.macs == counter.get_total_flops()  # two images
    bytes_ = [work(graph, scheme).image_bytes() for scheme in "abpcxd"]
    assert bytes_ == sorted(bytes_, reverse=True)
    products = sum(op.kind == "conv" for op in graph.ops)
    assert len(work(graph, "d").kernels) == 3 * products - 1
    for scheme in INFERENCE:
        assert work(graph, scheme, training=False).flops() == 2 * graph.macs
    assert work(graph, "a").flops() == work(graph, "b").flops() < 6 * graph.macs


def test_tracing_leaves_the_model_alone():
    model = create_model("hrnet_w18_small").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = trace(model, (64, 64)), trace(model, (64, 64))
    assert first == second
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_tracing_names_what_is_wrong():
    model = create_model("hrnet_w18_small")
    with pytest.raises(ValueError, match="multiple of 32"):
        trace(model, (100, 64))
    with pytest.raises(ValueError, match="size"):
        trace(model, (0, 64))


def test_every_scheme_is_described():
    assert list(TRAINING) == list("abfpcxd")
    assert all(text for text, _ in (*TRAINING.values(), *INFERENCE.values()))
