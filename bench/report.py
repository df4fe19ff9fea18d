"""`python -m bench.report`: docs/benchmarks.md, plots and the README's block from bench/results/*.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.fingerprint import ROOT
from bench.page import PAGE, load_machines, page, readme_block
from bench.plots import draw_plots
from bench.rows import Row, all_rows
from bench.schema import SchemaError
from fastpose.files import make_folder, write_atomic

IMAGES = "docs/images"
OPEN, CLOSE = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def replace_block(text: str, block: str) -> str:
    """`text` with `block` between the markers; as it is where it has none.

    Raises:
        ValueError: only one of the markers is there, or they are in the wrong order.
    """
    counts = text.count(OPEN), text.count(CLOSE)
    if counts == (0, 0):
        return text
    start, end = text.find(OPEN), text.find(CLOSE)
    if counts != (1, 1) or end < start:
        raise ValueError(
            f"README.md: expected {OPEN} once and {CLOSE} once after it, got {counts[0]} and {counts[1]}"
        )
    return f"{text[: start + len(OPEN)]}\n{block}\n{text[end:]}"


def outputs(root: Path, rows: Mapping[str, Row], results: Path | None = None) -> dict[str, bytes]:
    """Every generated file, path below `root` -> content."""
    machines = load_machines(results or root / "bench" / "results")
    plots = draw_plots([(machine.fields, machine.measured(rows)) for machine in machines])
    files = {PAGE: page(machines, rows, plots).encode()} | {
        f"{IMAGES}/{plot.name}": plot.png for plot in plots
    }
    readme = root / "README.md"
    if readme.exists():
        files["README.md"] = replace_block(
            readme.read_text(encoding="utf-8"), readme_block(machines, rows)
        ).encode()
    return files


def stale(root: Path, files: Mapping[str, bytes]) -> list[str]:
    """Generated files that are missing, differ or are no longer made."""
    made = {f"{IMAGES}/{path.name}" for path in (root / IMAGES).glob("bench_*.png")}
    differing = [n for n, data in files.items() if not (root / n).exists() or (root / n).read_bytes() != data]
    return sorted({*differing, *(made - files.keys())})


def write(root: Path, files: Mapping[str, bytes]) -> list[str]:
    """Writes what differs, removes plots that are no longer made; the paths of both."""
    changed = stale(root, files)
    for name in changed:
        if name not in files:
            (root / name).unlink()
            continue
        make_folder((root / name).parent)
        write_atomic(root / name, partial(Path.write_bytes, data=files[name]))
    return changed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__.split(":", 1)[1].strip()
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    arguments = parser.parse_args(argv)
    try:
        files = outputs(ROOT, all_rows())
    except (SchemaError, ValueError) as error:
        print(f"bench.report: error: {error}", file=sys.stderr)
        return 2
    if OPEN.encode() not in files.get("README.md", b""):
        print(f"README.md has no {OPEN} ... {CLOSE}: left as it is")
    changed = stale(ROOT, files) if arguments.check else write(ROOT, files)
    print("\n".join(changed) or "nothing to change")
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
