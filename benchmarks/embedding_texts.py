"""The texts that benchmarks/embedding.py measures on: docstrings and source of Python's standard library."""

import ast
import random
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "lib2to3")


def queries(count: int) -> list[str]:
    """Short texts to be embedded one by one: beginnings of docstrings, at most 60 characters."""
    return [text.split(".")[0][:60] for text in mixed_documents(count, seed=2)]


def mixed_documents(count: int, seed: int = 1) -> list[str]:
    """Docstrings of 20 to 2,500 characters in random order; they come again where `count` is more than there are."""
    return _take([text for text in _docstrings() if 20 <= len(text) <= 2500], count, seed)


def long_documents(count: int) -> list[str]:
    """Pieces of 6,000 characters of prose, docstrings one after another: more than the models here read."""
    prose = "\n\n".join(mixed_documents(5000, seed=3))
    return [prose[start : start + 6000] for start in range(0, len(prose) - 6000, 6000)][:count]


def code(count: int) -> list[str]:
    """Functions with their comments and docstrings, 80 to 2,500 characters of source."""
    found = {
        text
        for source, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and 80 <= len(text := "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])) <= 2500
    }
    return _take(sorted(found), count, seed=4)


def _take(texts: list[str], count: int, seed: int) -> list[str]:
    shuffled = sorted(texts)
    random.Random(seed).shuffle(shuffled)
    return (shuffled * (count // len(shuffled) + 1))[:count]


@lru_cache(maxsize=1)
def _docstrings() -> frozenset[str]:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    return frozenset(
        ast.get_docstring(node) or "" for _, tree in _modules() for node in ast.walk(tree) if isinstance(node, kinds)
    )


def _modules() -> Iterator[tuple[str, ast.Module]]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if path.parent.name in _LEFT_OUT:
            continue
        try:
            source = path.read_text(encoding="utf-8")
            yield source, ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            continue
