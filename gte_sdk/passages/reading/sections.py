"""What reading a file gives: sections of text with their place in the file, and their passages."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gte_sdk.passages.splitting import Definition, Passage, split_passages
from gte_sdk.passages.text_files import Kind


class Section(NamedTuple):
    """A part of a file that is split into passages by itself: a page, a slide, a cell, or all of it."""

    text: str
    kind: Kind
    """How to split it."""
    context: str = ""
    """What the breadcrumb of its passages begins with, such as "page 3"."""
    lines: Sequence[int] | None = None
    """Of each line of the text, its line in the file; None if lines of the file have no meaning to people."""
    definitions: Sequence[Definition] | None = None
    """Those of source code; None if its grammar is not known."""


class Reading(NamedTuple):
    sections: list[Section]
    reason: str = ""
    """Why the file, or a part of it, is not read, in the words of `LeftOut`; "" if all of it is."""
    detail: str = ""


def passages_of(path: str, sections: Iterable[Section]) -> Iterator[Passage]:
    """Yields the passages of a file. Where it has no lines of its own, they are counted in its text."""
    line_count = 0
    for section in sections:
        for passage in split_passages(path, section.text, section.kind, section.definitions):
            context = " > ".join(part for part in (section.context, passage.context) if part)
            line = section.lines[passage.line - 1] if section.lines else line_count + passage.line
            yield passage._replace(context=context, line=line)
        line_count += section.text.count("\n") + 1
