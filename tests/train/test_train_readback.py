"""Numbers come back in order, late, and without waiting."""

import pytest
import torch

from fastpose.train.engine import readback
from fastpose.train.engine.readback import Readback


class Event:
    """One that has happened only when the test says so."""

    every: "list[Event]"

    def __init__(self, blocking: bool = False) -> None:
        self.done = False
        Event.every.append(self)

    def record(self, stream: object) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


class OnDevice(torch.Tensor):
    """A CPU tensor that says it is on a GPU."""

    is_cuda = True
    device = torch.device("cuda")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    Event.every = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    slot = lambda values: readback._Slot(torch.zeros(values.shape, dtype=values.dtype), Event())  # noqa: E731
    monkeypatch.setattr(readback, "_new_slot", slot)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64).as_subclass(OnDevice)


def test_on_the_cpu_everything_is_there_at_once():
    back: Readback[str] = Readback()
    held = torch.tensor([1.0, 2.0], dtype=torch.float64)
    back.push(held, "a")
    held.fill_(0.0)
    assert back.ready() == [("a", [1.0, 2.0])]
    assert back.ready() == back.wait() == []


@pytest.mark.usefixtures("device")
def test_ready_hands_out_what_has_arrived_in_order():
    back: Readback[int] = Readback()
    for number in range(3):
        back.push(values(number, -number), number)
    assert back.ready() == []
    Event.every[1].done = True
    assert back.ready() == []
    Event.every[0].done = True
    assert back.ready() == [(0, [0.0, 0.0]), (1, [1.0, -1.0])]
    assert back.wait() == [(2, [2.0, -2.0])]


@pytest.mark.usefixtures("device")
def test_memory_is_used_again():
    back: Readback[int] = Readback()
    for number in range(20):
        back.push(values(number), number)
        if number:
            Event.every[(number - 1) % 2].done = True
            assert back.ready() == [(number - 1, [float(number - 1)])]
    assert len(Event.every) == 2
