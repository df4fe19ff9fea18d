"""Branches on streams: the order of forks and joins, when they are used, and the same results on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fastpose.models import create_model
from fastpose.nn import streams
from fastpose.nn.streams import (
    get_branch_streams,
    rehearsal,
    run_branches,
    set_branch_streams,
    use_branch_streams,
)

LOG: list[str] = []


class Stream:
    made = 0

    def __init__(self, device: torch.device, name: str = "") -> None:
        self.name = name or f"side {Stream.made}"
        Stream.made += not name

    def record_event(self) -> str:
        LOG.append(f"{self.name} records")
        return self.name

    def wait_event(self, event: str) -> None:
        LOG.append(f"{self.name} waits for {event}")


class OnDevice(torch.Tensor):
    """A CPU tensor that says it is on a GPU and notes which streams read it."""

    is_cuda = True

    def record_stream(self, stream: Stream) -> None:
        LOG.append(f"{stream.name} reads {self.shape[0]}")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    current = ["main"]
    main, Stream.made = Stream(torch.device("cpu"), "main"), 0

    @contextlib.contextmanager
    def stream(one: Stream) -> Iterator[None]:
        current.append(one.name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    streams._side_stream.cache_clear()
    LOG.clear()
    yield current
    streams._side_stream.cache_clear()


def branches(current: list[str], count: int) -> tuple[list, list[Tensor]]:
    def branch(number: int):
        def run(x: Tensor) -> Tensor:
            LOG.append(f"run {number} on {current[-1]}")
            return x * (number + 1)

        return run

    # Batch 1, 2, 3, ...: a name for each tensor.
    return [branch(i) for i in range(count)], [
        torch.ones(i + 1, 2).as_subclass(OnDevice) for i in range(count)
    ]


def test_fork_waits_for_main_and_main_for_every_branch(cuda):
    runs, inputs = branches(cuda, 3)
    with use_branch_streams(True), torch.no_grad():
        outputs = run_branches(runs, inputs)
    assert LOG == [
        "main records",
        "side 0 waits for main", "run 1 on side 0",
        "side 1 waits for main", "run 2 on side 1",
        "run 0 on main",
        "side 0 records", "main waits for side 0",
        "side 1 records", "main waits for side 1",
    ]  # fmt: skip
    for number, (output, x) in enumerate(zip(outputs, inputs, strict=True)):
        assert torch.equal(output, x * (number + 1))


def test_tensors_that_cross_are_recorded_where_gradients_need_them(cuda):
    runs, inputs = branches(cuda, 2)
    with use_branch_streams(True):
        run_branches(runs, inputs)
    assert LOG[-2:] == ["side 0 reads 2", "main reads 2"]


def test_streams_are_the_same_at_every_call(cuda):
    with use_branch_streams(True):
        for count in (2, 4, 3):
            run_branches(*branches(cuda, count))
    assert Stream.made == 3


@pytest.mark.parametrize(
    ("mode", "capturing", "rehearsing", "used"),
    [
        (True, False, False, True),
        ("auto", True, False, True),
        ("auto", False, True, True),
        ("auto", False, False, False),
        (False, True, True, False),
    ],
)
def test_when_streams_are_used(cuda, monkeypatch, mode, capturing, rehearsing, used):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    with use_branch_streams(mode), rehearsal() if rehearsing else contextlib.nullcontext():
        run_branches(*branches(cuda, 2))
    assert ("side 0 waits for main" in LOG) == used
    assert ("run 1 on main" in LOG) != used


def test_the_cpu_and_a_single_branch_never_fork(cuda):
    with use_branch_streams(True):
        run_branches(*branches(cuda, 1))
        runs, _ = branches(cuda, 2)
        outputs = run_branches(runs, [torch.ones(1), torch.ones(1)])
    assert not any("waits" in line for line in LOG)
    assert [float(output) for output in outputs] == [1.0, 2.0]


def test_modes_are_checked_and_put_back():
    assert get_branch_streams() == "auto"
    with pytest.raises(ValueError, match="mode: expected True, False or 'auto', got 'always'"):
        set_branch_streams("always")
    seen = []

    def fail() -> None:
        with use_branch_streams(True):
            seen.append(get_branch_streams())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [True]
    assert get_branch_streams() == "auto"
    with pytest.raises(ValueError, match="runs: expected 2, one for each input, got 1"):
        run_branches([torch.sin], [torch.ones(1), torch.ones(1)])


def test_hrnet_compiles_whole_with_any_mode():
    torch._dynamo.reset()
    model = create_model("hrnet_w18_small", 2).stage2
    inputs = [torch.randn(1, 18, 8, 8), torch.randn(1, 36, 4, 4)]
    expected = model([x.clone() for x in inputs])
    with use_branch_streams(True):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        got = compiled([x.clone() for x in inputs])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_same_results_with_and_without_streams(captured, training):
    torch.manual_seed(0)
    model = create_model("hrnet_w32").cuda().to(memory_format=torch.channels_last).train(training)
    model.reset_parameters("kaiming")
    x = torch.randn(2, 3, 256, 192, device="cuda").to(memory_format=torch.channels_last)
    results = []
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (False, True):
        model.load_state_dict(start)
        with use_branch_streams(mode), torch.set_grad_enabled(training):
            results.append(_captured(model, x) if captured else _run(model, x))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def _run(model: nn.Module, x: Tensor) -> list[Tensor]:
    for parameter in model.parameters():
        parameter.grad = None
    y = model(x)
    if y.requires_grad:
        y.square().mean().backward()
    return [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def _captured(model: nn.Module, x: Tensor) -> list[Tensor]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            _run(model, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        outputs = _run(model, x)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    return [output.clone() for output in outputs]
