"""Interleaving and the timers; CUDA's are driven with stand-ins here and for real where there is a GPU."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
import types

import pytest
import torch

import bench.timing as timing
from bench.stats import ratio
from bench.timing import (
    GRAPH_CALLS,
    MAX_ROUNDS,
    MIN_ROUNDS,
    EventTimer,
    GraphTimer,
    WallTimer,
    interleave,
    make_timer,
)

READING = 3e-3


class Scripted:
    """A timer that logs its calls and gives the seconds it is told."""

    def __init__(self, name, log, seconds):
        self.name, self.log, self.script = name, log, itertools.cycle(seconds)

    def prime(self):
        self.log.append(f"prime {self.name}")

    def seconds(self):
        self.log.append(self.name)
        return next(self.script)


def scripted(log, **seconds):
    return {name: Scripted(name, log, values) for name, values in seconds.items()}


def test_a_round_is_every_side_and_the_candidate_again():
    log = []
    rounds = interleave(scripted(log, a=[1.0, 1.5], b=[2.0], c=[3.0]), seconds=0, reading=READING)
    assert log[:8] == ["prime a", "a", "prime b", "b", "prime c", "c", "prime a", "a"]
    assert rounds.seconds == {"a": [1.0] * MIN_ROUNDS, "b": [2.0] * MIN_ROUNDS, "c": [3.0] * MIN_ROUNDS}
    assert rounds.again == [1.5] * MIN_ROUNDS


def test_a_reading_is_the_best_of_three_where_time_allows():
    rounds = interleave(scripted([], a=[5.0, 1.0, 3.0], b=[9.0, 8.0, 2.0]), seconds=0.2, reading=READING)
    assert set(rounds.seconds["a"]) == {1.0}
    assert set(rounds.seconds["b"]) == {2.0}


def test_rounds_end_at_their_number():
    assert len(interleave(scripted([], a=[1.0]), seconds=60, reading=READING).seconds["a"]) == MAX_ROUNDS


def test_a_round_with_a_drifting_clock_does_not_count():
    clock = itertools.chain([1000, 1000, 940, 940, 930], itertools.repeat(930))
    rounds = interleave(
        scripted([], a=range(1, 1000)), seconds=60, reading=READING, clock=lambda: next(clock)
    )
    assert rounds.rejected == 1
    assert len(rounds.seconds["a"]) == MAX_ROUNDS - 1
    assert rounds.seconds["a"][:2] == [1, 13]  # the second round's three readings are dropped


def test_a_clock_that_never_rests_fails_the_row():
    clock = itertools.cycle([1000, 500])
    with pytest.raises(RuntimeError, match=r"clock: moved by more than 5% in 5 of 5 rounds"):
        interleave(scripted([], a=[1.0]), seconds=0, reading=READING, clock=lambda: next(clock))


@pytest.fixture
def losses(monkeypatch):
    """Readings are taken to have lost their core as this list says, its last entry from then on."""
    script = []
    monkeypatch.setattr(
        timing, "watched", lambda read: (read(), script.pop(0) if len(script) > 1 else script[0])
    )
    return script


def test_rounds_that_lost_their_core_do_not_count(losses):
    losses += [False, False, False, True, False]  # the second of two rounds with a and a again
    rounds = interleave(scripted([], a=range(1, 1000)), seconds=60, reading=60, watch=True)
    assert (rounds.rejected, rounds.shared) == (1, 0)
    assert rounds.seconds["a"][:2] == [1, 5]


def test_where_the_core_is_always_shared_the_rounds_say_so(losses, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks) * 1.0)
    losses += [True]
    rounds = interleave(scripted([], a=[1.0]), seconds=10, reading=60, watch=True)
    assert (rounds.rejected, rounds.shared) == (0, len(rounds.again))
    assert 3 * 10 <= len(rounds.again) < 3 * 10 + 5  # a look at the clock a round: patience, then an end


def test_nobody_looks_at_the_core_unless_asked(losses):
    losses += [True]
    assert interleave(scripted([], a=[1.0]), seconds=0, reading=READING).shared == 0


SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


@pytest.fixture
def busy_core():
    """This thread and two that never rest, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    others = [subprocess.Popen([sys.executable, "-c", SPIN % min(cores)]) for _ in range(2)]
    time.sleep(0.3)
    yield
    for other in others:
        other.kill()
        other.wait()
    os.sched_setaffinity(0, cores)


def spin(count):
    for _ in range(count):
        pass


