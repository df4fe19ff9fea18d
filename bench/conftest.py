"""`pytest bench --benchmark-only`: its options, the order of rows, and the fixture that measures one."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.fingerprint import ROOT, code, machine, slug
from bench.measure import describe, failure_text, measure
from bench.nvml import open_gpu
from bench.record import FingerprintError, Recorder
from bench.rows import Row, Unavailable, in_order
from bench.schema import SchemaError
from bench.tables import one_line

SESSION = pytest.StashKey["Session"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "fastpose benchmarks")
    group.addoption("--results", type=Path, help="file for the results (default: bench/out/MACHINE.json)")
    group.addoption(
        "--only", default="*", metavar="PATTERN", help="rows whose id matches, such as 'decode/cpu/*'"
    )
    group.addoption("--resume", action="store_true", help="skip rows that --results has for the same sources")
    group.addoption("--seconds-per-row", type=float, default=2.0, help="timing of one row (default: 2)")
    group.addoption("--minutes", type=float, default=0, help="start no row after this long (default: no end)")
    group.addoption("--seed", type=int, help="seed of all inputs (default: from the clock, and recorded)")


class Session:
    """What the rows of one run share."""

    def __init__(self, config: pytest.Config) -> None:
        self.seconds: float = config.getoption("--seconds-per-row")
        self.resume: bool = config.getoption("--resume")
        minutes: float = config.getoption("--minutes")
        self.end = time.monotonic() + 60 * minutes if minutes else float("inf")
        seed = config.getoption("--seed")
        self.seed: int = int(time.time()) if seed is None else seed
        path = config.getoption("--results") or ROOT / "bench" / "out" / f"{slug(machine())}.json"
        self.recorder = Recorder(path, machine())
        self.gpu = open_gpu()
        self.lines: list[str] = []

    def run(self, row: Row, *, check_only: bool) -> dict[str, Any]:
        """The record of a measured row; skips, and records what fails."""
        if row.device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch finds none")
        if time.monotonic() > self.end:
            pytest.skip("--minutes are over; go on with --resume")
        if self.resume and self.recorder.has(row.id, code()["source"]):
            pytest.skip("measured already, with the same sources")
        try:
            record = measure(row, seconds=self.seconds, seed=self.seed, gpu=self.gpu, check_only=check_only)
        except Unavailable as error:
            self._add(describe(row) | {"status": "skipped", "reason": str(error)}, check_only)
            pytest.skip(str(error))
        except Exception as error:
            self._add(describe(row) | {"status": "failed", "error": failure_text(error)}, check_only)
            raise
        self._add(record, check_only)
        return record

    def _add(self, record: dict[str, Any], check_only: bool) -> None:
        if not check_only:
            self.recorder.add(record)
            self.lines.append(one_line(record))


@pytest.fixture
def check_and_measure(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Row], None]:
    """Call it with a row. pytest-benchmark is told the rounds; `--benchmark-disable` only checks the row."""

    def run(row: Row) -> None:
        session = _session(request.config)
        record = session.run(row, check_only=getattr(benchmark, "disabled", False))
        if record.get("status") != "measured":
            benchmark(lambda: None)
            return
        side, *_ = record["sides"]
        replay: Replay = request.node.get_closest_marker("benchmark").kwargs["timer"]
        replay.durations = iter(side["rounds_s"])
        benchmark.extra_info.update({name: value for name, value in record.items() if name != "sides"})
        benchmark.pedantic(lambda: None, rounds=len(side["rounds_s"]))

    return run


class Replay:
    """The timer that pytest-benchmark reads: it hands over what was measured in turns with the rivals."""

    __name__ = "replay"

    def __init__(self) -> None:
        self.durations: Iterator[float] = iter(())
        self._now, self._started = 0.0, False

    def __call__(self) -> float:
        if self._started:
            self._now += next(self.durations)
        self._started = not self._started
        return self._now


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    found = [(row, item) for item in items if (row := _row(item))]
    wanted = {row.id: item for row, item in found if _wanted(row, config)}
    config.hook.pytest_deselected(items=[item for row, item in found if row.id not in wanted])
    others = [item for item in items if not _row(item)]
    for row, item in found:
        item.add_marker(pytest.mark.benchmark(group=row.group, timer=Replay()))
    ordered = in_order([row for row, _ in found if row.id in wanted])
    items[:] = [*others, *(wanted[row.id] for row in ordered)]


def _wanted(row: Row, config: pytest.Config) -> bool:
    return any(fnmatch.fnmatch(row.id, pattern) for pattern in config.getoption("--only").split(","))


def _row(item: pytest.Item) -> Row | None:
    callspec = getattr(item, "callspec", None)
    row = callspec.params.get("row") if callspec else None
    return row if isinstance(row, Row) else None


def _session(config: pytest.Config) -> Session:
    if SESSION not in config.stash:
        if os.environ.get("TRITON_INTERPRET") == "1":
            pytest.exit("TRITON_INTERPRET=1: what Triton's interpreter runs is not timed; unset it", 4)
        try:
            config.stash[SESSION] = Session(config)
        except (SchemaError, FingerprintError) as error:
            pytest.exit(str(error), 4)
    return config.stash[SESSION]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "benchmark: options of pytest-benchmark")
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(WithoutPlugin())


class WithoutPlugin:
    """Stands in where pytest-benchmark is not installed; the results file does not need it."""

    class Benchmark:
        disabled = False

        def __init__(self) -> None:
            self.extra_info: dict[str, Any] = {}

        def pedantic(self, run: Callable[[], object], rounds: int) -> None:
            """Nothing to show: the rounds are in the results file."""

    @pytest.fixture
    def benchmark(self) -> Benchmark:
        return self.Benchmark()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = terminalreporter.config.stash.get(SESSION, None)
    if session and session.lines:
        terminalreporter.section("rows: time, rivals' time / its own [95 %], fraction of the limit")
        for line in session.lines:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"written to {session.recorder.path}")
