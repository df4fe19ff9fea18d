"""Figures of a training step that are exact without a GPU, held against those in gates.json.

`python -m bench.gates` compares, `--update` writes the file anew. Fewer is better for all of them:

- operators: what PyTorch launches in eager mode, views and allocations left out; forward, backward, and a
  whole step with loss, accuracy and optimizer. `layers` is the network as its modules say, `kernels` the one
  that runs on a GPU; an operation of `fastpose.ops` is one operator, and counted once more as one of `calls`.
- saved bytes: what autograd keeps for the backward pass of a batch of 2 in float32, without parameters.
- graph breaks: how often torch.compile leaves the graph. Of the smallest network only: the three run the same
  code, and tracing takes a third of a minute for each of the larger ones.
- bytes of an image in bfloat16 and kernels under the schemes of `bench.roofline`, and multiply-adds.

How many kernels Inductor generates is a figure for a GPU row: on a CPU it takes minutes to compile them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from bench.counting import MODELS, Figures, measure

BASELINE = Path(__file__).with_name("gates.json")
REMEDY = "update with `python -m bench.gates --update` and say why in the commit"


class Change(NamedTuple):
    """A figure that is not what it was; None where there was none, or is none any more."""

    model: str
    figure: str
    before: int | None
    after: int | None
    note: str = ""

    @property
    def worse(self) -> bool:
        return self.before is None or self.after is None or self.after > self.before

    def __str__(self) -> str:
        before, after = ("nothing" if n is None else n for n in (self.before, self.after))
        return f"{self.model}: {self.figure}: before {before}, after {after}, {REMEDY}{self.note}"


class Baseline(NamedTuple):
    """model -> figure -> value, and the version of torch that gave them."""

    torch: str
    figures: Mapping[str, Figures]


def compare(before: Baseline, after: Mapping[str, Figures]) -> list[Change]:
    """All differences, by model and figure; only the models in `after` are looked at."""
    changes = []
    version = _torch_version()
    note = "" if version == before.torch else f" (the baseline is of torch {before.torch}, this is {version})"
    for model, figures in after.items():
        known = before.figures.get(model, {})
        for figure in sorted({*known, *figures}):
            if known.get(figure) != figures.get(figure):
                changes.append(Change(model, figure, known.get(figure), figures.get(figure), note))
    return changes


def read_baseline(path: Path = BASELINE) -> Baseline:
    """The committed figures; none where there is no such file."""
    if not path.exists():
        return Baseline(_torch_version(), {})
    return Baseline(**json.loads(path.read_text()))


def write_baseline(figures: Mapping[str, Figures], path: Path = BASELINE) -> None:
    content = Baseline(_torch_version(), figures)._asdict()
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _torch_version() -> str:
    return torch.__version__.split("+")[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--update", action="store_true", help="take what is measured as the new baseline")
    options = parser.parse_args(arguments)
    after = {model: measure(model) for model in MODELS}
    changes = compare(read_baseline(BASELINE), after)
    for change in changes:
        print(f"{'worse' if change.worse else 'better'}: {change}")
    if options.update:
        write_baseline(after, BASELINE)
        print(
            f"wrote {BASELINE.name}: {sum(map(len, after.values()))} figures, {len(changes)} of them changed"
        )
        return 0
    if not changes:
        print("every figure is what it was")
    return int(any(change.worse for change in changes))


if __name__ == "__main__":
    sys.exit(main())
