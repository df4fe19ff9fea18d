"""Ceilings are what the machine does at most, and the floor follows from the one that binds."""

import pytest

from bench import ceilings
from bench.ceilings import Ceilings, floor_seconds, measure_ceilings
from bench.rows import Limit

KNOWN = Ceilings(copy_bytes_per_s=10.0, flops_per_s=100.0, read_bytes_per_s=20.0, write_bytes_per_s=40.0)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        pytest.param(Limit(bytes=80, flops=100), 8.0, id="copy"),
        pytest.param(Limit(bytes=80, flops=100, traffic="read"), 4.0, id="read"),
        pytest.param(Limit(bytes=80, flops=100, traffic="write"), 2.0, id="write"),
        pytest.param(Limit(bytes=80, flops=900), 9.0, id="operations"),
        pytest.param(Limit(), 0.0, id="nothing"),
    ],
)
def test_floor(limit, seconds):
    assert floor_seconds(limit, KNOWN) == seconds


@pytest.fixture
def clockwork(monkeypatch):
    """Every reading takes a second, whatever it does; the sizes are small."""
    measure_ceilings.cache_clear()
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": 4000})
    monkeypatch.setattr(ceilings, "MATRIX", {"cpu": 10})
    monkeypatch.setattr(ceilings, "_best", lambda device, run: float(run() is not None))
    yield
    measure_ceilings.cache_clear()


@pytest.mark.usefixtures("clockwork")
def test_ceilings_count_what_is_moved_and_computed():
    found = measure_ceilings("cpu", 1)
    assert found == Ceilings(8000.0, 2000.0, read_bytes_per_s=8000.0, write_bytes_per_s=8000.0)


@pytest.mark.usefixtures("clockwork")
def test_reading_and_writing_are_no_slower_than_a_copy(monkeypatch):
    monkeypatch.setattr(ceilings, "_bandwidths", lambda device, size: (10.0, 5.0, 20.0))
    found = measure_ceilings("cpu", 1)
    assert (found.copy_bytes_per_s, found.read_bytes_per_s, found.write_bytes_per_s) == (10.0, 10.0, 20.0)


def test_measured_once_for_each_number_of_threads(monkeypatch):
    measure_ceilings.cache_clear()
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(ceilings, "MATRIX", {"cpu": 32})
    first = measure_ceilings("cpu", 1)
    assert measure_ceilings("cpu", 1) is first
    assert measure_ceilings("cpu", 2) is not first
    assert min(first.copy_bytes_per_s, first.flops_per_s) > 1e6
    measure_ceilings.cache_clear()


@pytest.mark.parametrize(
    ("lost", "readings"),
    [([False] * 99, 7), ([True] * 99, 21), ([True, False] * 99, 14)],
    ids=["quiet", "busy", "half"],
)
def test_readings_that_lost_their_core_are_made_up_for(monkeypatch, lost, readings):
    taken = []
    script = iter(lost)
    monkeypatch.setattr(
        ceilings, "watched", lambda read: (taken.append(9.0 - len(taken) / 9) or taken[-1], next(script))
    )
    assert ceilings._best("cpu", lambda: None) == taken[-1] == min(taken)
    assert len(taken) == readings
