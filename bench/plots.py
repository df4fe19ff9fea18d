"""Plots of measured rows as PNG; only for what there is."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.fingerprint import slug
from bench.tables import Record, rate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a")
FLOOR_COLOR = "#b03a2e"
PANELS = 3  # side by side
ONE_ROOF = 1.5
"""Ratio of two measured peaks below which they are one dtype's."""
NEAR = 0.08
"""Decades between two points below which their labels would overlap."""


@dataclass(frozen=True)
class Plot:
    """A picture; `machine` is the index of the results that it shows."""

    machine: int
    name: str
    title: str
    png: bytes


def draw_plots(machines: Sequence[tuple[dict[str, Any], list[Record]]]) -> list[Plot]:
    """Step times, speed by batch size and the roofline of each machine and device that has such rows."""
    plots = []
    kinds: tuple[tuple[str, str, Callable[..., bool]], ...] = (
        ("steps", "time of a training step", _draw_steps),
        ("batches", "speed by batch size", _draw_batches),
        ("roofline", "distance to the limit", _draw_roofline),
    )
    for index, (fields, records) in enumerate(machines):
        for device in ("cuda", "cpu"):
            chosen = [record for record in records if record["device"] == device]
            where = str(fields["gpu"] if device == "cuda" else fields["cpu"])
            for kind, title, draw in kinds:
                png = _render(f"{title}, {where}", partial(draw, records=chosen))
                if png:
                    name = f"bench_{kind}_{device}_{slug(fields)}.png"
                    plots.append(Plot(index, name, f"{title}, {where}", png))
    return plots


def _render(title: str, draw: Callable[[Figure], bool]) -> bytes:
    """The picture, or nothing where `draw` finds nothing to show. The same records give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if not draw(figure):
        return b""
    figure.suptitle(title, fontsize=11, color="#333333")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_steps(figure: Figure, records: list[Record]) -> bool:
    """Bars of every side's median, row by row, with the floor as a line across the row."""
    steps = [record for record in records if record["axes"].get("pass") == "step"]
    if not steps:
        return False
    figure.set_size_inches(max(6.0, 1.5 * len(steps)), 5.4)
    axes = figure.subplots()
    floored = [record for record in steps if record["limit"]]
    names = list(dict.fromkeys(side["name"] for record in steps for side in record["sides"]))
    for place, record in enumerate(steps):
        sides = record["sides"]
        for offset, side in enumerate(sides):
            x = place + 0.8 * ((offset + 0.5) / len(sides) - 0.5)
            label = side["name"] if record is _first_with(steps, side["name"]) else None
            height, color = side["median_s"] * 1e3, COLORS[names.index(side["name"]) % len(COLORS)]
            axes.bar(x, height, width=0.75 / len(sides), color=color, label=label)
            axes.annotate(f"{height:.3g}", (x, height), ha="center", va="bottom", fontsize=7)
        if record["limit"]:
            floor, label = record["limit"]["floor_s"] * 1e3, "floor" if record is floored[0] else ""
            axes.hlines(floor, place - 0.42, place + 0.42, color=FLOOR_COLOR, linewidth=2, label=label)
    axes.set_xticks(range(len(steps)), [_axes_text(record, "pass") for record in steps], fontsize=8)
    axes.set_ylabel("ms per step")
    _tidy(axes)
    _legend(figure)
    return True


