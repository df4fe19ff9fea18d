"""Results files: written after every row, so that a run cut short still counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.fingerprint import differences
from bench.schema import SCHEMA, SchemaError, check_results
from fastpose.files import make_folder, write_text

_FLAT = re.compile(r"\[\s+([-+\d.eE,\s]+?)\s+\]")  # a list of numbers takes one line, not one for each


class FingerprintError(ValueError):
    """Results of different machines or software meet; the text names the fields."""


def read_results(path: Path) -> dict[str, Any]:
    """A results file.

    Raises:
        SchemaError: it cannot be read, or is not one.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: cannot be read as results: {error}") from error
    check_results(results, str(path))
    return results


def dump_results(results: dict[str, Any]) -> str:
    text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False)
    return _FLAT.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def require_same_machine(left: dict[str, Any], right: dict[str, Any], what: str) -> None:
    """FingerprintError naming the fields in which two results files differ."""
    found = differences(left["machine"], right["machine"])
    if found:
        raise FingerprintError(
            f"{what}: not the same machine and software, so nothing to compare: {'; '.join(found)}"
        )


class Recorder:
    """Adds rows to one file, a row measured again in place of its former result.

    Raises:
        SchemaError: the file is there and is not one of results.
        FingerprintError: it holds results of another machine.
    """

    def __init__(self, path: Path, machine: dict[str, Any]) -> None:
        self.path, self._machine = path, machine
        make_folder(path.parent)
        self._load()

    def has(self, identity: str, source: str) -> bool:
        """Whether the row was measured with the same sources."""
        return any(
            row["id"] == identity and row["status"] == "measured" and row["code"]["source"] == source
            for row in self._load()["rows"]
        )

    def add(self, row: dict[str, Any]) -> None:
        """Writes the file anew with the row in it, after a look at what is there by now."""
        results = self._load()
        results["rows"] = [other for other in results["rows"] if other["id"] != row["id"]] + [row]
        check_results(results, str(self.path))
        write_text(self.path, dump_results(results))

    def _load(self) -> dict[str, Any]:
        mine = {"schema": SCHEMA, "machine": self._machine, "rows": []}
        if not self.path.exists():
            return mine
        results = read_results(self.path)
        require_same_machine(results, mine, f"{self.path}: choose another file with --results")
        return results


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
