"""The text of DOCX, PPTX, ODT and EPUB: archives of XML, read with the standard library as a stream.

python-docx, python-pptx and ebooklib build trees of whole documents with lxml, need Pillow, or are under the AGPL. All
that a search needs are paragraphs, headings and slides, which are a few elements of each format. Entities are refused,
and no more is decompressed than MAX_XML_BYTES, whatever the archive says of itself.
"""

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from urllib.parse import unquote
from xml.parsers import expat

from gte_sdk.passages.reading.decoding import NoTextError
from gte_sdk.passages.reading.markup import declared_encoding, text_of_html
from gte_sdk.passages.reading.sections import Section

MAX_XML_BYTES = 64 * 2**20
"""Of one document, decompressed. A novel of 1,000 pages has 3 MiB."""

Attributes = dict[str, str]


class _Archive:
    """Reads members of a document until they have MAX_XML_BYTES together."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self.names = set(self._zip.namelist())
        self._room = MAX_XML_BYTES

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise ValueError(f"it has no {name}")
        if self._zip.getinfo(name).flag_bits & 1:
            raise NoTextError("needs a password", "encrypted")
        with self._zip.open(name) as member:
            data = member.read(self._room + 1)
        self._room -= len(data)
        if self._room < 0:
            raise NoTextError("too large", f"more than {MAX_XML_BYTES // 2**20} MiB when it is unpacked")
        return data


def docx_sections(content: bytes) -> Iterator[Section]:
    """Yields a document of Word as one section."""
    archive = _Archive(content)
    levels = _heading_styles(archive.read("word/styles.xml")) if "word/styles.xml" in archive.names else {}
    text = _Text()
    level = 0

    def start(name: str, attributes: Attributes) -> None:
        nonlocal level
        if name == "p":
            level = 0
        elif name == "pStyle":
            level = levels.get(attributes.get("val", ""), 0)
        elif name == "outlineLvl":
            level = _number(attributes.get("val")) + 1
        elif name in ("tab", "br", "cr"):
            text.add("\t" if name == "tab" else "\n")

    def end(name: str, characters: str) -> None:
        if name == "t":
            text.add(characters)
        elif name == "p":
            text.end_paragraph(level if level <= 6 else 0)

    _read_xml(archive.read("word/document.xml"), start, end)
    yield Section(text.whole(), "markdown")


def pptx_sections(content: bytes) -> Iterator[Section]:
    """Yields the slides of a presentation, their titles as headings."""
    archive = _Archive(content)
    slides = {int(match[1]): match[0] for name in archive.names if (match := _SLIDE.fullmatch(name))}
    if not slides:
        raise ValueError("it has no slides")
    for number in sorted(slides):
        yield Section(_slide_text(archive.read(slides[number])), "markdown", f"slide {number}")


def _slide_text(content: bytes) -> str:
    text = _Text()
    level = 0

    def start(name: str, attributes: Attributes) -> None:
        nonlocal level
        if name == "sp":
            level = 0
        elif name == "ph" and attributes.get("type") in ("title", "ctrTitle"):
            level = 1
        elif name == "br":
            text.add("\n")

    def end(name: str, characters: str) -> None:
        if name == "t":
            text.add(characters)
        elif name == "p":
            text.end_paragraph(level)

    _read_xml(content, start, end)
    return text.whole()


def odt_sections(content: bytes) -> Iterator[Section]:
    """Yields a document of LibreOffice as one section. Deleted text that it keeps is left out."""
    text = _Text()
    level, removed = 0, 0

    def start(name: str, attributes: Attributes) -> None:
        nonlocal level, removed
        removed += name == "tracked-changes"
        if name == "h":
            level = _number(attributes.get("outline-level")) or 1
        elif name in _ODT_SPACES and not removed:
            count = min(_number(attributes.get("c")) or 1, 100)
            text.add(_ODT_SPACES[name] * (count if name == "s" else 1))

    def end(name: str, characters: str) -> None:
        nonlocal level, removed
        removed -= name == "tracked-changes"
        if not removed:
            text.add(characters)
        if name in ("p", "h"):
            text.end_paragraph(min(level, 6) if name == "h" else 0)
            level = 0

    _read_xml(_Archive(content).read("content.xml"), start, end, keeps_text_between=True)
    yield Section(text.whole(), "markdown")


def epub_sections(content: bytes) -> Iterator[Section]:
    """Yields the chapters of a book in the order in which they are read."""
    archive = _Archive(content)
    package = ""
    pages: dict[str, str] = {}
    spine: list[str] = []

    def container(name: str, attributes: Attributes) -> None:
        nonlocal package
        if name == "rootfile":
            package = package or attributes.get("full-path", "")

    def listing(name: str, attributes: Attributes) -> None:
        if name == "item" and "html" in attributes.get("media-type", ""):
            pages[attributes.get("id", "")] = attributes.get("href", "")
        elif name == "itemref":
            spine.append(attributes.get("idref", ""))

    _read_xml(archive.read("META-INF/container.xml"), container, _ignore)
    _read_xml(archive.read(package), listing, _ignore)
    for number, page in enumerate(dict.fromkeys(spine), 1):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(pages.get(page, ""))))
        if name in archive.names:
            data = archive.read(name)
            text = text_of_html(data.decode(declared_encoding(data) or "utf-8", "replace"))
            yield Section(text, "markdown", f"chapter {number}")


_SLIDE = re.compile(r"ppt/slides/slide(\d{1,6})\.xml")
_ODT_SPACES = {"s": " ", "tab": "\t", "line-break": "\n"}


class _Text:
    """Collects paragraphs as Markdown."""

    def __init__(self) -> None:
        self._paragraphs: list[str] = []
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        self._parts.append(part)

    def end_paragraph(self, level: int) -> None:
        text = "".join(self._parts).strip()
        self._parts.clear()
        if text:
            self._paragraphs.append(f"{'#' * level} {' '.join(text.split())}" if level else text)

    def whole(self) -> str:
        return "\n\n".join(self._paragraphs)


def _heading_styles(content: bytes) -> dict[str, int]:
    """Returns the level of each style that is a heading, by the name that Word gives it in any language."""
    levels: dict[str, int] = {}
    style = ""

    def start(name: str, attributes: Attributes) -> None:
        nonlocal style
        if name == "style":
            style = attributes.get("styleId", "")
        elif name == "name" and (match := re.fullmatch(r"(?i)heading ([1-6])|title", attributes.get("val", ""))):
            levels[style] = int(match[1] or 1)
        elif name == "outlineLvl" and _number(attributes.get("val")) < 6:
            levels[style] = _number(attributes.get("val")) + 1

    _read_xml(content, start, _ignore)
    return levels


def _read_xml(
    content: bytes,
    start: Callable[[str, Attributes], None],
    end: Callable[[str, str], None],
    keeps_text_between: bool = False,
) -> None:
    """Calls `start` and `end` with the local names of elements; `end` also with the text since the last tag.

    `keeps_text_between` calls `end` with the name "" for the text before a start tag, where elements are mixed with it.
    """
    parts: list[str] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def started(name: str, attributes: Attributes) -> None:
        if keeps_text_between and parts:
            end("", "".join(parts))
        parts.clear()
        start(_local(name), {_local(key): value for key, value in attributes.items()})

    def ended(name: str) -> None:
        end(_local(name), "".join(parts))
        parts.clear()

    def refuse(*_: object) -> None:
        raise ValueError("its XML declares a document type")

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    parser.CharacterDataHandler = parts.append
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _number(value: str | None) -> int:
    return int(value) if value and re.fullmatch(r"\d{1,3}", value) else 0


def _ignore(*_: object) -> None:
    pass
