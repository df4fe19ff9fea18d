"""The learning curve of a run as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.errors import DataError
from fastpose.files import make_folder, write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = ("accuracy", "AP", "Mean", "PCK@0.2")  # a data set has one of the last three as its headline
COLORS = {"AP": "#0072b2", "accuracy": "#e69f00"}
LOSS_COLOR, GREY = "#b03a2e", "#8a8a8a"
LOG_SPAN = 10.0  # a loss that falls further than this many times is drawn on a logarithmic axis


def plot_curves(results_csv: str | Path, out_png: str | Path) -> None:
    """Draws loss (above) and scores (below) against the epoch, and marks where the learning rate drops.

    results_csv: the columns epoch, lr, loss, seconds, images_per_second and those of SCORES that the run
    has; other columns are not drawn, and a score that passes 1 is a percentage. Blank fields are left out; of
    an epoch that appears twice (a resumed run) the last row counts. Raises DataError for a file that is
    missing, not a table or without one epoch, OutputError when the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results_csv, out_png = Path(results_csv), Path(out_png)
    table = read_results(results_csv)
    figure = Figure(figsize=(8, 6.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(2, 1, sharex=True)
    _draw_loss(losses, table)
    _draw_scores(scores, table)
    _mark_lr_drops((losses, scores), table)
    scores.set_xlabel("epoch")
    figure.suptitle(_heading(results_csv, table), fontsize=11, color="#333333")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    make_folder(out_png.parent)
    write_atomic(out_png, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def read_results(path: Path) -> dict[str, np.ndarray]:
    """Columns of a results.csv as float64 by epoch, blanks as nan; DataError as `plot_curves` says."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = [name for name in reader.fieldnames or [] if name]
            rows = {row["epoch"]: row for row in _numbers(path, reader, names)} if "epoch" in names else {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a table of results: {error}") from error
    if not rows:
        raise DataError(f"{path}: holds no finished epoch; expected columns epoch, lr, loss, accuracy, AP")
    ordered = [rows[epoch] for epoch in sorted(rows)]
    return {name: np.array([row[name] for row in ordered]) for name in names}


def _numbers(path: Path, reader: csv.DictReader[str], names: list[str]) -> Iterator[dict[str, float]]:
    """The rows that have an epoch, as numbers."""
    for row in reader:
        try:
            numbers = {name: float(row[name] or "nan") for name in names}
        except ValueError as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from error
        if np.isfinite(numbers["epoch"]):
            yield numbers


def _draw_loss(axes: Axes, table: dict[str, np.ndarray]) -> None:
    epoch = table["epoch"]
    loss = table.get("loss", np.full(len(epoch), np.nan))
    known = np.isfinite(loss)
    axes.plot(epoch[known], loss[known], color=LOSS_COLOR, **_marks(known))
    if known.any() and loss[known].min() > 0 and loss[known].max() > LOG_SPAN * loss[known].min():
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    axes.set_ylabel("training loss")
    _clean(axes, epoch)


def _draw_scores(axes: Axes, table: dict[str, np.ndarray]) -> None:
    epoch = table["epoch"]
    for name in (name for name in SCORES if name in table):
        known = np.isfinite(table[name])
        if not known.any():
            continue
        percent = table[name][known].max() > 1
        values = table[name][known] / (100 if percent else 1)
        best = int(values.argmax())
        at = epoch[known][best]
        label = f"{name}{' / 100' if percent else ''}, best {values[best]:.3f} at epoch {at:g}"
        (line,) = axes.plot(epoch[known], values, label=label, color=COLORS.get(name), **_marks(known))
        axes.plot(at, values[best], "o", markersize=9, fillstyle="none", color=line.get_color())
    if axes.lines:
        axes.legend(loc="lower right", facecolor="white", edgecolor="none", framealpha=0.9)
    axes.set_ylim(-0.02, 1.04)
    axes.set_ylabel("score")
    _clean(axes, epoch)


def _marks(known: np.ndarray) -> dict[str, Any]:
    """Dots at the epochs while they are few enough to tell apart (a single one has no line at all)."""
    return {"marker": "o" if known.sum() <= 40 else "", "markersize": 3.5, "linewidth": 1.6}


def _mark_lr_drops(panels: tuple[Axes, Axes], table: dict[str, np.ndarray]) -> None:
    """Dotted lines where a learning rate that goes by steps falls to half or less, with the new rate."""
    if "lr" not in table:
        return
    epoch, lr = table["epoch"], table["lr"]
    if (lr[1:] != lr[:-1]).sum() > len(lr) / 2:  # a smooth schedule
        return
    for row in np.flatnonzero(lr[1:] <= 0.5 * lr[:-1]) + 1:
        for axes in panels:
            axes.axvline(epoch[row], color=GREY, linestyle=":", linewidth=1)
        panels[0].annotate(
            f"lr {lr[row]:.2g}", (epoch[row], 1), xycoords=("data", "axes fraction"), xytext=(-3, -3),
            textcoords="offset points", ha="right", va="top", fontsize=8, color=GREY,
        )  # fmt: skip


def _clean(axes: Axes, epoch: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    margin = max(0.5, 0.02 * float(np.ptp(epoch)))
    axes.set_xlim(epoch[0] - margin, epoch[-1] + margin)


def _heading(path: Path, table: dict[str, np.ndarray]) -> str:
    """The run's folder, and its speed where the table tells it."""
    heading = path.resolve().parent.name
    speed = table.get("images_per_second", np.empty(0))
    seconds = table.get("seconds", np.empty(0))
    if np.isfinite(speed).any():
        heading += f"   ·   {np.nanmedian(speed):.0f} images/s"
    if np.isfinite(seconds).any():
        heading += f"   ·   {np.nansum(seconds) / 60:.1f} min of training"
    return heading
