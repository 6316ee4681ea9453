"""docs/troubleshooting.md quotes messages that the code has; a gap on either side stands for any part of the other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESSAGES = re.findall(r"^\*\*`(.+)`\*\*$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
GAP = "..."
FIXED = 15  # characters outside of gaps, fewer would be found everywhere


def texts_of(source: str) -> Iterator[str]:
    """Every text of a program as it would be written on the page, each expression in it as a gap."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)


def fits(pattern: str, text: str) -> bool:
    """Whether a text is the pattern, whose gaps stand for any part of it."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split(GAP))), text, re.DOTALL) is not None


def is_quoted_from(message: str, text: str) -> bool:
    """Whether a text of the code is the message: the page may leave out more, or name what the code fills in."""
    return fits(message, text) or (GAP in text and has_enough_fixed(text) and fits(text, message))


def has_enough_fixed(pattern: str) -> bool:
    return len(pattern.replace(GAP, "")) >= FIXED


@pytest.fixture(scope="module")
def texts() -> list[str]:
    sources = sorted((ROOT / "gte_sdk").rglob("*.py"))
    of_the_build = re.findall(r'FATAL_ERROR "(.+)"', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    return of_the_build + [text for source in sources for text in texts_of(source.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message: str, texts: list[str]) -> None:
    assert has_enough_fixed(message), "too little to be found by"
    assert any(is_quoted_from(message, text) for text in texts), message


def test_the_page_has_messages_and_gaps_are_compared() -> None:
    assert len(MESSAGES) > 30
    (text,) = (text for text in texts_of('f"k={k!r} exceeds {n} documents"') if "exceeds" in text and GAP in text)
    assert is_quoted_from("k=... exceeds ... documents", text)
    assert is_quoted_from("k=7 exceeds ... documents", text)
    assert not is_quoted_from("k=... is above ... documents", text)
    assert not is_quoted_from("anything at all", GAP)
    assert not is_quoted_from("k=... exceeds ... documents; lower it", text)
