"""Batches reach the graph's memory, and every copy waits for what it must."""

import contextlib

import pytest
import torch

from fastpose.nn.staging import Staging

CPU = torch.device("cpu")
LOG: list[str] = []


class Stream:
    def __init__(self, device: object = None, name: str = "copy") -> None:
        self.name = name

    def wait_event(self, event: "Event") -> None:
        LOG.append(f"{self.name} waits for {event.name}")

    def wait_stream(self, other: "Stream") -> None: ...


class Event:
    count = 0

    def __init__(self, blocking: bool = False) -> None:
        self.name = f"{'free' if blocking else 'filled'} {Event.count // 2}"
        Event.count += 1

    def record(self, stream: Stream) -> None:
        LOG.append(f"{stream.name} records {self.name}")

    def synchronize(self) -> None:
        LOG.append(f"host waits for {self.name}")


@pytest.fixture(autouse=True)
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    main, Event.count = Stream(name="main"), 0

    @contextlib.contextmanager
    def stream(one: Stream):
        LOG.append(f"in {one.name}")
        yield

    for name, fake in {"Stream": Stream, "Event": Event, "stream": stream}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    LOG.clear()


def batch(number: int) -> dict[str, torch.Tensor]:
    return {"x": torch.full((2, 3), float(number)), "y": torch.full((2,), number)}


def test_memory_stays_and_values_change():
    staging = Staging(batch(0), CPU)
    addresses = {name: x.data_ptr() for name, x in staging.inputs.items()}
    for number in range(5):
        given = batch(number)
        inputs = staging.put(given)
        for name, x in inputs.items():
            assert torch.equal(x, given[name])
            assert x.data_ptr() == addresses[name] != given[name].data_ptr()


def test_copies_are_ordered_and_the_host_stays_two_steps_ahead():
    staging = Staging(batch(0), CPU)
    for number in range(3):
        staging.put(batch(number))
    once = [
        "host waits for free {0}", "in copy", "copy records filled {0}", "main waits for filled {0}",
        "main records free {0}",
    ]  # fmt: skip
    assert [line.format(slot) for slot in (0, 1, 0) for line in once] == LOG


def test_memory_format_is_kept():
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    inputs = Staging({"x": images}, CPU).put({"x": images})
    assert inputs["x"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs["x"], images)
