"""The text of HTML pages and of notebooks, as Markdown, whose headings then become the breadcrumb."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from gte_sdk.passages.reading.sections import Section

_HIDDEN = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select", "head"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table",
    "td", "th", "tr", "ul",
}  # fmt: skip
# Blocks of one line each, so that a list or a table is one paragraph.
_LINES = {"li", "dt", "dd", "tr"}
_CONTEXT_CHARACTERS = 200


def html_sections(content: str) -> Iterator[Section]:
    """Yields a page as one section, with the line in the file of each line of its text."""
    page = _Page()
    page.feed(content.replace("\r\n", "\n").replace("\r", "\n"))
    page.close()
    page.end_line(1)
    text = "\n".join(page.lines)
    yield Section(text, "markdown", _squeezed(page.title)[:_CONTEXT_CHARACTERS], page.numbers)


def notebook_sections(content: str) -> Iterator[Section]:
    """Yields the cells of a notebook, without what they have printed.

    Raises:
        ValueError: It is no notebook.
    """
    notebook = json.loads(content)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no cells (notebooks before version 4 are not read)")  # noqa: TRY004 - of values, not of types
    for number, cell in enumerate(cells, 1):
        source = cell.get("source") if isinstance(cell, dict) else None
        text = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
        if text.strip():
            yield Section(text, "code" if cell.get("cell_type") == "code" else "markdown", f"cell {number}")


class _Page(HTMLParser):
    """Collects lines of text, each with its line in the file."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self.title = ""
        self._line: list[str] = []
        self._number = 1
        self._hidden: list[str] = []
        self._in_title = False
        self._is_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title" and not self.title
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag == "body":  # the end of the head may be left out
            self._hidden.clear()
        if re.fullmatch("h[1-6]", tag):
            self.end_line(1)
            self._line.append("#" * int(tag[1]) + " ")
        elif tag in _LINES:
            self.end_line(0)
            self._line.append("- " if tag == "li" else "")
        elif tag in ("td", "th"):
            self._line.append(" ")
        elif tag in _BLOCKS:
            self.end_line(1)
        elif tag == "br":
            self.end_line(0)
        self._is_pre = self._is_pre or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        if re.fullmatch("h[1-6]", tag) or tag in _BLOCKS - _LINES - {"td", "th"}:
            self.end_line(1)
        self._is_pre = self._is_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        if self._hidden:
            return
        first = self.getpos()[0]
        for offset, part in enumerate(data.split("\n")):
            if offset and (self._is_pre or "".join(self._line).strip(" #-")):
                self.end_line(0)
            if not "".join(self._line[:2]).strip(" #-") and part.strip():
                self._number = first + offset
            self._line.append(part)

    def end_line(self, blank_lines: int) -> None:
        text = "".join(self._line)
        self._line.clear()
        text = text.rstrip() if self._is_pre else _squeezed(text)
        if text.strip(" #-"):
            self._add(text, self._number)
        if blank_lines and self.lines and self.lines[-1]:
            self._add("", self.numbers[-1])

    def _add(self, text: str, number: int) -> None:
        self.lines.append(text)
        self.numbers.append(number)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def text_of_html(content: str) -> str:
    """Returns the text of a page alone, with Markdown headings."""
    (section,) = html_sections(content)
    return section.text


def declared_encoding(head: bytes) -> str | None:
    """Returns the encoding that a page declares in its first bytes, or None."""
    match: Any = re.search(rb"""(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", head[:2048], re.IGNORECASE)
    return match[1].decode("ascii") if match else None
