"""The text of docs/benchmarks.md and of the README's block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plots import Plot
from bench.record import read_results
from bench.rows import Row, in_order
from bench.tables import Record, group_tables, headline_table, markdown_table, rate_text, summary

PAGE = "docs/benchmarks.md"
INTRODUCTION = """# Benchmarks

<!-- Written by `python -m bench.report` from bench/results/*.json. Do not edit. -->

Each row times fastpose and what one would use instead in turns, A B C A, in one process on the same inputs,
after a check of what they compute. *Times as fast* is the median of the rounds' own ratios with a 95 %
bootstrap interval: above 1 fastpose is faster. *Noise* is the same interval of fastpose against itself;
what lies within it, or has an interval across 1, is *no difference*. Times are medians (first to ninth
decile). A CPU row whose core other work took is *undecided*. *Of the limit* compares with the time that the
bytes and operations of the work take at the bandwidth of a large copy and the speed of a large matrix
product, measured in the same run. Inputs are random and cold: by the time one is used again, four times the
last cache has been touched; rows that keep them in the cache say hot. CPU rows are wall clock, on one
thread unless they say otherwise; GPU rows are CUDA events around captured graphs or whole steps.
[bench/README.md](../bench/README.md) says how to repeat them. Figures of different machines or software do
not compare.
"""
NO_GPU = "**No row has been measured on a GPU yet.** Nothing on this page says how fast anything is on one."


class Machine:
    """All results of one machine and its software; of a row measured twice the later counts."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.files: list[str] = []
        self.records: dict[str, Record] = {}

    def add(self, file: str, rows: list[Record]) -> None:
        self.files.append(file)
        for row in rows:
            old = self.records.get(row["id"])
            if old is None or (old["date"], old["id"]) <= (row["date"], row["id"]):
                self.records[row["id"]] = row

    def measured(self, rows: Mapping[str, Row]) -> list[Record]:
        """Measured records of declared rows, in the order of the page."""
        known = in_order([row for row in rows.values() if row.id in self.records])
        found = [self.records[row.id] for row in known]
        return [record for record in found if record["status"] == "measured"]


def load_machines(folder: Path) -> list[Machine]:
    """The results of a folder by machine, GPUs first. Raises SchemaError for a file that is not one."""
    machines: list[Machine] = []
    for path in sorted(folder.glob("*.json")):
        results = read_results(path)
        for machine in machines:
            if machine.fields == results["machine"]:
                break
        else:
            machine = Machine(results["machine"])
            machines.append(machine)
        machine.add(path.name, results["rows"])
    return sorted(machines, key=lambda machine: (machine.fields["gpu"] is None, machine.files[0]))


def page(machines: list[Machine], rows: Mapping[str, Row], plots: list[Plot]) -> str:
    """docs/benchmarks.md."""
    lines = [INTRODUCTION]
    if not any(record["device"] == "cuda" for machine in machines for record in machine.measured(rows)):
        lines += [NO_GPU, ""]
    for index, machine in enumerate(machines):
        lines += _section(machine, rows)
        for plot in (plot for plot in plots if plot.machine == index):
            lines += [f"![{plot.title}](images/{plot.name})", ""]
    return "\n".join([*lines, *_missing(machines, rows)]).rstrip() + "\n"


def _section(machine: Machine, rows: Mapping[str, Row]) -> list[str]:
    records, fields = machine.measured(rows), machine.fields
    codes = sorted({_code_text(record) for record in records})
    details = [
        [
            "software",
            ", ".join(f"{name} {fields[name]}" for name in ("torch", "triton", "python") if fields[name]),
        ],
        ["CPU", f"{fields['cpu']}, {fields['cores']} cores"],
        [
            "set in the environment",
            ", ".join(f"{k}={v}" for k, v in sorted(fields["knobs"].items())) or "nothing",
        ],
        ["commit", ", ".join(codes)],
        ["limits", "; ".join(_ceilings_text(records))],
        ["files", ", ".join(f"[{name}](../bench/results/{name})" for name in machine.files)],
    ]
    if fields["gpu"]:
        gpu = (
            f"driver {fields['driver']}, CUDA {fields['cuda']}, cuDNN {fields['cudnn']}{_clock_text(records)}"
        )
        details.insert(0, ["GPU", gpu])
    head = [f"## {fields['gpu'] or fields['cpu']}", "", summary(records), ""]
    return [*head, *markdown_table(["", ""], details), "", *group_tables(records)]


def _code_text(record: Record) -> str:
    code = record["code"]
    return f"{code['commit'][:9]}{' with uncommitted changes' if code['dirty'] else ''}"


def _ceilings_text(records: list[Record]) -> list[str]:
    """The ceilings of each device, as the last row of it had them."""
    dated = sorted((record for record in records if record["limit"]), key=lambda record: record["date"])
    latest = {record["device"]: record["limit"]["ceilings"] for record in dated}
    return [
        f"{device}: copy {rate_text(found['copy_bytes_per_s'], 'B/s')}, "
        f"reading {rate_text(found['read_bytes_per_s'], 'B/s')}, "
        f"writing {rate_text(found['write_bytes_per_s'], 'B/s')}, "
        f"matrix product {rate_text(found['flops_per_s'], 'FLOP/s')}"
        for device, found in sorted(latest.items())
    ] or ["not needed by any row"]


def _clock_text(records: list[Record]) -> str:
    states = [state for record in records for state in (record["before"], record["after"]) if state]
    if not states:
        return ""
    spans = {name: [state[name] for state in states] for name in ("sm_mhz", "memory_mhz", "celsius")}
    low_high = {name: f"{min(values):g} to {max(values):g}" for name, values in spans.items()}
    return f", SM {low_high['sm_mhz']} MHz, memory {low_high['memory_mhz']} MHz, {low_high['celsius']} °C"


def _missing(machines: list[Machine], rows: Mapping[str, Row]) -> list[str]:
    """Declared rows without a figure, and why."""
    done = {record["id"] for machine in machines for record in machine.measured(rows)}
    absent = [row for row in in_order(list(rows.values())) if row.id not in done]
    cells = [[f"`{row.id}`", row.what, _why(row, machines)] for row in absent]
    stray = sorted({name for machine in machines for name in machine.records if name not in rows})
    lines = ["## Not measured yet", ""]
    lines += (
        markdown_table(["row", "what", "why"], cells) if cells else ["Every declared row has been measured."]
    )
    return [*lines, "", *([f"Left out, no longer declared: {', '.join(stray)}."] if stray else [])]


def _why(row: Row, machines: list[Machine]) -> str:
    tried = [machine.records[row.id] for machine in machines if row.id in machine.records]
    if tried:
        last = max(tried, key=lambda record: record["date"])
        return last["reason"] if last["status"] == "skipped" else f"failed: {last['error']}"
    if row.device == "cuda" and not any(machine.fields["gpu"] for machine in machines):
        return "needs a GPU; no results of one are committed"
    return "no committed run has reached it"


def readme_block(machines: list[Machine], rows: Mapping[str, Row]) -> str:
    """What stands between the README's markers."""
    lines: list[str] = []
    for machine in machines:
        headline = [record for record in machine.measured(rows) if rows[record["id"]].headline]
        if headline:
            where = f"{machine.fields['gpu'] or machine.fields['cpu']}, torch {machine.fields['torch']}:"
            lines += [where, "", *headline_table(headline), ""]
    if not any(machine.fields["gpu"] and machine.measured(rows) for machine in machines):
        lines += ["No GPU has run a benchmark yet."]
    lines += [f"All rows, limits and what is not measured yet: [{PAGE}]({PAGE})."]
    return "\n".join(lines)
