"""docs/api is what docs/make_api.py writes now, and says what the docstrings say."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def make_api():
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(make_api, capsys):
    assert make_api.main(["--check"]) == 0, f"run `python docs/make_api.py`; stale: {capsys.readouterr().out}"


def test_a_stale_page_and_a_left_over_one_are_named(make_api, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_api, "API", tmp_path)
    monkeypatch.setattr(make_api, "PAGES", {"fastpose.errors": ("fastpose.errors",)})
    assert make_api.main([]) == 0
    assert make_api.main(["--check"]) == 0
    page = tmp_path / "fastpose.errors.md"
    page.write_text(page.read_text().replace("ConfigError", "ConfError"))
    (tmp_path / "old.md").write_text("")
    capsys.readouterr()
    assert make_api.main(["--check"]) == 1
    assert capsys.readouterr().out.split() == ["fastpose.errors.md", "old.md"]


def test_every_public_name_is_on_its_page():
    import fastpose.models

    text = (DOCS / "api" / "fastpose.models.md").read_text()
    classes_and_functions = [n for n in fastpose.models.__all__ if n != "Meta"]
    assert [name for name in classes_and_functions if f"### {name}\n" not in text] == []


def test_a_docstring_becomes_markdown(make_api):
    def function(a: int, /, b: str = "x", *rest: int, c: float, **more: object) -> None:
        """What it does.

        Args:
            a: the first,
                on two lines.
            b, c: two.

        Afterwards.
        """

    entry = make_api._tree(function)
    arguments = ["a: int", "/", "b: str = 'x'", "*rest: int", "c: float", "**more: object"]
    assert make_api._signature(entry) == (arguments, " -> None")
    listed = ["*Args:*", "", "- `a`: the first,", "  on two lines.", "- `b, c`: two."]
    assert make_api._prose(function.__doc__) == ["What it does.", "", *listed, "", "Afterwards."]


def test_names_that_pages_and_examples_tell_to_import_are_documented():
    """Of `from fastpose... import NAME` in docs and examples, functions and classes have an entry."""
    import importlib
    import inspect
    import re

    texts = [*DOCS.glob("*.md"), *(DOCS.parent / "examples").glob("*.py")]
    entries = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    missing = set()
    for path in texts:
        for module, names in re.findall(r"^from (fastpose[\w.]*) import ([\w, ]+)$", path.read_text(), re.M):
            for name in names.replace(" ", "").split(","):
                value = getattr(importlib.import_module(module), name, None)
                named = inspect.isfunction(value) or inspect.isclass(value)
                if named and f"### {name}\n" not in entries:
                    missing.add(f"{path.name}: {module}.{name}")
    assert not missing
