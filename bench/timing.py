"""Interleaved timing: each round times every side once, so that a drift of the machine meets all of them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from bench.rows import Side

WARM_UPS = 3
GRAPH_CALLS = 20
MIN_ROUNDS, MAX_ROUNDS = 5, 200
BEST_OF = 3
SHORTEST_S = 200e-6  # a wall-clock reading covers at least this much, or the clock itself would count
SLOW_S = 1.0  # one warm-up is enough for a call as long as this
PRIME_S = 2e-3  # untimed work of a side before its reading, for the side before it has emptied caches
PRIMED_S = 20e-3  # a reading as long as this needs none
DRIFT = 0.05
PATIENCE = 3


class Timer(Protocol):
    def warm_up(self) -> float:
        """Calls the side until it runs at its steady speed; seconds that a reading takes."""

    def prime(self) -> None:
        """Brings caches and clocks to where the side itself leaves them, whichever ran before it."""

    def seconds(self) -> float:
        """One reading, in seconds per call."""


class WallTimer:
    """Wall clock around as many calls as make a long enough reading, the device idle before and after."""

    def __init__(self, run: Side, inputs: Sequence[tuple[Any, ...]], device: str) -> None:
        self._run, self._inputs = run, itertools.cycle(inputs)
        self._wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
        self._calls, self._primes = 1, 0

    def warm_up(self) -> float:
        once = self.seconds()
        for _ in range(WARM_UPS - 1):
            if once < SLOW_S:
                once = self.seconds()
        self._calls = max(1, math.ceil(SHORTEST_S / max(once, 1e-9)))
        self._primes = math.ceil(PRIME_S / max(once, 1e-9)) if once < PRIMED_S else 0
        return once * self._calls

    def prime(self) -> None:
        for _ in range(self._primes):
            self._run(*next(self._inputs))

    def seconds(self) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(self._calls):
            self._run(*next(self._inputs))
        self._wait()
        return (time.perf_counter() - start) / self._calls


class EventTimer:
    """CUDA events around one call, such as a whole training step."""

    def __init__(self, run: Side, inputs: Sequence[tuple[Any, ...]]) -> None:
        self._run, self._inputs = run, itertools.cycle(inputs)
        self._primes = 0

    def warm_up(self) -> float:
        for _ in range(WARM_UPS):
            once = self.seconds()
        self._primes = 1 if once < PRIMED_S else 0
        return once

    def prime(self) -> None:
        for _ in range(self._primes):
            self._run(*next(self._inputs))

    def seconds(self) -> float:
        return _between_events(lambda: self._run(*next(self._inputs)))


class GraphTimer:
    """CUDA events around a graph of at least GRAPH_CALLS calls, each set of inputs in its turn.

    Outputs are kept for as many calls as there are sets, so that they share no memory in the cache either.
    """

    def __init__(self, run: Side, inputs: Sequence[tuple[Any, ...]]) -> None:
        self._run, self._inputs = run, inputs
        self._calls = len(inputs) * math.ceil(GRAPH_CALLS / len(inputs))
        self._graph: Any = None
        self._outputs: list[object] = []

    def warm_up(self) -> float:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for inputs in itertools.islice(itertools.cycle(self._inputs), WARM_UPS):
                self._run(*inputs)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            for call in range(self._calls):
                if call >= len(self._inputs):
                    self._outputs.pop(0)
                self._outputs.append(self._run(*self._inputs[call % len(self._inputs)]))
        for _ in range(WARM_UPS):
            once = self.seconds()
        return once * self._calls

    def prime(self) -> None:
        self._graph.replay()

    def seconds(self) -> float:
        return _between_events(self._graph.replay) / self._calls


def make_timer(method: str, run: Side, inputs: Sequence[tuple[Any, ...]], device: str) -> Timer:
    """The timer of a method of `bench.rows.METHODS`."""
    if method == "wall":
        return WallTimer(run, inputs, device)
    if device != "cuda":
        raise ValueError(f"method: expected wall on {device}, got {method!r}")
    return EventTimer(run, inputs) if method == "events" else GraphTimer(run, inputs)


@dataclass(frozen=True)
class Rounds:
    """Seconds per call, round by round; `again` is the candidate's second reading of the same rounds.

    rejected: rounds left out, because the clock moved or the core was shared.
    shared: rounds among those kept in which the core was shared, for want of others.
    """

    seconds: dict[str, list[float]]
    again: list[float]
    rejected: int
    shared: int = 0


def interleave(
    timers: Mapping[str, Timer],
    *,
    seconds: float,
    reading: float,
    clock: Callable[[], float] | None = None,
    watch: bool = False,
) -> Rounds:
    """Times all sides in turn, A B C A, round after round, for `seconds` or MAX_ROUNDS.

    Args:
        timers: name -> timer, the candidate first, all warmed up.
        reading: seconds that one reading of each takes in all.
        clock: speed of the GPU in MHz; a round in which it moves by more than DRIFT does not count.
        watch: the sides run on this thread alone. A round in which it lost its core to other work does not
            count: the best of three saves a call shorter than a time slice and no longer one, so the ratio
            would be wrong by up to the number of processes. It looks for others up to PATIENCE times as long.

    Raises:
        RuntimeError: fewer than MIN_ROUNDS rounds had a steady clock.
    """
    best_of = BEST_OF if BEST_OF * MIN_ROUNDS * reading <= seconds else 1
    order = [*timers.values(), next(iter(timers.values()))]
    quiet: list[list[float]] = []
    shared: list[list[float]] = []
    start = time.perf_counter()
    rejected, mhz = 0, clock() if clock else 0.0
    with _collector_off():
        while (count := len(quiet) + len(shared) + rejected) < MAX_ROUNDS:
            spent, enough = time.perf_counter() - start, len(quiet) >= MIN_ROUNDS or not shared
            if count >= MIN_ROUNDS and spent > (seconds if enough else PATIENCE * seconds):
                break
            readings = [_best_reading(timer, best_of, watch) for timer in order]
            before, mhz = mhz, clock() if clock else 0.0
            if abs(mhz - before) > DRIFT * max(mhz, before):
                rejected += 1
            else:
                times, lost = zip(*readings, strict=True)
                (shared if any(lost) else quiet).append(list(times))
    return _rounds(list(timers), quiet, shared, rejected)


def _rounds(names: list[str], quiet: list[list[float]], shared: list[list[float]], rejected: int) -> Rounds:
    """Only the quiet rounds where there are enough."""
    if len(quiet) >= MIN_ROUNDS:
        kept, rejected, disturbed = quiet, rejected + len(shared), 0
    else:
        kept, disturbed = quiet + shared, len(shared)
    if len(kept) < MIN_ROUNDS:
        count = rejected + len(kept)
        raise RuntimeError(f"clock: moved by more than {DRIFT:.0%} in {rejected} of {count} rounds")
    columns = [list(column) for column in zip(*kept, strict=True)]
    return Rounds(dict(zip(names, columns, strict=False)), columns[-1], rejected, disturbed)


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _best_reading(timer: Timer, best_of: int, watch: bool) -> tuple[float, bool]:
    """The shortest of a few readings, and whether other work had the core during it."""
    timer.prime()
    return min(watched(timer.seconds) if watch else (timer.seconds(), False) for _ in range(best_of))


def watched(read: Callable[[], float]) -> tuple[float, bool]:
    """A reading, and whether it lost its core: waiting for a disk or a sleep is the side's own time."""
    switches, used, start = _involuntary_switches(), time.thread_time(), time.perf_counter()
    seconds = read()
    wall, used = time.perf_counter() - start, time.thread_time() - used
    return seconds, _involuntary_switches() > switches and wall > (1 + DRIFT) * used


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _between_events(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3