@pytest.mark.usefixtures("busy_core")
def test_a_busy_core_does_not_flatter_the_shorter_side():
    # a side that fits between two interruptions, and one 100 times as long that does not
    timers = {
        "short": WallTimer(lambda: spin(10_000), [()], "cpu"),
        "long": WallTimer(lambda: spin(10**6), [()], "cpu"),
    }
    reading = sum(timer.warm_up() for timer in timers.values())
    blind = interleave(timers, seconds=1, reading=0)
    watched = interleave(timers, seconds=1, reading=0, watch=True)
    assert ratio(blind.seconds["long"], blind.seconds["short"]).value > 130
    assert reading > 0
    assert watched.shared > 0 or 70 < ratio(watched.seconds["long"], watched.seconds["short"]).value < 130


def test_waiting_is_not_losing_the_core():
    seen = [timing.watched(lambda: time.sleep(0.02) or 1.5) for _ in range(20)]
    assert (1.5, False) in seen, "not even where nothing else wanted the core"


def test_wall_timer_takes_each_set_of_inputs_in_turn():
    seen = []
    timer = WallTimer(seen.append, [(0,), (1,), (2,)], "cpu")
    timer.warm_up()
    timer.seconds()
    assert seen[:6] == [0, 1, 2, 0, 1, 2]


def test_wall_timer_groups_short_calls(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks) * 2.0**-16)
    calls = []
    timer = WallTimer(lambda: calls.append(1), [()], "cpu")
    timer.warm_up()
    calls.clear()
    assert timer.seconds() == 2.0**-16 / 14  # a call of 15 us, so 14 of them make 200
    assert len(calls) == 14
    timer.prime()
    assert len(calls) == 14 + 132  # 2 ms


def test_slow_calls_warm_up_once_and_are_not_primed(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks) * 2.0)
    calls = []
    timer = WallTimer(lambda: calls.append(1), [()], "cpu")
    assert timer.warm_up() == 2.0
    timer.prime()
    assert len(calls) == 1


def test_only_the_wall_clock_on_a_cpu():
    assert isinstance(make_timer("wall", print, [()], "cpu"), WallTimer)
    with pytest.raises(ValueError, match="method: expected wall on cpu, got 'graph'"):
        make_timer("graph", print, [()], "cpu")


@pytest.fixture
def cuda(monkeypatch):
    """Stand-ins that log; an interval between events is 40 ms."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 40.0

    class Graph:
        def replay(self):
            log.append("replay")

    @contextlib.contextmanager
    def capture(graph, stream):
        log.append("capture")
        yield
        log.append("captured")

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    stand_ins = {
        "Event": Event, "CUDAGraph": Graph, "graph": capture, "Stream": lambda: stream,
        "current_stream": lambda: stream, "stream": lambda of: contextlib.nullcontext(),
        "synchronize": lambda: None,
    }  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return log


@pytest.mark.parametrize(("sets", "calls"), [(1, 20), (3, 21), (20, 20), (33, 33)])
def test_graph_holds_enough_calls_of_every_set(cuda, sets, calls):
    timer = GraphTimer(lambda index: cuda.append(index) or [index], [(index,) for index in range(sets)])
    timer.warm_up()
    captured = cuda[cuda.index("capture") + 1 : cuda.index("captured")]
    assert captured == [call % sets for call in range(calls)]
    assert calls >= GRAPH_CALLS
    assert timer.seconds() == pytest.approx(40e-3 / calls)
    assert cuda[-4:] == ["record", "replay", "record", "wait"]


def test_graph_keeps_one_output_for_each_set(cuda):
    alive = set()

    class Output:
        def __init__(self):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    timer = GraphTimer(lambda index: Output(), [(index,) for index in range(7)])
    timer.warm_up()
    assert len(alive) == 7


def test_events_surround_one_call(cuda):
    timer = EventTimer(lambda: cuda.append("run"), [()])
    timer.warm_up()
    assert timer.seconds() == pytest.approx(40e-3)
    assert cuda[-4:] == ["record", "run", "record", "wait"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_timers_agree_on_a_gpu():
    inputs = [(torch.rand(1 << 26, device="cuda"),) for _ in range(3)]
    times = {}
    for method in ("graph", "events", "wall"):
        timer = make_timer(method, lambda x: x * 2, inputs, "cuda")
        timer.warm_up()
        times[method] = min(timer.seconds() for _ in range(5))
    assert times["graph"] == pytest.approx(times["events"], rel=0.2)
    assert times["graph"] == pytest.approx(times["wall"], rel=0.3)
