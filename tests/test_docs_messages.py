"""docs/troubleshooting.md quotes messages that the code has, between double backticks."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"


def quoted_messages(text: str) -> list[str]:
    """What stands between double backticks."""
    return [message.strip() for message in re.findall(r"``(.+?)``(?!`)", text)]


@pytest.fixture(scope="module")
def code_strings() -> list[str]:
    """Every string of the package, what an f-string fills in being NUL."""
    found = []
    for path in (ROOT / "fastpose").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sd]", "\0", node.value))
    return found


def is_there(message: str, strings: list[str]) -> bool:
    parts = [re.escape(part) for part in message.split("…")]
    pattern = re.compile("[^\0]*\0.*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in strings)


def test_every_quoted_message_is_in_the_code(code_strings):
    messages = quoted_messages(PAGE.read_text())
    assert len(messages) > 25
    assert [message for message in messages if not is_there(message, code_strings)] == []


@pytest.mark.parametrize("message", ["GPU: none that torch can find", "…: broken json at row … column …"])
def test_a_message_that_nobody_prints_is_noticed(message, code_strings):
    assert not is_there(message, code_strings)
