"""`python -m bench.tune_fuse`: times tile sizes of the fused sum's kernels on this GPU, entry by entry.

Prints which entries of kernels/configs.py another configuration beats, and keeps all times in a JSON file. An
entry is timed on the largest calls that HRNet makes through it; a change must hold in interleaved rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import importlib
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.checks import check_close, poisoned
from bench.fingerprint import ROOT, code, machine, slug
from bench.fuse_calls import StepCall, draw_arguments
from bench.measure import COLD_CACHES, failure_text, last_cache, nbytes
from bench.rows import Side
from bench.stats import ratio
from bench.timing import Timer, interleave, make_timer
from bench.tune_candidates import MODULES, Job, bounds_of, candidates, find_jobs
from fastpose.files import make_folder, write_text

SCHEMA = "tune-1"
NETWORKS = ("w48", "w32", "w18_small")
READINGS = 5
CONFIRM_S = 1.0
WORTH = 1.02  # a change is worth its while from here
MAX_SETS = 64


class Timed(NamedTuple):
    """A warm timer, the seconds that a reading of it takes, and seconds of all calls."""

    timer: Timer
    reading: float
    seconds: float


class Tuner:
    """Times the candidates of one job; each call runs as often as in a training step."""

    def __init__(self, job: Job, draw: torch.Generator) -> None:
        self.job = job
        self._calls = [call for call, times in job.calls.values() for _ in range(times)]
        first = self._draw(draw)
        self._expected = self.run(job.entry.config())(*first)
        each = nbytes(first) + nbytes(self._expected)
        count = min(math.ceil(COLD_CACHES * last_cache(draw.device.type) / each), MAX_SETS)
        self._sets = [first, *(self._draw(draw) for _ in range(count - 1))]

    def run(self, config: Any) -> Side:
        def side(*arguments: tuple[Any, ...]) -> list[Any]:
            return [
                launcher(call)(*given, config=config)
                for call, given in zip(self._calls, arguments, strict=True)
            ]

        return side

    def check(self, config: Any) -> None:
        """AssertionError unless a candidate computes what the table's configuration does."""
        with poisoned():
            got = self.run(config)(*self._sets[0])
        for i, (mine, wanted) in enumerate(zip(flat(got), flat(self._expected), strict=True)):
            check_close(f"result {i}", mine, wanted)

    def time(self, config: Any) -> Timed:
        timer = make_timer("graph", self.run(config), self._sets, "cuda")
        reading = timer.warm_up()
        return Timed(timer, reading, min(timer.seconds() for _ in range(READINGS)))

    def _draw(self, draw: torch.Generator) -> tuple[tuple[Any, ...], ...]:
        return tuple(draw_arguments(call, draw) for call in self._calls)


def launcher(call: StepCall) -> Any:
    module = importlib.import_module(f"fastpose.kernels.{MODULES[call.step]}")
    return getattr(module, f"launch_{call.step}")


def flat(value: Any) -> list[torch.Tensor]:
    """All tensors of nested results."""
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value]


def tune(job: Job, tuner: Any, most: int, shared: int, until: float) -> dict[str, Any]:
    """The record of one entry: what was tried, the best, and its gain over the table in the same rounds.

    Args:
        tuner: of the job, with `check` and `time`.
        most: configurations to try. shared: bytes of shared memory of a block.
        until: no further one is tried after this time (time.monotonic).
    """
    now = job.entry.config()
    tried: list[dict[str, Any]] = []
    timed: dict[Any, Timed] = {}
    best, complete = now, True
    for config in candidates(now, bounds_of(job, shared), most):
        if timed and time.monotonic() > until:
            complete = False
            break
        tried.append({"config": dataclasses.asdict(config)})
        try:
            tuner.check(config)
            found = tuner.time(config)
        except Exception as error:  # too many resources, refused by the compiler, or wrong
            if config == now:
                raise
            tried[-1]["error"] = failure_text(error)
            continue
        tried[-1]["seconds"] = found.seconds
        best = config if not timed or found.seconds < timed[best].seconds else best
        timed = {kept: one for kept, one in (timed | {config: found}).items() if kept in (now, best)}
    record = {"entry": str(job.entry), "calls": list(job.calls), "bytes": job.bytes}
    record |= {"tried": tried, "complete": complete}
    record |= {"now": dataclasses.asdict(now), "best": dataclasses.asdict(best)}
    record["gain"] = [1.0, 1.0, 1.0] if best == now else gain(timed[now], timed[best])
    return record | {"text": verdict(record, type(now).__name__)}


