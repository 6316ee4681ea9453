"""What the tools answer, as plain values for JSON, in bounded size. Texts that are cut say so."""

import os
from collections.abc import Sequence
from typing import Any

from gte_sdk.agents.requests import MOST_PASSAGE_CHARACTERS, MOST_READ_CHARACTERS, ReadRequest
from gte_sdk.passages.places import last_line_of, lines_of, passage_at
from gte_sdk.passages.searching import Found
from gte_sdk.passages.splitting import Passage

# Of headings around a passage; a title of an index from elsewhere may be longer.
_MOST_BREADCRUMB_CHARACTERS = 2000


def found_answer(found: Sequence[Found], state: dict[str, Any]) -> dict[str, Any]:
    """Returns passages that were found, best first, and whether the index was complete."""
    return {"passages": [_passage(each) for each in found], "index": state}


def lines_answer(passages: Sequence[Passage], request: ReadRequest) -> dict[str, Any]:
    """Returns lines of a file, of which `passages` are all passages."""
    lines = lines_of(passages, request.line, request.line_count, MOST_READ_CHARACTERS)
    passage = passage_at(passages, request.line)
    return {
        "path": shown_path(passages[0].path),
        "line": lines.first,
        "last_line": lines.last,
        "lines_of_file": last_line_of(passages),
        "breadcrumb": passage.context[:_MOST_BREADCRUMB_CHARACTERS] if passage else "",
        "text": lines.text,
        "is_cut": lines.is_cut,
    }


def shown_path(path: str) -> str:
    """Returns a path that JSON can hold; bytes that are no text become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def _passage(found: Found) -> dict[str, Any]:
    passage = found.passage
    return {
        "path": shown_path(passage.path),
        "line": passage.line,
        "breadcrumb": passage.context[:_MOST_BREADCRUMB_CHARACTERS],
        "score": round(found.score, 6),
        "text": passage.text[:MOST_PASSAGE_CHARACTERS],
        "is_cut": len(passage.text) > MOST_PASSAGE_CHARACTERS,
    }
