"""Imports point one way, and `import fastpose` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A unit may import itself and units of lower rank.
RANK = {
    "errors": 0, "wording": 0, "keypoints": 0, "classes": 1, "codecs": 1, "_checks": 0, "_ext": 0, "_C": 0,
    "files": 1, "device": 1, "progress": 1, "backend": 1, "reference": 1, "kernels": 1,
    "ops": 2, "nn": 3, "models": 4, "data": 4, "metrics": 4, "infer": 5, "app": 6, "train": 6, "cli": 7,
    "__main__": 8, "__init__": 9,
}  # fmt: skip
SOURCES = sorted((ROOT / "fastpose").rglob("*.py"))
OWN_NAMES = {"fastpose", "kernels"}


def unit_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "fastpose").with_suffix("").parts
    return parts[0]


def imported_modules(path: Path) -> list[str]:
    """Dotted names of everything that a file imports, `from a import b` as a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imported_units(path: Path) -> set[str]:
    """Parts of fastpose that a file imports."""
    dotted = [name.split(".") for name in imported_modules(path)]
    return {parts[1] for parts in dotted if parts[0] == "fastpose" and len(parts) > 1 and parts[1] in RANK}


def test_every_unit_has_a_rank() -> None:
    assert {unit_of(path) for path in SOURCES} - {"__init__", "configs"} <= set(RANK)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    unit = unit_of(path)
    upward = {other for other in imported_units(path) if other != unit and RANK[other] >= RANK.get(unit, 2)}
    assert not upward, f"{unit} imports {sorted(upward)}"


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("fastpose/reference", {"torch", "fastpose.reference"}),
        ("kernels", {"torch", "triton", "fastpose.kernels"}),
    ],
    ids=["reference", "kernels"],
)
def test_plain_folders_import_little(folder: str, allowed: set[str]) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for name in imported_modules(path):
            known = name.split(".")[0] in sys.stdlib_module_names
            assert known or any(f"{name}.".startswith(f"{root}.") for root in allowed), f"{path}: {name}"


def test_nobody_imports_a_top_level_kernels() -> None:
    for path in SOURCES:
        assert "kernels" not in {name.split(".")[0] for name in imported_modules(path)}, path


def test_importing_fastpose_loads_nothing_heavy() -> None:
    heavy = "torch", "cv2", "triton", "numpy", "matplotlib"
    code = f"import sys, fastpose; print([m for m in {heavy} if m in sys.modules], fastpose.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["[]", "0.1.0"]


def test_the_package_offers_its_names() -> None:
    import fastpose
    from fastpose import backend
    from fastpose.train.engine.graph_step import GraphStep

    assert fastpose.backend_status is backend.backend_status
    assert fastpose.graph_step is GraphStep
    assert fastpose.set_backend is backend.set_backend
    with pytest.raises(AttributeError, match="no attribute 'set_bakend'"):
        fastpose.set_bakend  # noqa: B018 (the lookup is the test)
