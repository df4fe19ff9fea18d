"""Metrics as a table that fits a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpose.infer.evaluation import Evaluation

COLUMNS = 80
SPACE = "  "


def metric_table(metrics: Mapping[str, float], title: str) -> str:
    """The title, then the metrics' names above their values with three decimals, in the order of the mapping.

    COCO's ten figures (the order of hrnet lib/dataset/coco.py) and PCKh's joints each take one row of at
    most 80 columns; more metrics go on in further rows. A value that is not finite, or -1, which
    pycocotools gives when there is nothing to measure, is written n/a.
    """
    cells = [(name, _number(value)) for name, value in metrics.items()]
    lines = [title]
    names = values = ""
    for name, value in cells:
        width = max(len(name), len(value))
        if names and len(names) + len(SPACE) + width > COLUMNS:
            lines += [names, values, ""]
            names = values = ""
        space = SPACE if names else ""
        names += space + name.rjust(width)
        values += space + value.rjust(width)
    if names:
        lines += [names, values]
    return "\n".join(lines)


def evaluation_text(evaluation: Evaluation, title: str) -> str:
    """The metrics of an evaluation under the title, and a line for each class where it has classes."""
    if not evaluation.by_class:
        return metric_table(evaluation.metrics, title)
    means = {name: value for name, value in evaluation.metrics.items() if not name.startswith("IoU ")}
    return f"{metric_table(means, title)}\n\n{evaluation.by_class}"


def _number(value: float) -> str:
    return "n/a" if not math.isfinite(value) or value == -1 else f"{value:.3f}"
