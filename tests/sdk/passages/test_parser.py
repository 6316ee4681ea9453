"""The process that parses: bounded against files that hang it, fill the memory or end it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gte_sdk.passages.reading import parser as parser_module
from gte_sdk.passages.reading import worker, zipped
from gte_sdk.passages.reading.parser import Parser

from .documents import PAGE, archive, docx, pdf

PYPDF = "pypdf comes with the extra documents"


@pytest.fixture
def parser() -> Iterator[Parser]:
    with Parser() as parser:
        yield parser


def process_id(parser: Parser) -> int:
    assert parser._process is not None
    return parser._process.pid


def test_one_process_reads_many_files_as_this_one_would(parser: Parser) -> None:
    for format, content in (("html", PAGE.encode()), ("docx", docx(("", "Hello"))), ("docx", b"PK")):
        in_process = parser.read(format, content)
        assert json.dumps(in_process) == json.dumps(worker.read_sections(format, content))
        first = process_id(parser)
    assert parser.read("html", PAGE.encode()).reason == ""
    assert process_id(parser) == first


def test_a_zip_bomb_ends_in_a_notice(parser: Parser) -> None:
    start = '<w:document xmlns:w="x"><w:body><w:p><w:r><w:t>'
    bomb = archive({"word/document.xml": start + " " * zipped.MAX_XML_BYTES})
    assert len(bomb) < 2**20
    assert parser.read("docx", bomb) == ([], "too large", "more than 64 MiB when it is unpacked")


def test_a_member_that_lies_about_its_size_is_damaged(parser: Parser) -> None:
    content = bytearray(docx(("", "word " * 1000)))
    for place in (at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"):
        content[place + 24 : place + 28] = (7).to_bytes(4, "little")
    assert parser.read("docx", bytes(content)).reason == "damaged"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is limited on Linux")
def test_too_much_memory_ends_in_a_notice_and_the_next_file_is_read(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = (
        "import sys; sys.path[:] = sys.argv[1:]; from gte_sdk.passages.reading import worker; worker.{}; worker.main()"
    )
    monkeypatch.setattr(parser_module, "_PROGRAM", greedy.format("_PARSERS['html'] = lambda b: [bytearray(10**9)]"))
    assert parser.read("html", b"") == ([], "takes too much memory", "more than 500 MB to read it")
    monkeypatch.undo()
    assert parser.read("html", PAGE.encode()).reason == ""


def test_a_file_that_hangs_ends_in_a_notice_and_the_next_file_is_read(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = parser_module._PROGRAM.replace("from", "import time; time.sleep(600); from")
    monkeypatch.setattr(parser_module, "_PROGRAM", hanging)
    monkeypatch.setattr(parser_module, "MAX_SECONDS", 0.2)
    assert parser.read("html", PAGE.encode()).reason == "takes too long"
    monkeypatch.undo()
    assert parser.read("html", PAGE.encode()).reason == ""


def test_a_process_that_is_left_alone_with_a_hanging_file_ends_itself(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = (
        "import sys, time; sys.path[:] = sys.argv[1:]; from gte_sdk.passages.reading import worker; "
        "worker.MAX_SECONDS = 0.2; worker._PARSERS['html'] = lambda b: time.sleep(600); worker.main()"
    )
    monkeypatch.setattr(parser_module, "_PROGRAM", hanging)
    assert parser.read("html", PAGE.encode()) == ([], "damaged", "its reader ended with code 1")


def test_a_process_that_dies_ends_in_a_notice(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, "_PROGRAM", "import os; os._exit(7)")
    assert parser.read("html", b"x" * 2**20) == ([], "damaged", "its reader ended with code 7")


def test_no_code_of_the_current_folder_is_run(parser: Parser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert parser.read("html", PAGE.encode()).reason == ""


def test_a_document_without_an_end_is_read_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdf", reason=PYPDF)
    monkeypatch.setattr(worker, "MAX_CHARACTERS", 25)
    reading = worker.read_sections("pdf", pdf(["ten letter"] * 9))
    assert [section.context for section in reading.sections] == ["page 1", "page 2"]
    assert (reading.reason, reading.detail[:14]) == ("read in part", "read to page 2")
    monkeypatch.setattr(worker, "_ENOUGH_SECONDS", -1)
    assert worker.read_sections("pdf", pdf(["a", "b"])).detail == "read to page 1: -1 s were over"


def test_a_truncated_pdf_and_one_of_a_thousand_pages_end(parser: Parser) -> None:
    pytest.importorskip("pypdf", reason=PYPDF)
    large = pdf([f"This is page {number}" for number in range(1, 1001)])
    reading = parser.read("pdf", large)
    assert (reading.reason, len(reading.sections), reading.sections[-1].text) == ("", 1000, "This is page 1000")
    for end in (0, 9, 200, len(large) // 2, len(large) - 30):
        reading = parser.read("pdf", large[:end])
        assert reading.sections or reading.reason in ("damaged", "without text")


def test_an_encrypted_archive_needs_a_password() -> None:
    content = bytearray(docx(("", "Hello")))
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 1)
    assert worker.read_sections("docx", bytes(content)) == ([], "needs a password", "encrypted")
