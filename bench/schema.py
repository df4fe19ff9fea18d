"""The form of a results file; bench/README.md describes it."""

from __future__ import annotations

import math
import statistics
from typing import Any

from bench.fields import (
    Check,
    SchemaError,
    axis,
    fail,
    integer,
    list_of,
    map_of,
    nullable,
    number,
    one_of,
    positive,
    record,
    text,
    truth,
)
from bench.rows import DEVICES, GROUPS, METHODS
from bench.stats import FASTER, NO_DIFFERENCE, SLOWER, UNDECIDED, Ratio, verdict

SCHEMA = 2
MODES = ("cold", "partly cold", "hot", "its own")
TRAFFIC = ("copy", "read", "write")
TIMES = ("median_s", "p10_s", "p90_s", "min_s")
CEILINGS = ("copy_bytes_per_s", "flops_per_s", "read_bytes_per_s", "write_bytes_per_s")


def check_results(results: Any, name: str) -> None:
    """SchemaError, beginning with `name`, unless `results` is a whole and consistent results file."""
    if isinstance(results, dict) and "schema" in results and results["schema"] != SCHEMA:
        raise SchemaError(f"{name}: schema: expected {SCHEMA}, got {results['schema']!r}; measure again")
    _RESULTS(results, name)
    seen: set[str] = set()
    for index, row in enumerate(results["rows"]):
        where = f"{name}: rows[{index}] ({row['id']})"
        if row["id"] in seen:
            raise SchemaError(f"{where}: id: the row is there twice; keep one")
        seen.add(row["id"])
        if row["status"] == "measured":
            _check_consistency(row, where)


def _fields(check: Check, *names: str) -> dict[str, Check]:
    return dict.fromkeys(names, check)


_MACHINE = record(
    _fields(nullable(text), "gpu", "driver", "cuda", "triton", "numpy")
    | _fields(text, "torch", "python", "cpu")
    | {"cudnn": nullable(integer), "cores": integer, "knobs": map_of(text)}
)
_RATIO = _fields(positive, "ratio", "low", "high")
_PAIR = record({"rival": text, "verdict": one_of(FASTER, SLOWER, NO_DIFFERENCE, UNDECIDED)} | _RATIO)
_SIDE = record(
    _fields(positive, *TIMES) | {"name": text, "method": one_of(*METHODS), "rounds_s": list_of(positive)}
)
_LIMIT = record(
    _fields(number, "bytes", "flops", "floor_s")
    | {"traffic": one_of(*TRAFFIC), "fraction": nullable(positive)}
    | {"ceilings": record(_fields(positive, *CEILINGS))}
)
_STATE = nullable(record(_fields(number, "sm_mhz", "memory_mhz", "celsius")))
_COMMON = _fields(text, "id", "what", "date", "status") | {
    "group": one_of(*GROUPS),
    "device": one_of(*DEVICES),
    "code": record({"commit": text, "dirty": truth, "source": text}),
}
_MEASURED = _fields(integer, "seed", "threads", "rounds", "rejected", "shared") | {
    "axes": map_of(axis),
    "cache": record({"mode": one_of(*MODES), "sets": integer, "bytes": number}),
    "sides": list_of(_SIDE),
    "noise": record(_RATIO),
    "pairs": list_of(_PAIR),
    "limit": nullable(_LIMIT),
    "items": positive,
    "unit": text,
    "absent": map_of(text),
    "figures": map_of(number),
    "before": _STATE,
    "after": _STATE,
}
_ROWS = {
    "failed": record(_COMMON | {"error": text}),
    "skipped": record(_COMMON | {"reason": text}),
    "measured": record(_COMMON | _MEASURED),
}


def _row(value: Any, where: str) -> None:
    if not isinstance(value, dict) or value.get("status") not in _ROWS:
        fail(
            f"{where}.status",
            f"one of {', '.join(_ROWS)}",
            value.get("status") if isinstance(value, dict) else value,
        )
    _ROWS[value["status"]](value, where)


_RESULTS = record({"schema": integer, "machine": _MACHINE, "rows": list_of(_row)})


def _check_consistency(row: dict[str, Any], where: str) -> None:
    """The stated figures follow from the stated rounds, so that none of them was typed."""
    rounds = {side["name"]: side["rounds_s"] for side in row["sides"]}
    for side in row["sides"]:
        if len(side["rounds_s"]) != row["rounds"]:
            fail(f"{where}: {side['name']}: rounds_s", f"{row['rounds']} rounds", len(side["rounds_s"]))
        _agree(f"{where}: {side['name']}: median_s", side["median_s"], statistics.median(side["rounds_s"]))
    if [pair["rival"] for pair in row["pairs"]] != list(rounds)[1:]:
        fail(f"{where}: pairs", f"one for each of {list(rounds)[1:]}", [p["rival"] for p in row["pairs"]])
    candidate = row["sides"][0]["rounds_s"]
    noise = _as_ratio(row["noise"])
    for pair in row["pairs"]:
        ratios = [slow / fast for slow, fast in zip(rounds[pair["rival"]], candidate, strict=True)]
        _agree(f"{where}: {pair['rival']}: ratio", pair["ratio"], statistics.median(ratios))
        if not pair["low"] <= pair["ratio"] <= pair["high"]:
            fail(
                f"{where}: {pair['rival']}",
                "low <= ratio <= high",
                [pair["low"], pair["ratio"], pair["high"]],
            )
        said = verdict(_as_ratio(pair), noise, row["shared"])
        if pair["verdict"] != said:
            fail(f"{where}: {pair['rival']}: verdict", repr(said), pair["verdict"])


def _as_ratio(of: dict[str, Any]) -> Ratio:
    return Ratio(of["ratio"], of["low"], of["high"])


def _agree(where: str, stated: float, computed: float) -> None:
    if not math.isclose(stated, computed, rel_tol=1e-3):
        fail(where, f"{computed:.6g}, as the rounds say", stated)
