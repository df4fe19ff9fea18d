"""docs/models.md, and the same as a table for a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fastpose.models.costs import describe
from fastpose.models.published import CONVENTIONS, PUBLISHED
from fastpose.models.registry import list_models
from fastpose.train.config_io import list_configs, load_config

HEAD = """\
# Models

Written by `fastpose models --markdown`; `tests/train/test_train_models_page.py` fails when it is out of date.

Parameters and multiply-adds (MAC) are counted from the networks at their default input and outputs. The
"GFLOPs" of the HRNet papers are MACs / 2^30, and those of SimpleBaseline count transposed convolutions four
times over, so they differ. Configurations of `samples/` stand where a network has no published one. fastpose
ships no weights; official checkpoints load by name and shape, and `fastpose parity` tells what yours compute.

| network | input | M parameters | GMAC | outputs | configurations |
|---|---|---|---|---|---|
"""
SCORES = """
## Published scores, and what was verified here

No published weights and no whole data set were at hand where this was written: a score below is that of the
original, in its own convention, and can be compared within that one only. The last column says what was shown
about the code here. `fastpose parity CONFIG CHECKPOINT --data` scores a checkpoint in every convention.

{legend}

| network | original | licence | published | verified here |
|---|---|---|---|---|
"""
OWN = "no original with weights; shapes, gradients and training"


@dataclass(frozen=True)
class Row:
    """A network at its default input and outputs."""

    name: str
    size: str
    parameters: int
    macs: int
    outputs: str
    configs: tuple[str, ...]


def model_rows(names: Sequence[str]) -> list[Row]:
    configs = _configs_by_model()
    rows = []
    for name in names:
        model, parameters, macs = describe(name)
        width, height = model.meta.input_size
        found = tuple(configs.get(name, ()))
        rows.append(Row(name, f"{width}x{height}", parameters, macs, model.meta.counted, found))
    return rows


def models_page(names: Sequence[str]) -> str:
    """Markdown: costs and configurations, then published scores with source, licence and what was shown."""
    lines = [
        f"| `{row.name}` | {row.size} | {row.parameters / 1e6:.2f} | {row.macs / 1e9:.2f} | {row.outputs} | "
        f"{', '.join(f'`{config}`' for config in row.configs)} |"
        for row in model_rows(names)
    ]
    scores = []
    for name in names:
        origin = PUBLISHED.get(name)
        if origin is None:
            scores.append(f"| `{name}` |  |  |  | {OWN} |")
            continue
        published = "; ".join(f"{s.convention} {s.value} at {s.size}" for s in origin.scores)
        scores.append(
            f"| `{name}` | {origin.repository} | {origin.licence} | {published} | {origin.verified} |"
        )
    legend = "\n".join(f"- {name}: {meaning}." for name, meaning in CONVENTIONS.items())
    return HEAD + "\n".join(lines) + "\n" + SCORES.format(legend=legend) + "\n".join(scores)


def models_table(names: Sequence[str]) -> str:
    """For a terminal; the configurations of each network are counted, and named where it is the only one."""
    wide = max(map(len, names), default=0)
    lines = [
        f"{'network':{wide}}  {'input':>9}  {'M param.':>8}  {'GMAC':>7}  {'outputs':>10}  configurations"
    ]
    rows = model_rows(names)
    for row in rows:
        configs = " ".join(row.configs) if len(rows) == 1 else str(len(row.configs) or "")
        lines.append(
            f"{row.name:{wide}}  {row.size:>9}  {row.parameters / 1e6:8.2f}  {row.macs / 1e9:7.2f}  "
            f"{row.outputs:>10}  {configs}".rstrip()
        )
    return "\n".join(lines)


def write_page() -> str:
    """The page of all networks, as it should stand in docs/models.md."""
    return models_page(list_models()) + "\n"


def _configs_by_model() -> dict[str, list[str]]:
    """The published configurations of each network, and where it has none those of the samples."""
    published: dict[str, list[str]] = defaultdict(list)
    samples: dict[str, list[str]] = defaultdict(list)
    for name in list_configs():
        found = samples if name.startswith("samples/") else published
        found[load_config(name, ["data.root=."]).model.name].append(name)
    return samples | published
