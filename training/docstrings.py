"""Pairs that every Python carries in itself: the standard library's functions, as (what it says it does, its code).

Enough to run the whole chain from a clean clone, without a network or a licence question. Parsed, never imported.
"""

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MAX_PAIRS = 2000
MAX_CODE_CHARACTERS = 400


def write_docstring_pairs(directory: Path) -> Path:
    """Writes code__docstrings.jsonl into `directory` and returns its path; the same pairs for the same Python."""
    path = directory / f"python-{sys.version_info.major}.{sys.version_info.minor}" / "code__docstrings.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"query": query, "document": document}) for query, document in docstring_pairs()]
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines[:MAX_PAIRS]) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def docstring_pairs() -> Iterator[tuple[str, str]]:
    """(first sentence of the docstring, code without the docstring) of every function, each sentence once."""
    seen = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if 15 <= len(sentence) <= 200 and sentence not in seen:
                seen.add(sentence)
                body = "\n".join(ast.unparse(statement) for statement in node.body[1:])
                code = f"def {node.name}({ast.unparse(node.args)}):\n{body}"
                yield sentence, code[:MAX_CODE_CHARACTERS]
