"""fastpose.ops.fuse on a GPU: real sizes, compiled, captured, and the whole network in one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fuse_cases import bottleneck_rows, cast, detached, exchange_rows, record_calls, relative_error
from torch import Tensor, nn

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


@pytest.fixture
def ieee(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers compute float32 in float32, until the end of the test."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "nchw"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_errors_are_those_of_the_layers_or_smaller(
    ieee: None, name: str, dtype: torch.dtype, last: bool
) -> None:
    check_errors(fuse, name, dtype, last)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("w32 three branches", torch.bfloat16), ("frozen", torch.float32), ("shortcut", torch.float16)],
    ids=["exchange", "frozen", "shortcut"],
)
def test_compiles_whole(ieee: None, fresh_dynamo: None, name: str, dtype: torch.dtype) -> None:
    check_errors(torch.compile(fuse, fullgraph=True), name, dtype, last=True)


def check_errors(run: Callable[..., reference.Fused], name: str, dtype: torch.dtype, last: bool) -> None:
    rows = to_gpu(MAKERS[name](dtype=dtype, last=last))
    with use_backend("triton"):
        ours = results(run, *cast(rows, dtype, torch.float32))
    layers = results(reference.fuse, *cast(rows, dtype, torch.float32))
    truth = results(reference.fuse, *cast(rows, torch.float64, torch.float64))
    ceiling = 1e-5 if dtype == torch.float32 else 1.0
    for a, b, t in zip(ours, layers, truth, strict=True):
        error, allowed = relative_error(a, t), max(1.5 * relative_error(b, t), 5e-7)
        assert error <= min(allowed, ceiling), (tuple(t.shape), error, allowed)


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "nchw"])
def test_steps_pass_opcheck(last: bool) -> None:
    rows, leaves = cast(to_gpu(exchange_rows((16, 32, 64), (8, 4), last=last)), torch.float32, torch.float32)
    with use_backend("triton"):
        calls = record_calls(lambda: results(fuse, rows, leaves))
    checked: dict[str, Any] = {name: (op, arguments) for name, op, arguments in calls}
    assert len(checked) == 9
    for op, arguments in checked.values():
        torch.library.opcheck(op, detached(arguments))


def test_an_empty_batch_gives_zeros() -> None:
    rows, leaves = cast(to_gpu(exchange_rows((16, 32), (8, 4), batch=0)), torch.float32, torch.float32)
    with use_backend("triton"):
        values = results(fuse, rows, leaves)
    assert not any(value.any() for value in values)


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


def network_and_batch(name: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    network = create_model(name).cuda().to(memory_format=torch.channels_last)
    network.reset_parameters("kaiming")
    x = torch.randn(4, 3, 256, 192, device="cuda").to(memory_format=torch.channels_last)
    return network, x, torch.rand(4, 17, 2, device="cuda") * 190, torch.ones(4, 17, device="cuda")


@pytest.mark.parametrize(
    ("name", "compiled"), [("hrnet_w32", False), ("hrnet_w48", False), ("hrnet_w32", True)],
    ids=["w32-eager", "w48-eager", "w32-compiled"],
)  # fmt: skip
def test_whole_network_captured(fresh_dynamo: None, name: str, compiled: bool) -> None:
    """A replayed training step has the loss and the gradients of the layers, on inputs it never saw."""
    network, x, joints, weight = network_and_batch(name)
    plain, truth = copy.deepcopy(network), copy.deepcopy(network).double()
    forward = torch.compile(network, fullgraph=True) if compiled else network
    losses: list[Tensor] = []

    def step() -> None:
        network.zero_grad(set_to_none=True)
        losses[:] = [backward(forward, x, joints, weight)]

    captured = Captured(step)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        joints.copy_(torch.rand_like(joints) * 190)
    captured.replay()
    with use_backend("reference"):
        by_layers = backward(plain, x, joints, weight)
        exact = backward(truth, x.double(), joints, weight, autocast=False)
    assert relative_error(losses[0], exact) <= 2 * relative_error(by_layers, exact) + 1e-3
    ours, layers, right = (gradients_of(one) for one in (network, plain, truth))
    assert relative_error(ours, right) <= 1.5 * relative_error(layers, right)
    assert next(m.num_batches_tracked for m in network.modules() if hasattr(m, "num_batches_tracked")) == 4


def backward(
    run: Callable[[Tensor], Tensor], x: Tensor, joints: Tensor, weight: Tensor, autocast: bool = True
) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        prediction = run(x)
    loss = heatmap_loss(prediction, joints, weight, input_size=(192, 256))
    loss.backward()
    return loss.detach()


def gradients_of(network: nn.Module) -> Tensor:
    """Each parameter's in units of its own size, so that the small ones count as well."""
    return torch.cat([p.grad.double().flatten() / p.numel() ** 0.5 for p in network.parameters()])


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48"])
def test_network_evaluates_as_its_layers(ieee: None, name: str) -> None:
    network, x, *_ = network_and_batch(name)
    network.eval()
    with torch.no_grad():
        with use_backend("triton"):
            got = network(x)
        with use_backend("reference"):
            expected = network(x)
    assert relative_error(got, expected.double()) < 1e-5
