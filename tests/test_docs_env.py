"""docs/env.md has the environment variables that the code reads, and no others."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "env.md").read_text()
NAMED = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", PAGE))
VALUES = {"AUTO", "ON", "OFF", "SHA"}
OF_OTHERS = {"PATH", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES"}
"""The system's, and those that only libraries read."""
PACKAGE = list((ROOT / "fastpose").rglob("*.py"))
AROUND = [ROOT / "setup.py", *(ROOT / "bench").glob("*.py")]


def read_at_once(source: str) -> set[str]:
    """Names in environ.get("NAME"), environ["NAME"] and the like."""
    return set(re.findall(r"""environ(?:\.\w+\(|\[)\s*["'](\w+)["']""", source))


def capital_strings(source: str) -> set[str]:
    """Strings that look like names of variables, in a file that talks to the environment in any way."""
    if not re.search(r"\b(environ|getenv)\b", source):
        return set()
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {text for text in constants if isinstance(text, str) and re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", text)}


def test_every_variable_that_is_read_is_on_the_page():
    read = set().union(*(capital_strings(path.read_text()) for path in PACKAGE))
    read |= set().union(*(read_at_once(path.read_text()) for path in AROUND))
    assert {"FASTPOSE_BACKEND", "FASTPOSE_CUDA", "BENCH_COMMIT", "LOCAL_RANK"} <= read
    assert sorted(read - NAMED - VALUES - OF_OTHERS) == []


def test_every_variable_on_the_page_is_known_to_the_code():
    places = [*PACKAGE, *AROUND, *(ROOT / "tests").rglob("*.py"), ROOT / "Makefile", ROOT / "CMakeLists.txt"]
    text = "\n".join(path.read_text() for path in places if path.name != Path(__file__).name)
    assert [name for name in sorted(NAMED - VALUES - OF_OTHERS) if not re.search(rf"\b{name}\b", text)] == []
