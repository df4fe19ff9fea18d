"""The documents point at files that exist and at settings that a configuration has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_settings_in_the_documents_exist():
    from fastpose.train.settings import describe_settings

    known = {line.split("=")[0] for line in describe_settings().splitlines()}
    known |= {name.rpartition(".")[0] for name in known} | {"model.meta"}
    for page in (page for page in PAGES if page.parent.name != "api"):
        named = re.findall(
            r"`((?:model|data|augment|segmentation|train|val|run)\.[\w.]+)(?:=[^`]*)?`", page.read_text()
        )
        files = (".py", ".json", ".yaml", ".md")
        assert not [name for name in named if name not in known and not name.endswith(files)], page
