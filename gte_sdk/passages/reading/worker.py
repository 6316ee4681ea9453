"""The process that parses files, so that one that hangs or grows takes down nothing else. It is started by parser.py.

Requests come on standard input: a line of JSON with the format and the number of bytes, then the bytes. Each is
answered with a line of JSON: sections, reason, detail. The process ends itself if a file takes longer than
MAX_SECONDS, which no loop in Python or C can prevent, and has at most MAX_MEMORY_BYTES of address space.
"""

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gte_sdk.passages.reading.decoding import MAX_LINES, NoTextError, decode
from gte_sdk.passages.reading.markup import declared_encoding, html_sections, notebook_sections
from gte_sdk.passages.reading.outline import definitions_in
from gte_sdk.passages.reading.pdf import pdf_sections
from gte_sdk.passages.reading.sections import Reading, Section
from gte_sdk.passages.reading.zipped import docx_sections, epub_sections, odt_sections, pptx_sections

CODE = "code/"
"""What the formats of source code begin with; the language follows. Its lines end with a line feed."""
MAX_SECONDS = 30.0
"""For one file."""
MAX_MEMORY_BYTES = 500 * 10**6
"""Of address space, where the system can limit that: Linux, not Windows."""
MAX_CHARACTERS = 8_000_000
"""Of one file; a novel has half a million."""
# A file of many parts ends with those that are read by then.
_ENOUGH_SECONDS = 20.0


def read_sections(format: str, content: bytes) -> Reading:
    """Parses one file. What goes wrong becomes the reading's reason."""
    sections: list[Section] = []
    deadline = time.monotonic() + _ENOUGH_SECONDS
    room, lines_left = MAX_CHARACTERS, MAX_LINES
    try:
        for section in _parsed(format, content):
            place = sections[-1].context if sections else "its beginning"
            if time.monotonic() > deadline and sections:
                return Reading(sections, "read in part", f"read to {place}: {_ENOUGH_SECONDS:.0f} s were over")
            room -= len(section.text)
            lines_left -= section.text.count("\n") + 1
            if room < 0 or lines_left < 0:
                limits = f"more than {MAX_CHARACTERS:,} characters or {MAX_LINES:,} lines"
                return Reading(
                    sections, "read in part" if sections else "too large", f"read to {place}: it has {limits}"
                )
            sections.append(_encodable(section))
    except NoTextError as error:
        return Reading([], *error.args)
    except TimeoutError as error:
        return Reading([], "takes too long", str(error))
    except MemoryError:
        return Reading([], "takes too much memory", f"more than {MAX_MEMORY_BYTES // 10**6} MB to read it")
    except Exception as error:  # a damaged file raises whatever a parser meets
        said = " ".join(str(error).split())[:120] or type(error).__name__
        return Reading([], "damaged", f"damaged ({said})")
    if not any(section.text.strip() for section in sections):
        return Reading(
            [], "without text", "no text in it (pages may be pictures)" if format == "pdf" else "no text in it"
        )
    return Reading(sections)


def main() -> None:
    """Answers requests until standard input ends."""
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)  # what a library prints is no answer
        _limit_memory()
        while header := requests.readline():
            format, size = json.loads(header)
            content = requests.read(size)
            faulthandler.dump_traceback_later(MAX_SECONDS, exit=True, file=nowhere)
            reading = read_sections(format, content)
            answer = json.dumps(reading).encode()
            faulthandler.cancel_dump_traceback_later()
            answers.write(answer + b"\n")
            answers.flush()
            if reading.reason == "takes too much memory":
                return


def _parsed(format: str, content: bytes) -> Iterator[Section]:
    if format.startswith(CODE):
        return iter([Section(content.decode(), "code", definitions=definitions_in(content, format[len(CODE) :]))])
    return _PARSERS[format](content)


def _limit_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS cannot limit what is in use already
        return


def _encodable(section: Section) -> Section:
    """Replaces halves of characters, which JSON and PDF can hold and no encoding can write."""
    text, context = (part.encode("utf-8", "replace").decode() for part in (section.text, section.context))
    return section._replace(text=text, context=context)


def _html(content: bytes) -> Iterator[Section]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = declared_encoding(content)
        text = content.decode(declared, "replace") if declared and declared.isascii() else decode(content)
    return html_sections(text)


def _notebook(content: bytes) -> Iterator[Section]:
    return notebook_sections(decode(content))


_PARSERS: dict[str, Callable[[Any], Iterator[Section]]] = {
    "html": _html, "notebook": _notebook, "pdf": pdf_sections, "docx": docx_sections, "pptx": pptx_sections,
    "odt": odt_sections, "epub": epub_sections,
}  # fmt: skip
