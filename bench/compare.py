"""`python -m bench.compare BEFORE AFTER`: what lost ground to its rivals; exit status 1 if any row did."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.record import FingerprintError, read_results, require_same_machine
from bench.schema import SchemaError
from bench.stats import UNDECIDED
from bench.tables import ratio_text

SLACK = 0.05


def compare(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines that say what became slower, and lines for the other pairs that both files have.

    Slower is a pair whose interval lies below the former one by more than SLACK, or a row that failed.
    The ratios to the rivals are compared, not the times, since a machine's speed drifts from day to day.

    Raises:
        FingerprintError: the results are not of the same machine and software.
    """
    require_same_machine(before, after, "compare")
    worse: list[str] = []
    others: list[str] = []
    now = {row["id"]: row for row in after["rows"]}
    for old in before["rows"]:
        new = now.get(old["id"])
        if old["status"] != "measured" or new is None:
            continue
        if new["status"] != "measured":
            worse.append(f"{old['id']}: {new['status']}: {new.get('error') or new.get('reason')}")
            continue
        pairs = {pair["rival"]: pair for pair in new["pairs"]}
        for pair in (pair for pair in old["pairs"] if pair["rival"] in pairs):
            found = pairs[pair["rival"]]
            line = (
                f"{old['id']}: against {pair['rival']}: before {ratio_text(pair)}, after {ratio_text(found)}"
            )
            decided = UNDECIDED not in (pair["verdict"], found["verdict"])
            (worse if decided and found["high"] < pair["low"] * (1 - SLACK) else others).append(line)
    return worse, others


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__.split(":", 1)[1].strip()
    )
    parser.add_argument("before", type=Path, help="results file")
    parser.add_argument("after", type=Path, help="results file of the same machine and software")
    arguments = parser.parse_args(argv)
    try:
        worse, others = compare(read_results(arguments.before), read_results(arguments.after))
    except (SchemaError, FingerprintError) as error:
        print(f"bench.compare: error: {error}", file=sys.stderr)
        return 2
    print("\n".join([*others, *(f"SLOWER {line}" for line in worse)]) or "no row is in both files")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
