"""One row from its case to its record: check, inputs, timing, limit."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.ceilings import floor_seconds, measure_ceilings
from bench.checks import poisoned
from bench.cores import pinned
from bench.fingerprint import code
from bench.nvml import Gpu
from bench.rows import Case, Limit, Row
from bench.stats import Ratio, ratio, spread, verdict
from bench.timing import Rounds, Timer, interleave, make_timer

COLD_CACHES = 4  # distinct memory between two uses of the same, in sizes of the last cache
MAX_SETS = 1024
DIGITS = 5


def measure(
    row: Row, *, seconds: float, seed: int, gpu: Gpu | None = None, check_only: bool = False
) -> dict[str, Any]:
    """Builds, checks and times a row; its record for the results file, status `measured`.

    Args:
        seconds: how long to time; building, checking and warming up come on top.
        check_only: stop after the check, with nothing but the row's name in the record.

    Raises:
        Unavailable: the row cannot run here.
        AssertionError: a side computes something wrong.
    """
    _forget_compiled()
    with pinned(row.threads if row.device == "cpu" else 0):
        case = row.build()
        draw = torch.Generator(device=row.device).manual_seed(seed)
        inputs = case.inputs(draw)
        with poisoned(case.poison):
            case.check(*inputs)
        if check_only:
            return describe(row)
        sets, cache = _input_sets(case, row.device, draw, inputs)
        timers, reading, broken = _warm_timers(case, row.device, sets)
        before = gpu.state() if gpu and row.device == "cuda" else None
        clock = gpu.sm_mhz if gpu and row.device == "cuda" else None
        rounds = interleave(timers, seconds=seconds, reading=reading, clock=clock, watch=_alone(row))
        after = gpu.state() if before and gpu else None
        record = describe(row) | _figures(case, rounds, row.device) | {"cache": cache, "seed": seed}
        record |= {
            "absent": {**case.absent, **broken},
            "status": "measured",
            "axes": dict(row.axes),
            "threads": _threads(row),
        }
        record["limit"] = _limit(case, row, record["sides"][0]["median_s"])
        return record | {"before": before, "after": after}


def describe(row: Row) -> dict[str, Any]:
    """What every record says, whatever became of the row."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "id": row.id,
        "group": row.group,
        "device": row.device,
        "what": row.what,
        "date": now,
        "code": code(),
    }


def _warm_timers(
    case: Case, device: str, sets: list[tuple[Any, ...]]
) -> tuple[dict[str, Timer], float, dict[str, str]]:
    """Timers of all sides, the seconds of a reading of each, and the rivals that do not run, with the reason.

    Only a rival may be left out: the row says so, and its other figures are not lost.
    """
    timers: dict[str, Timer] = {}
    broken: dict[str, str] = {}
    reading = 0.0
    for name, side in {case.name: case.candidate, **case.rivals}.items():
        timer = make_timer(_method(case, name, device), side, sets, device)
        try:
            reading += timer.warm_up()
            timers[name] = timer
        except Exception as error:
            if name == case.name:
                raise
            broken[name] = failure_text(error)
    return timers, reading, broken


def failure_text(error: Exception) -> str:
    """Type and first line, for a record."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _figures(case: Case, rounds: Rounds, device: str) -> dict[str, Any]:
    """What the rounds say, rounded before anything is computed, so that the file is consistent in itself."""
    seconds = {name: [_rounded(value) for value in column] for name, column in rounds.seconds.items()}
    own = seconds[case.name]
    noise = _rounded_ratio(ratio(rounds.again, own))
    pairs = []
    for name in (name for name in seconds if name != case.name):
        pair = _rounded_ratio(ratio(seconds[name], own))
        pairs.append({"rival": name, **_as_dict(pair), "verdict": verdict(pair, noise, rounds.shared)})
    return {
        "rounds": len(own),
        "rejected": rounds.rejected,
        "shared": rounds.shared,
        "sides": [
            {"name": name, "method": _method(case, name, device)}
            | {key: _rounded(value) for key, value in spread(column).items()}
            | {"rounds_s": column}
            for name, column in seconds.items()
        ],
        "noise": _as_dict(noise),
        "pairs": pairs,
        "items": case.items,
        "unit": case.unit,
        "figures": {name: float(value) for name, value in (case.figures() if case.figures else {}).items()},
    }


def _limit(case: Case, row: Row, seconds: float) -> dict[str, Any] | None:
    """The floor with this run's ceilings; no fraction for hot inputs, which memory does not bind."""
    if case.limit is None:
        return None
    limit: Limit = case.limit
    ceilings = measure_ceilings(row.device, torch.get_num_threads(), limit.dtype)
    floor = floor_seconds(limit, ceilings)
    return {
        "bytes": limit.bytes,
        "flops": limit.flops,
        "traffic": limit.traffic,
        "ceilings": {name: _rounded(value) for name, value in dataclasses.asdict(ceilings).items()},
        "floor_s": _rounded(floor),
        "fraction": _rounded(floor / seconds) if case.cold and floor else None,
    }


def _input_sets(
    case: Case, device: str, draw: torch.Generator, first: tuple[Any, ...]
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Enough sets of inputs that none, nor an output, is still cached when its turn comes again."""
    if not first:
        return [()], {"mode": "its own", "sets": 1, "bytes": 0}
    each = nbytes(first) + nbytes(case.candidate(*first))
    wanted = math.ceil(COLD_CACHES * last_cache(device) / max(each, 1))
    count = min(wanted, MAX_SETS) if case.cold else 1
    mode = "hot" if not case.cold else "cold" if count == wanted else "partly cold"
    sets = [first, *(case.inputs(draw) for _ in range(count - 1))]
    return sets, {"mode": mode, "sets": count, "bytes": count * each}


def nbytes(value: object) -> int:
    """Bytes of the tensors and arrays in nested containers."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(nbytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(nbytes, value))
    if dataclasses.is_dataclass(value):
        return sum(nbytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0


def last_cache(device: str) -> int:
    """Bytes of the last cache before memory; 32 MiB where the system does not tell."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    sizes = [_size(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=32 << 20)


def _size(path: Path) -> int:
    found = re.fullmatch(r"(\d+)([KM]?)", path.read_text().strip())
    return int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]] if found else 0


def _method(case: Case, side: str, device: str) -> str:
    return case.methods.get(side, case.method or ("graph" if device == "cuda" else "wall"))


def _alone(row: Row) -> bool:
    return row.device == "cpu" and row.threads == 1


def _threads(row: Row) -> int:
    return row.threads if row.device == "cpu" and row.threads else torch.get_num_threads()


def _forget_compiled() -> None:
    """Rows compile the same functions for other shapes; torch.compile counts them against one limit."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo:
        dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _rounded_ratio(of: Ratio) -> Ratio:
    return Ratio(_rounded(of.value), _rounded(of.low), _rounded(of.high))


def _as_dict(of: Ratio) -> dict[str, float]:
    return {"ratio": of.value, "low": of.low, "high": of.high}
