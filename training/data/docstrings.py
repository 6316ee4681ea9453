"""Pairs from Python's own functions: what the docstring says, and the code.

The standard library has enough to run the whole chain from a clean clone, without a network or a licence question. Any
installed package gives more, under its own licence. Files are parsed, never imported.
"""

import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from gte_sdk.atomic_file import replace_whole

DOCSTRINGS_NAME = "code__docstrings"
MAX_PAIRS_OF_STANDARD_LIBRARY = 2000
MAX_CODE_CHARACTERS = 400
_SKIPPED_DIRECTORIES = {"test", "tests", "testing", "_vendor", "externals"}
"""Directories of tests and of copies of other packages."""


def write_docstring_pairs(directory: Path, package: str = "") -> Path:
    """Writes code__docstrings.jsonl, or code__docstrings_PACKAGE.jsonl of an installed package, and returns its path.

    The pairs depend only on the versions of Python and of the package. Raises LookupError if the package is not
    installed.
    """
    pairs = read_package_pairs(package) if package else islice(read_docstring_pairs(), MAX_PAIRS_OF_STANDARD_LIBRARY)
    stem = f"{DOCSTRINGS_NAME}_{package}" if package else DOCSTRINGS_NAME
    path = directory / f"python-{sys.version_info.major}.{sys.version_info.minor}" / f"{stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"query": query, "document": document}) for query, document in pairs]
    with replace_whole(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def read_docstring_pairs() -> Iterator[tuple[str, str]]:
    """Yields the pairs of the standard library's modules."""
    return _extract_pairs(sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")))


def read_package_pairs(package: str) -> Iterator[tuple[str, str]]:
    """Yields the pairs of an installed package, without its tests and the packages that it contains copies of."""
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"package {package!r} is not installed here; install it, or leave it out")
    roots = [Path(location) for location in spec.submodule_search_locations]
    files = ((root, path) for root in roots for path in sorted(root.rglob("*.py")))
    return _extract_pairs(path for root, path in files if _SKIPPED_DIRECTORIES.isdisjoint(path.relative_to(root).parts))


def _extract_pairs(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yields (first paragraph of the docstring, code without it) of every function, each paragraph once."""
    seen = set()
    for path in paths:
        for node in ast.walk(_parse(path)):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if 15 <= len(sentence) <= 200 and sentence not in seen:
                seen.add(sentence)
                body = "\n".join(ast.unparse(statement) for statement in node.body[1:])
                code = f"def {node.name}({ast.unparse(node.args)}):\n{body}"
                yield sentence, code[:MAX_CODE_CHARACTERS]


def _parse(path: Path) -> ast.Module:
    """The file's tree; an empty one if it is not Python of this version, such as a template."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other packages' code
        try:
            return ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        except (SyntaxError, ValueError):
            return ast.Module(body=[], type_ignores=[])
