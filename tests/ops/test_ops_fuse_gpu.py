"""fastpose.ops.fuse on a GPU: real sizes, compiled, captured, and the whole network in one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from fuse_cases import bottleneck_rows, cast, exchange_rows, relative_error
from torch import Tensor

from fastpose.backend import use_backend
from fastpose.models import create_model
from fastpose.ops import fuse, heatmap_loss
from fastpose.reference import fuse as reference
from fastpose.reference.fuse import Path, Row

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MAKERS: dict[str, Callable[..., list[Row]]] = {
    "w18": lambda **o: exchange_rows((18, 36, 72, 144), (64, 48), batch=4, **o),
    "w32 three branches": lambda **o: exchange_rows((32, 64, 128), (64, 48), batch=3, **o),
    "w48": lambda **o: exchange_rows((48, 96, 192, 384), (64, 48), batch=4, **o),
    "w48 last": lambda **o: exchange_rows((48, 96, 192, 384), (96, 72), batch=3, num_outputs=1, **o),
    "frozen": lambda **o: exchange_rows((32, 64), (64, 48), frozen=True, **o),
    "bottleneck": lambda **o: bottleneck_rows(downsample=False, size=(64, 48), **o),
    "shortcut": lambda **o: bottleneck_rows(downsample=True, size=(64, 48), **o),
}


def to_gpu(rows: list[Row]) -> list[Row]:
    moved: dict[int, Tensor] = {}

    def move(x: Tensor | None) -> Tensor | None:
        return None if x is None else moved.setdefault(id(x), x.cuda())

    return [Row(move(row.identity), tuple(Path(*map(move, path)) for path in row.paths)) for row in rows]


def results(
    run: Callable[[list[Row]], reference.Fused], rows: list[Row], leaves: list[Tensor]
) -> list[Tensor]:
    fused = run(rows)
    waves = [
        torch.cos(torch.arange(y.numel(), device="cuda")).view(y.shape).to(y.dtype) for y in fused.outputs
    ]
    gradients = torch.autograd.grad(fused.outputs, leaves, waves)
    return [*(y.detach() for y in fused.outputs), *gradients]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "nchw"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_errors_are_those_of_the_layers_or_smaller(
    name: str, dtype: torch.dtype, last: bool, compiled: bool
) -> None:
    torch._dynamo.reset()
    torch.backends.cudnn.allow_tf32 = False
    rows = to_gpu(MAKERS[name](dtype=dtype, last=last))
    with use_backend("triton"):
        run = torch.compile(fuse, fullgraph=True) if compiled else fuse
        ours = results(run, *cast(rows, dtype, torch.float32))
    layers = results(reference.fuse, *cast(rows, dtype, torch.float32))
    truth = results(reference.fuse, *cast(rows, torch.float64, torch.float64))
    ceiling = 1e-5 if dtype == torch.float32 else 1.0
    for a, b, t in zip(ours, layers, truth, strict=True):
        error, allowed = relative_error(a, t), max(1.5 * relative_error(b, t), 5e-7)
        assert error <= min(allowed, ceiling), (tuple(t.shape), error, allowed)


def test_the_same_bits_every_time() -> None:
    rows = to_gpu(MAKERS["w48"](dtype=torch.bfloat16))
    first = results(fuse, *cast(rows, torch.bfloat16, torch.float32))
    for _ in range(3):
        again = results(fuse, *cast(rows, torch.bfloat16, torch.float32))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


class Captured:
    """`step()` once on a side stream, then as a graph."""

    def __init__(self, step: Callable[[], None], warmups: int = 3) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warmups):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()
        self.side = side

    def replay(self) -> None:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.graph.replay()
        torch.cuda.current_stream().wait_stream(self.side)


def test_replay_follows_changed_inputs() -> None:
    rows, leaves = cast(
        to_gpu(MAKERS["w32 three branches"](dtype=torch.bfloat16)), torch.bfloat16, torch.float32
    )
    held: list[list[Tensor]] = []

    def step() -> None:
        held[:] = [results(fuse, rows, leaves)]

    captured = Captured(step)
    with torch.no_grad():
        for leaf in leaves:
            leaf.add_(torch.randn_like(leaf) * 0.3)
    captured.replay()
    got = [value.clone() for value in held[0]]
    step()
    assert all(torch.equal(a, b) for a, b in zip(got, held[0], strict=True))


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_whole_network_captured(name: str, compiled: bool) -> None:
    """Forward and training step of a network in one graph give what the layers give."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = create_model(name).cuda().to(memory_format=torch.channels_last)
    network.reset_parameters("kaiming")
    plain = copy.deepcopy(network)
    x = torch.randn(4, 3, 256, 192, device="cuda").to(memory_format=torch.channels_last)
    joints, weight = torch.rand(4, 17, 2, device="cuda") * 190, torch.ones(4, 17, device="cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, capturable=True, fused=True)
    forward = torch.compile(network, fullgraph=True) if compiled else network
    losses: list[Tensor] = []

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            prediction = forward(x)
        loss = heatmap_loss(prediction, joints, weight, input_size=(192, 256))
        loss.backward()
        optimizer.step()
        losses[:] = [loss.detach()]

    captured = Captured(step)
    for _ in range(3):
        captured.replay()
    replayed = losses[0].clone()
    reference_optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    with use_backend("reference"):
        for _ in range(6):  # three before the capture, which itself runs nothing, and three replays
            reference_optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                prediction = plain(x)
            loss = heatmap_loss(prediction, joints, weight, input_size=(192, 256))
            loss.backward()
            reference_optimizer.step()
    assert replayed.isfinite()
    torch.testing.assert_close(replayed, loss.detach(), rtol=0.1, atol=0)
    assert next(m.num_batches_tracked for m in network.modules() if hasattr(m, "num_batches_tracked")) == 6


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48"])
def test_network_evaluates_as_its_layers(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name).cuda().eval().to(memory_format=torch.channels_last)
    network.reset_parameters("kaiming")
    x = torch.randn(2, 3, 256, 192, device="cuda").to(memory_format=torch.channels_last)
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        with use_backend("triton"):
            got = network(x)
        with use_backend("reference"):
            expected = network(x)
    assert relative_error(got, expected.double()) < 1e-5
