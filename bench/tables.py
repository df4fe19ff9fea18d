"""Records as text: lines for the terminal, Markdown for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.rows import GROUPS
from bench.stats import FASTER, NO_DIFFERENCE, UNDECIDED

Record = Mapping[str, Any]
_TIMES = ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)
_RATES = ("T", 1e12), ("G", 1e9), ("M", 1e6), ("", 1.0)
_PAIR_HEAD = [
    "row",
    "what",
    "time",
    "against",
    "its time",
    "times as fast [95 %]",
    "of the limit, limit",
    "noise",
]


def seconds_text(seconds: float) -> str:
    """Three digits in the unit that suits."""
    unit, size = next((pair for pair in _TIMES if seconds >= pair[1]), _TIMES[-1])
    value = seconds / size
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def rate_text(per_second: float, unit: str) -> str:
    """Three digits with a prefix: 92.1 GB/s."""
    prefix, size = next((pair for pair in _RATES if per_second >= pair[1]), _RATES[-1])
    return f"{per_second / size:.3g} {prefix}{unit}"


def ratio_text(of: Record) -> str:
    """The ratio with its interval: 1.34 [1.30, 1.38]."""
    digits = 1 if of["ratio"] >= 10 else 2
    return f"{of['ratio']:.{digits}f} [{of['low']:.{digits}f}, {of['high']:.{digits}f}]"


def pair_text(pair: Record) -> str:
    """The ratio and what it means; anything but faster is said in words."""
    return ratio_text(pair) if pair["verdict"] == FASTER else f"{ratio_text(pair)} **{pair['verdict']}**"


def noise_text(noise: Record) -> str:
    return f"±{max(abs(noise['low'] - 1), abs(noise['high'] - 1)):.1%}"


def one_line(record: Record) -> str:
    """A record for the terminal."""
    if record["status"] != "measured":
        return f"{record['id']}: {record['status']}: {record.get('error') or record.get('reason')}"
    parts = [f"{record['id']}: {seconds_text(record['sides'][0]['median_s'])}"]
    parts += [f"{pair['rival']} {ratio_text(pair)} {pair['verdict']}" for pair in record["pairs"]]
    if record["limit"] and record["limit"]["fraction"]:
        parts.append(f"{record['limit']['fraction']:.0%} of the limit")
    return "; ".join([*parts, f"noise {noise_text(record['noise'])}"])


def markdown_table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]


def group_tables(records: list[Record]) -> list[str]:
    """A heading and a table for each group that has a record, in the order of GROUPS."""
    lines: list[str] = []
    for group, heading in GROUPS.items():
        chosen = [record for record in records if record["group"] == group]
        if chosen:
            table = markdown_table(_PAIR_HEAD, (cells for record in chosen for cells in _pair_cells(record)))
            lines += [f"### {heading}", "", *table, "", *_footnotes(chosen)]
    return lines


def _pair_cells(record: Record) -> list[list[str]]:
    """One line for each rival; what belongs to the row stands on the first."""
    own, *others = record["sides"]
    times = {side["name"]: seconds_text(side["median_s"]) for side in others}
    head = [f"`{record['id']}`", record["what"], f"{own['name']}: {times_text(record)}"]
    tail = [_limit_text(record), noise_text(record["noise"])]
    pairs = [[pair["rival"], times[pair["rival"]], pair_text(pair)] for pair in record["pairs"]]
    first, *more = pairs or [["", "", ""]]
    return [[*head, *first, *tail], *(["", "", "", *pair, "", ""] for pair in more)]


def times_text(record: Record) -> str:
    """Median with the deciles, and the throughput where a call does more than one thing."""
    own = record["sides"][0]
    text = f"{seconds_text(own['median_s'])} ({seconds_text(own['p10_s'])} to {seconds_text(own['p90_s'])})"
    if record["items"] != 1:
        rate = record["items"] / own["median_s"]
        text += f", {rate:,.0f} {record['unit']}/s" if rate >= 100 else f", {rate:.3g} {record['unit']}/s"
    return text


def _limit_text(record: Record) -> str:
    limit = record["limit"]
    if not limit:
        return ""
    if limit["fraction"] is None:
        return f"floor {seconds_text(limit['floor_s'])} from memory; {record['cache']['mode']}"
    doubt = " (the ceiling was measured too low)" if limit["fraction"] > 1 else ""
    return f"{limit['fraction']:.0%}, {seconds_text(limit['floor_s'])}{doubt}"


def _footnotes(records: list[Record]) -> list[str]:
    """What a reader has to know of single rows: rivals that were not there, memory left warm, rounds lost."""
    notes = []
    for record in records:
        parts = [f"without {name} ({reason})" for name, reason in sorted(record["absent"].items())]
        if record["cache"]["mode"] == "partly cold":
            parts.append(f"{record['cache']['sets']} sets of inputs do not fill the cache")
        if record["rejected"]:
            why = "the clock moved" if record["device"] == "cuda" else "other work had the core"
            parts.append(f"{record['rejected']} rounds left out, {why}")
        if record["shared"]:
            parts.append(
                f"other work had the core in {record['shared']} of {record['rounds']} rounds: measure again"
            )
        parts += [f"{name} {value:g}" for name, value in sorted(record["figures"].items())]
        if parts:
            notes.append(f"- `{record['id']}`: {'; '.join(parts)}.")
    return [*notes, ""] if notes else []


def headline_table(records: list[Record]) -> list[str]:
    """The README's table."""
    rows = [
        [record["what"], seconds_text(record["sides"][0]["median_s"]), pair["rival"], headline_ratio(pair)]
        for record in records
        for pair in record["pairs"]
    ]
    return markdown_table(["what", "fastpose", "against", "times as fast [95 %]"], rows)


def headline_ratio(pair: Record) -> str:
    return ratio_text(pair) + ("" if pair["verdict"] == FASTER else f", {pair['verdict']}")


def summary(records: list[Record]) -> str:
    """How often the candidate wins, loses and draws."""
    verdicts = [pair["verdict"] for record in records for pair in record["pairs"]]
    won, level = verdicts.count(FASTER), verdicts.count(NO_DIFFERENCE)
    unknown = verdicts.count(UNDECIDED)
    lost = len(verdicts) - won - level - unknown
    text = f"{len(records)} rows, {len(verdicts)} pairs: {won} faster, {lost} slower, {level} no difference"
    return f"{text}, {unknown} undecided." if unknown else f"{text}."
