"""Writes docs/api/*.md from docstrings and signatures: `python docs/make_api.py`; `--check` only compares."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

API = Path(__file__).resolve().parent / "api"

PAGES: dict[str, tuple[str, ...]] = {
    "fastpose": ("fastpose",),
    "fastpose.models": ("fastpose.models",),
    "fastpose.ops": ("fastpose.ops",),
    "fastpose.data": ("fastpose.data", "fastpose.data.check", "fastpose.data.figures"),
    "fastpose.metrics": (
        "fastpose.metrics.oks",
        "fastpose.metrics.coco_eval",
        "fastpose.metrics.pck",
        "fastpose.metrics.pckh",
        "fastpose.metrics.segmentation",
    ),
    "fastpose.infer": (
        "fastpose.infer.detectors",
        "fastpose.infer.results",
        "fastpose.infer.images_in",
        "fastpose.infer.forward",
        "fastpose.infer.batches",
        "fastpose.infer.evaluation",
        "fastpose.infer.draw",
        "fastpose.infer.track",
        "fastpose.infer.smooth",
        "fastpose.infer.video_out",
        "fastpose.infer.shards",
        "fastpose.infer.shard_run",
        "fastpose.infer.shard_output",
        "fastpose.infer.export.run",
        "fastpose.infer.engines_open",
    ),
    "fastpose.errors": ("fastpose.errors", "fastpose.keypoints", "fastpose.classes", "fastpose.codecs"),
}
"""Page -> modules. Of a module with `__all__` these names are public, of others those without underscore."""

WRITTEN = "Written by `docs/make_api.py` from the docstrings; a test fails when it is out of date."
WIDTH = 100
HEADINGS = ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:")


def main(arguments: list[str]) -> int:
    """Writes the pages; with --check only names those that are out of date and returns 1 if there are any."""
    pages = {f"{name}.md": page(name) for name in PAGES} | {"README.md": index()}
    stale = [name for name, text in pages.items() if not _same(API / name, text)]
    stale += [path.name for path in API.glob("*.md") if path.name not in pages]
    if "--check" in arguments:
        print("\n".join(stale))
        return int(bool(stale))
    API.mkdir(exist_ok=True)
    for path in API.glob("*.md"):
        path.unlink()
    for name, text in pages.items():
        (API / name).write_text(text)
    print(f"{len(pages)} pages in {API}")
    return 0


def index() -> str:
    """The page that lists the others."""
    rows = [f"| [{name}]({name}.md) | {', '.join(f'`{m}`' for m in PAGES[name])} |" for name in PAGES]
    return "\n".join(["# API", "", WRITTEN, "", "| page | modules |", "|---|---|", *rows, ""])


def page(name: str) -> str:
    """One page: a section for each module, in it functions and classes in the order of their names."""
    lines = [f"# {name}", "", WRITTEN, ""]
    for module in map(importlib.import_module, PAGES[name]):
        if len(PAGES[name]) > 1:
            lines += [f"## {module.__name__}", ""]
        lines += [*_prose(module.__doc__), ""]
        for public in public_names(module):
            lines += _entry(public, getattr(module, public))
    return "\n".join(lines)


def public_names(module: ModuleType) -> list[str]:
    """Names of functions and classes that a module offers, sorted."""
    if hasattr(module, "__all__"):
        names = [name for name in module.__all__ if _documented(getattr(module, name))]
    else:
        own = vars(module).items()
        names = [n for n, v in own if n[0] != "_" and _documented(v) and v.__module__ == module.__name__]
    return sorted(names, key=lambda name: (name.lower(), name))


def _documented(value: Any) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and bool(value.__doc__)


def _entry(name: str, value: Any) -> list[str]:
    tree = _tree(value)
    shown = _broken(name, *_signature(tree))
    if isinstance(tree, ast.ClassDef):
        shown = f"class {shown}"
        if issubclass(value, Exception):
            shown = f"class {name}({', '.join(map(ast.unparse, tree.bases))})"
    lines = [f"### {name}", "", "```text", shown, "```", "", *_prose(value.__doc__), ""]
    if isinstance(tree, ast.ClassDef):
        for part in (tree, *map(_tree, _bases_without_page(value))):
            lines += [line for member in part.body for line in _member(member)]
    return lines


def _member(node: ast.stmt) -> list[str]:
    if not (isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and _public(node)):
        return []
    arguments, result = _signature(node, drop=1)
    call = "" if _is_property(node) else f"({', '.join(arguments)})"
    return [f"**`.{node.name}{call}{result}`**", "", *_prose(ast.get_docstring(node)), ""]


def _bases_without_page(value: type) -> list[type]:
    """Our classes that it inherits from and that no page tells of."""
    modules = [importlib.import_module(name) for names in PAGES.values() for name in names]
    return [
        base
        for base in value.__mro__[1:]
        if base.__module__.startswith("fastpose.")
        and not any(getattr(module, base.__name__, None) is base for module in modules)
    ]


def _broken(name: str, arguments: list[str], result: str) -> str:
    """A signature on one line, or with a line for each argument where that is too long."""
    short = f"{name}({', '.join(arguments)}){result}"
    return (
        short
        if len(short) <= WIDTH
        else "\n    ".join([f"{name}(", *(f"{a}," for a in arguments)]) + f"\n){result}"
    )


def _tree(value: Any) -> ast.FunctionDef | ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        raise TypeError(f"{value}: expected a def or class, got {type(node).__name__}")
    return node


def _signature(node: ast.FunctionDef | ast.ClassDef, *, drop: int = 0) -> tuple[list[str], str]:
    """Arguments and ` -> result`; of a class those of its __init__, or its annotated fields."""
    if isinstance(node, ast.FunctionDef):
        return _arguments(node.args)[drop:], f" -> {ast.unparse(node.returns)}" if node.returns else ""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _signature(member, drop=1)[0], ""
    return [ast.unparse(member) for member in node.body if isinstance(member, ast.AnnAssign)], ""


def _arguments(given: ast.arguments) -> list[str]:
    """Each argument as it is written, `*` and `/` among them."""
    places = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(places) - len(given.defaults)) + given.defaults
    shown = [_argument(*pair) for pair in zip(places, defaults, strict=True)]
    if given.posonlyargs:
        shown.insert(len(given.posonlyargs), "/")
    if given.vararg:
        shown.append("*" + ast.unparse(given.vararg))
    elif given.kwonlyargs:
        shown.append("*")
    shown += [_argument(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*shown, "**" + ast.unparse(given.kwarg)] if given.kwarg else shown


def _argument(name: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(name) + (f" = {ast.unparse(default)}" if default else "")


def _is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(line) in ("property", "cached_property") for line in node.decorator_list)


def _public(node: ast.FunctionDef) -> bool:
    return node.name == "__call__" or not node.name.startswith("_")


def _prose(docstring: str | None) -> list[str]:
    """A docstring as Markdown: its headed lists of arguments become bulleted lists."""
    lines: list[str] = []
    within = False
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line in HEADINGS:
            within = True
            lines += [f"*{line}*", ""]
        elif within and line.startswith("    "):
            named = re.match(r"    (\*{0,2}\w[\w, ]*): (.*)", line)
            lines.append(f"- `{named[1]}`: {named[2]}" if named else f"  {line.strip()}")
        else:
            within = within and not line
            lines.append(line)
    return lines


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
