"""What is read out of each format, with its place: headings, pages, slides, lines."""

from pathlib import Path

import pytest

from gte_sdk.passages.reading.decoding import NoTextError, decode, looks_like_text
from gte_sdk.passages.reading.sections import passages_of
from gte_sdk.passages.reading.worker import read_sections
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.text_files import format_of

from .documents import NOTEBOOK, PAGE, archive, docx, epub, odt, pdf, pptx

FRENCH = "L'été, la forêt est calme ; on n'entend que le cœur de la rivière et, au loin, un chien qui aboie."


def passages(format: str, content: bytes) -> list[Passage]:
    reading = read_sections(format, content)
    assert (reading.reason, reading.detail) == ("", "")
    return list(passages_of("f", reading.sections))


def test_a_page_of_html_keeps_its_headings_and_the_lines_of_the_file() -> None:
    found = passages("html", PAGE.encode())
    assert [(part.line, part.context, part.text) for part in found] == [
        (4, "Bread book", "# Sourdough\n\nFeed the starter\nevery day.\n\n- flour\n- water"),
        (7, "Bread book > Sourdough", "## Oven\n\nheat 250 °C"),
    ]


def test_html_in_an_encoding_that_it_declares() -> None:
    content = '<html><meta charset="windows-1251"><body><p>Привет, мир</p></body></html>'.encode("cp1251")
    assert [part.text for part in passages("html", content)] == ["Привет, мир"]


def test_a_notebook_is_its_cells_without_their_output() -> None:
    found = passages("notebook", NOTEBOOK.encode())
    assert [(part.context, part.text) for part in found] == [
        ("cell 1", "# Rain\nHow much fell."),
        ("cell 2", "def total():\n    return sum(rain)"),
    ]
    assert read_sections("notebook", b"[1, 2]").reason == "damaged"


def test_a_document_of_word_has_headings_by_the_names_of_its_styles() -> None:
    names = {"berschrift1": "heading 1", "berschrift2": "heading 2", "Heading9": "My own"}
    content = docx(
        ("berschrift1", "Roof"), ("x", "We wait until spring."),
        ("berschrift2", "Costs"), ("Heading9", "9,000 &amp; up"),
        style_names=names,
    )  # fmt: skip
    assert [(part.context, part.text) for part in passages("docx", content)] == [
        ("", "# Roof\n\nWe wait until spring."),
        ("Roof", "## Costs\n\n9,000 & up"),
    ]


def test_slides_come_in_the_order_of_their_numbers() -> None:
    slides = [(f"Title {number}", [f"line {number}", "more"]) for number in range(1, 12)]
    found = passages("pptx", pptx(*slides))
    assert [part.context for part in found] == [f"slide {number}" for number in range(1, 12)]
    assert found[10].text == "# Title 11\n\nline 11\n\nmore"


def test_a_document_of_libreoffice_keeps_mixed_text_and_not_what_was_deleted() -> None:
    body = (
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        '<text:h text:outline-level="2">Harvest</text:h>'
        '<text:p>One<text:s text:c="2"/>and <text:span>two</text:span> apples<text:line-break/>a day</text:p>'
    )
    assert [part.text for part in passages("odt", odt(body))] == ["## Harvest\n\nOne  and two apples\na day"]


def test_a_book_is_read_in_the_order_of_its_spine() -> None:
    found = passages("epub", epub("<h1>Dawn</h1><p>She left.</p>", "<h1>Dusk</h1><p>She came back.</p>"))
    assert [(part.context, part.text) for part in found] == [
        ("chapter 1", "# Dawn\n\nShe left."),
        ("chapter 2", "# Dusk\n\nShe came back."),
    ]


def test_a_pdf_has_pages_under_the_titles_of_its_outline() -> None:
    pytest.importorskip("pypdf", reason="pypdf comes with the extra documents")
    found = passages("pdf", pdf(["Preface", "Bees dance", "and fly"], {1: "Honey"}))
    assert [(part.context, part.text) for part in found] == [
        ("page 1", "Preface"), ("page 2 > Honey", "Bees dance"), ("page 3 > Honey", "and fly"),
    ]  # fmt: skip
    assert [part.line for part in found] == [1, 2, 3]
    assert read_sections("pdf", pdf(["", ""])).reason == "without text"


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("a.PDF", b"", "pdf"),
        ("paper", b"%PDF-1.7\n", "pdf"),
        ("book", epub("<p>x</p>"), "epub"),
        ("letter", odt(""), "odt"),
        ("index", b"\xef\xbb\xbf <!DOCTYPE HTML>", "html"),
        ("page.php", b"<html>", "text"),
        ("notes", b"I like <html>", "text"),
    ],
)
def test_a_format_is_told_by_name_or_content(name: str, head: bytes, format: str) -> None:
    assert format_of(Path(name), head) == format


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain", "plain"),
        (b"", ""),
        ("\ufeffÜber".encode(), "Über"),
        ("Über 東京".encode("utf-16"), "Über 東京"),
        (b"\xfe\xff" + "Über".encode("utf-16-be"), "Über"),
        (FRENCH.encode("utf-16-le"), FRENCH),
        (FRENCH.encode("utf-16-be"), FRENCH),
        (FRENCH.encode("cp1252"), FRENCH),
        (b"caf\xe9", "café"),
        (b"un caf\xe9 \x81", "un café \x81"),
    ],
)
def test_encodings_that_can_be_told(content: bytes, text: str) -> None:
    assert looks_like_text(content)
    assert decode(content) == text


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"\x89PNG\r\n\0\0", "binary", "a binary file"),
        (bytes(range(1, 32)) * 9, "binary", "a binary file"),
        (b"\x01\0\x02\0\x03\0\x05\0" * 99, "binary", "a binary file"),
        ("Привет, мир".encode("cp1251"), "unknown encoding", "not UTF-8 at byte 0; convert it to UTF-8"),
        ("Grüße, ”übrigens“".encode()[:-1] + b"!", "unknown encoding", "not UTF-8 at byte 21; convert it to UTF-8"),
        (b"\xff\xfea", "unknown encoding", "not UTF-16-LE at byte 2; convert it to UTF-8"),
    ],
)
def test_what_is_no_text_or_in_an_encoding_that_cannot_be_told(content: bytes, reason: str, detail: str) -> None:
    with pytest.raises(NoTextError) as raised:
        decode(content)
    assert raised.value.args == (reason, detail)


def test_halves_of_characters_are_replaced() -> None:
    assert passages("notebook", rb'{"cells": [{"source": "a\ud800b"}]}')[0].text == "a?b"


@pytest.mark.parametrize(
    ("format", "content", "reason"),
    [
        ("docx", b"PK\x03\x04 and then nothing", "damaged"),
        ("docx", archive({"word/other.xml": ""}), "damaged"),
        ("docx", archive({"word/document.xml": "<w:document"}), "damaged"),
        ("docx", archive({"word/document.xml": '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'}), "damaged"),
        ("odt", odt(""), "without text"),
        ("pptx", archive({"a": "b"}), "damaged"),
        ("epub", archive({"META-INF/container.xml": '<c><rootfile full-path="../../etc/passwd"/></c>'}), "damaged"),
        ("html", b"<script>only this</script>", "without text"),
        ("notebook", b"[" * 100_000, "damaged"),
    ],
)
def test_what_is_damaged_is_said(format: str, content: bytes, reason: str) -> None:
    reading = read_sections(format, content)
    assert (reading.sections, reading.reason) == ([], reason)
    assert len(reading.detail) < 200
