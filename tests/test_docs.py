"""The documents point at files that exist and at options that the command has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_option_in_the_documents_exists():
    used: dict[str, set[str]] = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for verb, rest in re.findall(r"^(?:\$ )?fastpose (\w+)(.*)$", text, re.MULTILINE):
            used.setdefault(verb, set()).update(re.findall(r"(?<=\s)--[a-z-]+", rest.split("#")[0]))
    assert {"train", "val", "predict"} <= set(used)
    for verb, options in used.items():
        command = [sys.executable, "-m", "fastpose", verb, "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert not [option for option in options if option not in text], verb


def test_settings_in_the_documents_exist():
    from fastpose.train.settings import describe_settings

    known = {line.split("=")[0] for line in describe_settings().splitlines()}
    known |= {name.rpartition(".")[0] for name in known} | {"model.meta"}
    for page in PAGES:
        named = re.findall(
            r"`((?:model|data|augment|segmentation|train|val|run)\.[\w.]+)(?:=[^`]*)?`", page.read_text()
        )
        files = (".py", ".json", ".yaml", ".md")
        assert not [name for name in named if name not in known and not name.endswith(files)], page