def _draw_batches(figure: Figure, records: list[Record]) -> bool:
    """A panel for each network, size and pass that has more than one batch size; a line for each side."""
    families: dict[str, list[Record]] = {}
    for record in records:
        if "batch" in record["axes"]:
            families.setdefault(_axes_text(record, "batch"), []).append(record)
    families = {
        name: rows for name, rows in families.items() if len({row["axes"]["batch"] for row in rows}) > 1
    }
    if not families:
        return False
    across = min(len(families), PANELS)
    down = -(-len(families) // across)
    figure.set_size_inches(max(6.0, 4.0 * across), 3.4 * down + 0.8)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    names = list(dict.fromkeys(s["name"] for rows in families.values() for row in rows for s in row["sides"]))
    for axes, (family, rows) in zip(panels, families.items(), strict=False):
        _draw_family(axes, rows, names)
        axes.set_title(family.replace("\n", ", "), fontsize=9)
    for axes in panels[len(families) :]:
        axes.remove()
    _legend(figure)
    return True


def _draw_family(axes: Axes, rows: list[Record], names: list[str]) -> None:
    for name, color in zip(names, itertools.cycle(COLORS), strict=False):
        points = sorted(
            (row["axes"]["batch"], row["items"] / side["median_s"])
            for row in rows for side in row["sides"] if side["name"] == name
        )  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=name)
    batches = sorted({row["axes"]["batch"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch")
    axes.set_ylabel(f"{rows[0]['unit']}/s")
    _tidy(axes)


def _draw_roofline(figure: Figure, records: list[Record]) -> bool:
    """Speed reached over operations per byte, under the roofs of the dtypes; without hot rows."""
    limits = [record for record in records if record["limit"] and record["limit"]["fraction"]]
    limits = [record for record in limits if record["limit"]["bytes"] and record["limit"]["flops"]]
    if not limits:
        return False
    axes = figure.subplots()
    intensity = [record["limit"]["flops"] / record["limit"]["bytes"] for record in limits]
    low, high = 10 ** math.floor(math.log10(min(intensity))), 10 ** math.ceil(math.log10(max(intensity) * 2))
    for (bandwidth, peak), style in zip(_roofs(limits), itertools.cycle(("-", "--", ":")), strict=False):
        edge = peak / bandwidth
        xs = [low, *([edge] if low < edge < high else []), high]
        ceilings = f"copy {rate_text(bandwidth, 'B/s')}, matrix product {rate_text(peak, 'FLOP/s')}"
        ys = [min(x * bandwidth, peak) for x in xs]
        axes.plot(xs, ys, style, color=FLOOR_COLOR, label=ceilings)
    groups = list(dict.fromkeys(record["id"].split("/")[0] for record in limits))
    points = [record["limit"]["flops"] / record["sides"][0]["median_s"] for record in limits]
    for x, y, record in zip(intensity, points, limits, strict=True):
        group = record["id"].split("/")[0]
        first = record is next(other for other in limits if other["id"].split("/")[0] == group)
        color = COLORS[groups.index(group) % len(COLORS)]
        axes.plot(x, y, "o", color=color, label=group if first else None)
    shares = [record["limit"]["fraction"] for record in limits]
    for (x, y), text in _labels(list(zip(intensity, points, strict=True)), shares):
        axes.annotate(text, (x, y), (5, 0), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("operations per second")
    _tidy(axes)
    _legend(figure)
    return True


def _roofs(limits: list[Record]) -> list[tuple[float, float]]:
    """(bytes/s, FLOP/s), the lowest peak first; peaks within `ONE_ROOF` of another are one dtype's, measured
    again, and the highest counts."""
    ceilings = [record["limit"]["ceilings"] for record in limits]
    pairs = sorted((c["flops_per_s"], c["copy_bytes_per_s"]) for c in ceilings)
    roofs: list[list[tuple[float, float]]] = []
    for pair in pairs:
        if roofs and pair[0] < ONE_ROOF * roofs[-1][0][0]:
            roofs[-1].append(pair)
        else:
            roofs.append([pair])
    return [(max(width for _, width in roof), max(peak for peak, _ in roof)) for roof in roofs]


def _labels(
    points: list[tuple[float, float]], shares: list[float]
) -> Iterator[tuple[tuple[float, float], str]]:
    """A place and a text for each point, or for those together whose texts would lie on each other."""
    together: list[tuple[tuple[float, float], list[str]]] = []
    for point, share in zip(points, shares, strict=True):
        text = f"{share:.0%}" if share >= 0.005 else "<1%"
        texts = next((texts for place, texts in together if _is_near(place, point)), None)
        if texts is None:
            together.append((point, [text]))
        elif text not in texts:
            texts.append(text)
    for place, texts in together:
        yield place, ", ".join(texts)


def _is_near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(abs(math.log10(one / other)) < NEAR for one, other in zip(a, b, strict=True))


def _tidy(axes: Axes) -> None:
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure) -> None:
    """One for all panels, below them; of sides that several panels have, the first counts."""
    found = {label: handle for axes in figure.axes[::-1]
             for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )


def _first_with(records: list[Record], name: str) -> Record:
    return next(record for record in records if any(side["name"] == name for side in record["sides"]))


def _axes_text(record: Record, without: str) -> str:
    """A row's axes one below the other; its device is the plot's."""
    return "\n".join(
        f"{k} {v}" if k == "batch" else str(v) for k, v in record["axes"].items() if k != without
    )