def gain(now: Timed, best: Timed) -> list[float]:
    """How many times as fast the best is, and its interval, from interleaved rounds."""
    timers = {"best": best.timer, "now": now.timer}
    rounds = interleave(timers, seconds=CONFIRM_S, reading=now.reading + best.reading)
    found = ratio(rounds.seconds["now"], rounds.seconds["best"])
    return [round(value, 4) for value in (found.value, found.low, found.high)]


def verdict(record: dict[str, Any], name: str) -> str:
    """What to do with an entry, in one line."""
    value, low, high = record["gain"]
    now, best = (f"{name}({', '.join(map(str, record[key].values()))})" for key in ("now", "best"))
    count = sum("seconds" in entry for entry in record["tried"])
    if changes(record):
        return f"{record['entry']}: {now} -> {best}: {value:.2f} [{low:.2f}, {high:.2f}], {count} timed"
    return f"{record['entry']}: keep {now}, {count} timed"


def changes(record: dict[str, Any]) -> bool:
    value, low, _ = record["gain"]
    return bool(low > 1 and value >= WORTH)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Complete entries of an earlier call on the same machine and the same sources."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA or found["machine"] != machine():
        raise ValueError(f"{path}: not of this machine and its software; choose another file with --out")
    same = found["code"]["source"] == code()["source"]
    return {entry["entry"]: entry for entry in found["entries"] if same and entry["complete"]}


def save(path: Path, entries: dict[str, dict[str, Any]], batch: int) -> None:
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {"schema": SCHEMA, "machine": machine(), "code": code(), "date": date, "batch": batch}
    content["changes"] = [e["text"] for e in entries.values() if changes(e)]
    content["entries"] = list(entries.values())
    make_folder(path.parent)
    write_text(path, json.dumps(content, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tune_fuse", description=__doc__.split(":", 1)[1].strip()
    )
    parser.add_argument("--minutes", type=float, default=9, help="stop after this long (default: 9)")
    parser.add_argument("--most", type=int, default=24, help="configurations of an entry (default: 24)")
    parser.add_argument("--batch", type=int, default=64, help="images (default: 64)")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="entries, such as 'forward_config*'")
    parser.add_argument("--out", type=Path, help="JSON file (default: bench/results/tune/MACHINE.json)")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("tune_fuse: needs a CUDA device, and torch finds none", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * arguments.minutes
    out = arguments.out or ROOT / "bench" / "results" / "tune" / f"tune-{slug(machine())}.json"
    capability = importlib.import_module("fastpose.kernels.configs").capability(torch.device("cuda", 0))
    driver = importlib.import_module("triton.runtime").driver
    shared = driver.active.utils.get_device_properties(0)["max_shared_mem"]
    done = load(out)
    draw = torch.Generator("cuda").manual_seed(int(time.time()))
    jobs = find_jobs(arguments.networks.split(","), arguments.batch, capability)
    wanted = [job for job in jobs if fnmatch.fnmatch(str(job.entry), arguments.only)]
    for job in wanted:
        if str(job.entry) in done:
            continue
        if time.monotonic() > until:
            break
        done[str(job.entry)] = tune(job, Tuner(job, draw), arguments.most, shared, until)
        save(out, done, arguments.batch)
        print(done[str(job.entry)]["text"], flush=True)
    left = sum(str(job.entry) not in done for job in wanted)
    print(
        "\nchange in kernels/configs.py:",
        *[e["text"] for e in done.values() if changes(e)] or ["nothing"],
        sep="\n",
    )
    print(f"{len(wanted) - left} of {len(wanted)} entries, written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
