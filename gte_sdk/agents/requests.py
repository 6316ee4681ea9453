"""What a tool is asked for: arguments as JSON has them in, checked plain values out.

Whatever is wrong is one InputError that names the argument, its value and what to give instead. Every size is bounded
here, so that no call makes an answer of more than about 250 KB.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from gte_sdk.checks import check_count
from gte_sdk.errors import InputError, InputTypeError

MODES = ("hybrid", "meaning", "words")
MOST_PASSAGES = 50
MOST_QUERY_CHARACTERS = 8192
MOST_PATH_CHARACTERS = 4096
MOST_GLOB_CHARACTERS = 1000
MOST_LINES = 1000
MOST_READ_CHARACTERS = 50_000
"""Of one `read_passage`."""
MOST_PASSAGE_CHARACTERS = 4000
"""Of each passage that is found. A passage is about a paragraph, but a single line of a file may be far longer."""
DEFAULT_PASSAGES = 10
DEFAULT_LINES = 60
# A number with more digits than this is not worth quoting, and Python refuses to write very long ones.
_QUOTED = 10**18


class SearchRequest(NamedTuple):
    query: str
    k: int
    mode: str | None
    """None: by both, or by meaning in an index without words."""
    min_score: float | None
    glob: str | None = None
    """Only files whose name or path in a folder matches; None: all."""


class ReadRequest(NamedTuple):
    path: str
    line: int
    line_count: int


class SimilarRequest(NamedTuple):
    path: str
    line: int
    k: int


class StatusRequest(NamedTuple):
    pass


ToolRequest = SearchRequest | ReadRequest | SimilarRequest | StatusRequest
TOOLS = ("search", "read_passage", "similar", "index_status")


def parse_request(tool: str, arguments: Mapping[str, Any]) -> ToolRequest:
    """Returns the checked arguments of a tool of TOOLS. Raises InputError."""
    if tool == "search":
        _check_names(arguments, SearchRequest._fields, required=("query",))
        query = _text(arguments, "query", MOST_QUERY_CHARACTERS)
        mode = arguments.get("mode")
        if mode is not None and (not isinstance(mode, str) or mode not in MODES):
            raise InputError(f"mode={mode!r:.80}; give one of {', '.join(MODES)}")
        glob = None if arguments.get("glob") is None else _text(arguments, "glob", MOST_GLOB_CHARACTERS)
        k = _count(arguments, "k", DEFAULT_PASSAGES, MOST_PASSAGES)
        return SearchRequest(query, k, mode, _score(arguments), glob)
    if tool == "read_passage":
        _check_names(arguments, ReadRequest._fields, required=("path",))
        line_count = _count(arguments, "line_count", DEFAULT_LINES, MOST_LINES)
        return ReadRequest(_path(arguments), _count(arguments, "line", 1, None), line_count)
    if tool == "similar":
        _check_names(arguments, SimilarRequest._fields, required=("path", "line"))
        k = _count(arguments, "k", DEFAULT_PASSAGES, MOST_PASSAGES)
        return SimilarRequest(_path(arguments), _count(arguments, "line", 1, None), k)
    assert tool == "index_status"
    _check_names(arguments, (), required=())
    return StatusRequest()


def _check_names(arguments: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    for name, value in arguments.items():
        if name not in known and value is not None:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"{name[:80]!r} is not an argument of this tool; {has}")
    for name in required:
        if arguments.get(name) is None:
            raise InputError(f"{name} is missing")


def _text(arguments: Mapping[str, Any], name: str, most: int) -> str:
    value = arguments[name]
    if not isinstance(value, str):
        raise InputTypeError(f"{name} is a {type(value).__name__}; give a text")
    if len(value) > most:
        raise InputError(f"{name} has {len(value):,} characters; give at most {most:,}")
    if not value.strip():
        raise InputError(f"{name} is empty")
    return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate of JSON becomes "?"


def _path(arguments: Mapping[str, Any]) -> str:
    path = arguments["path"]
    _text(arguments, "path", MOST_PATH_CHARACTERS)
    try:
        if "\0" not in path:
            os.fsencode(path)
            return str(path)
    except UnicodeError:
        pass
    raise InputError(f"path={path!r:.80} is the name of no file")


def _count(arguments: Mapping[str, Any], name: str, default: int, most: int | None) -> int:
    value = arguments.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():  # 5.0 is an integer to JSON
        value = int(value)
    if isinstance(value, int) and abs(value) > _QUOTED:
        limit = f" and at most {most}" if most else ""
        raise InputError(f"{name} is a number of more than 18 digits; it must be at least 1{limit}")
    if not isinstance(value, int):
        raise InputTypeError(f"{name} is a {type(value).__name__}; give an integer")
    return check_count(name, value, 1, most)


def _score(arguments: Mapping[str, Any]) -> float | None:
    value = arguments.get("min_score")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"min_score is a {type(value).__name__}; give a number from -1 to 1")
    if not -1 <= value <= 1:  # NaN too
        raise InputError("min_score is out of range; give a number from -1 to 1")
    return float(value)
