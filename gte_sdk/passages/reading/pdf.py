"""The text of PDF files, page by page, by pypdf: pure Python, so that a hostile file meets no C code."""

import io
from collections.abc import Iterator
from typing import Any

from gte_sdk.passages.reading.decoding import NoTextError
from gte_sdk.passages.reading.sections import Section

_CONTEXT_CHARACTERS = 200


def pdf_sections(content: bytes) -> Iterator[Section]:
    """Yields the pages of a PDF, each with its number and the headings of the outline that it is under."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise NoTextError("needs a password", "encrypted")
    headings = _headings(reader)
    heading = ""
    for number, page in enumerate(reader.pages):
        heading = headings.get(number, heading)
        context = f"page {number + 1}" + (f" > {heading}" if heading else "")
        yield Section(page.extract_text(), "text", context)


def _headings(reader: Any) -> dict[int, str]:
    """Returns the title that the outline gives to a page, the last one if there are several. Many have no outline."""
    found: dict[int, str] = {}
    try:
        for entry in _flat(reader.outline):
            number = reader.get_destination_page_number(entry)
            if number is not None and number >= 0 and entry.title:
                found[number] = " ".join(str(entry.title).split())[:_CONTEXT_CHARACTERS]
    except Exception:  # an outline that is damaged takes nothing from the pages
        return found
    return found


def _flat(outline: list[Any]) -> Iterator[Any]:
    waiting = list(reversed(outline))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting.extend(reversed(entry))
        else:
            yield entry
