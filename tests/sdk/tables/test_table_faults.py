"""Tables that would give a wrong answer in silence, or take memory without bound: read as meant, or refused."""

import gzip
import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from gte_sdk.embedding.vector_types import row_type
from gte_sdk.errors import InputError
from gte_sdk.tables.text_batches import OnNull, TableOptions, TextTable
from gte_sdk.tables.text_lines import MAX_ROW_BYTES
from gte_sdk.tables.text_rows import json_rows
from gte_sdk.tables.text_tables import Format, format_of, open_text_table
from gte_sdk.tables.vector_files import VectorFormat, open_writer


def opened(content: bytes, file_format: Format, **options: Any) -> TextTable:
    return open_text_table(io.BytesIO(content), "file", file_format, TableOptions(**options))


def read(content: bytes, file_format: Format, **options: Any) -> list[str]:
    return [text for batch in opened(content, file_format, **options).batches for text in batch.texts]


def parquet_of(table: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


# --- what separates columns


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_csv_with_another_delimiter_is_refused_or_read_as_it_is_said(delimiter: str) -> None:
    content = f'id{delimiter}text\n1{delimiter}"red{delimiter}green"\n'.encode()
    with pytest.raises(InputError, match="is one column, but holds") as refusal:
        opened(content, "csv")
    assert refusal.value.remedy == "delimiter"
    assert read(content, "csv", delimiter=delimiter) == [f"red{delimiter}green"]


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_a_tsv_with_another_delimiter_is_refused(mark: str) -> None:
    with pytest.raises(InputError, match="is one column, but holds"):
        opened(f"id{mark}text\n1{mark}red\n".encode(), "tsv")


def test_a_single_column_with_such_a_name_can_be_said() -> None:
    assert read(b"text; in English\nred\n", "csv", delimiter=",") == ["red"]


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", " ", "\0"])
def test_what_cannot_be_a_delimiter(delimiter: str) -> None:
    with pytest.raises(InputError, match="delimiter="):
        opened(b"text\n", "csv", delimiter=delimiter)


@pytest.mark.parametrize("file_format", ["lines", "jsonl", "json", "tsv", "parquet"])
def test_a_delimiter_is_for_csv_only(file_format: Format) -> None:
    with pytest.raises(InputError, match=f"a delimiter is for CSV, not for {file_format}"):
        opened(b"", file_format, delimiter=";")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"quoted"', "quoted"),
        ('"a ""quoted"" word"', 'a "quoted" word'),
        ('"a\ttab"', "a\ttab"),
        ('""', ""),
        ('"never closed', '"never closed'),
        ('"Nice" he said', '"Nice" he said'),
        ('5" pipe', '5" pipe'),
        ('"', '"'),
        ('"a "quoted" b"', '"a "quoted" b"'),
    ],
)
def test_a_quote_in_tsv_never_swallows_the_rows_after_it(field: str, text: str) -> None:
    assert read(f"id\ttext\n1\t{field}\n2\tgreen\n3\t{field}\r\n".encode(), "tsv") == [text, "green", text]


# --- rows without a text


NULLS: dict[Format, bytes] = {
    "jsonl": b'{"text": "red"}\n{"text": null}\n{"id": 3}\n{"text": ""}\n',
    "json": b'[{"text": "red"}, {"text": null}, {"id": 3}, {"text": ""}]',
    "csv": b"id,text\n1,red\n2,\n3,\n4,green\n",
    "tsv": b"id\ttext\n1\tred\n2\t\n3\t\n4\tgreen\n",
    "parquet": parquet_of(pyarrow.table({"text": ["red", None, None, ""], "id": [1, 2, 3, 4]})),
}


@pytest.mark.parametrize("file_format", NULLS)
@pytest.mark.parametrize("on_null", ["error", "skip", "empty"])
def test_a_row_without_a_text_is_what_was_chosen_in_every_format(file_format: Format, on_null: OnNull) -> None:
    last = "green" if file_format in ("csv", "tsv") else ""
    if on_null == "error":
        with pytest.raises(InputError, match="file, row 2: 'text' is null; expected text") as refusal:
            read(NULLS[file_format], file_format, on_null=on_null)
        assert refusal.value.remedy == "on null"
        return
    (batch,) = opened(NULLS[file_format], file_format, on_null=on_null).batches
    assert batch.texts == (["red", "", "", last] if on_null == "empty" else ["red", last])
    assert batch.skipped == (2 if on_null == "skip" else 0)
    kept = batch.record_batch if batch.rows is None else batch.rows
    assert len(kept) == len(batch.texts)


def test_rows_that_are_skipped_at_the_end_are_counted_too() -> None:
    batches = list(opened(b'{"text": "a"}\n' * 512 + b'{"text": null}\n' * 3, "jsonl", on_null="skip").batches)
    assert [(len(batch.texts), batch.skipped) for batch in batches] == [(512, 0), (0, 3)]


# --- values that would be lost or changed


@pytest.mark.parametrize("file_format", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a", "x": 1e999}', "1e999 is beyond the range"),
        ('{"text": "a", "x": [-1e999]}', "-1e999 is beyond the range"),
        ('{"text": "a", "x": Infinity}', "Infinity is not JSON"),
        ('{"text": "a", "text": "b"}', "the key 'text' is there twice"),
        ('{"text": "a", "x": {"y": 1, "y": 2}}', "the key 'y' is there twice"),
        ('{"text": "a", "x": ' + "9" * 5000 + "}", "not JSON"),
        ('{"text": "a", "x": ' + "[" * 100_000, "not JSON"),
        ("{'text': 'a'}", "not JSON"),
    ],
    ids=lambda value: value[:30],
)
def test_json_that_would_not_come_out_as_it_went_in_is_refused(file_format: Format, row: str, message: str) -> None:
    with pytest.raises(InputError, match=f"file, row 1: not JSON: .*{message}|file, row 1: {message}"):
        read(row.encode(), file_format)


@pytest.mark.parametrize("file_format", ["jsonl", "json"])
@pytest.mark.parametrize(("opened_by", "closed_by"), [("[", "]"), ('{"a": ', "}"), ('[{"a": ', "}]")])
@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_rows_are_nested_as_deeply_as_every_output_takes(
    file_format: Format, opened_by: str, closed_by: str, output_format: VectorFormat
) -> None:
    for depth in (10, 25, 70, 300, 900, 990, 2000, 100_000):
        row = f'{{"text": "a", "x": {opened_by * depth}1{closed_by * depth}}}'.encode()
        if depth > 30:
            with pytest.raises(InputError, match="nested too deeply, in more than 64 levels"):
                read(row, file_format)
            continue
        (batch,) = opened(row, file_format).batches
        with open_writer(io.BytesIO(), output_format, row_type("float32", 2), "embedding", {}) as write:
            write(batch, np.zeros((1, 2), np.float32))


def test_a_text_of_parquet_has_the_limit_of_every_row() -> None:
    content = parquet_of(pyarrow.table({"text": ["a", "x" * (MAX_ROW_BYTES + 1)]}))
    with pytest.raises(InputError, match="row 2 has more than 3 MiB"):
        read(content, "parquet")


def test_names_in_parquet_that_are_not_utf_8_are_one_error() -> None:
    for name in ("text", "Straße"):
        content = parquet_of(pyarrow.table({name: ["a"], "n": [1]})).replace(
            name.encode(), b"\xff" * len(name.encode())
        )
        with pytest.raises(InputError, match="not a readable Parquet file: 'utf-8' codec can't decode"):
            read(content, "parquet")


def test_columns_of_parquet_of_one_name_are_refused() -> None:
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(["a"]), pyarrow.array([1]), pyarrow.array([2])], ["text", "n", "n"]
    )
    with pytest.raises(InputError, match="the column 'n' is there twice; rename one"):
        opened(parquet_of(table), "parquet")


# --- fields inside others, arrays, compression, encodings


def test_a_field_of_a_column_holds_the_texts() -> None:
    rows = [{"doc": {"text": {"en": "red"}}}, {"doc": {"text": {"en": "green"}}}]
    assert read("".join(json.dumps(row) + "\n" for row in rows).encode(), "jsonl", column="doc.text.en") == [
        "red",
        "green",
    ]
    assert read(parquet_of(pyarrow.Table.from_pylist(rows)), "parquet", column="doc.text.en") == ["red", "green"]
    assert read(b'{"doc.text": "red", "doc": 1}\n', "jsonl", column="doc.text") == ["red"]
    for content, file_format in (
        (json.dumps(rows[0]).encode(), "jsonl"),
        (parquet_of(pyarrow.Table.from_pylist(rows)), "parquet"),
    ):
        with pytest.raises(InputError, match=r"no column 'doc\.body'; the columns are doc"):
            read(content, file_format, column="doc.body")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"row 2: no 'doc\.text'"):
        read(b'{"doc": {"text": "a"}}\n{"doc": "b"}\n', "jsonl", column="doc.text")
    nullable = pyarrow.Table.from_pylist([{"doc": {"text": "a"}}, {"doc": None}])
    assert read(parquet_of(nullable), "parquet", column="doc.text", on_null="empty") == ["a", ""]


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text() | st.lists(st.booleans()), max_size=3)),
    st.integers(1, 40), st.sampled_from([None, 0, 3]), st.booleans(),
)  # fmt: skip
def test_an_array_is_read_as_json_reads_it_wherever_the_pieces_end(
    rows: list[dict[str, Any]], piece: int, indent: int | None, is_array: bool
) -> None:
    text = json.dumps(rows, indent=indent) if is_array else " \n".join(json.dumps(row, indent=indent) for row in rows)
    pieces = [(0, text[start : start + piece]) for start in range(0, len(text), piece)]
    assert [row for _, row in json_rows(pieces, "file")] == rows


def test_an_array_may_be_one_line_of_any_length() -> None:
    texts = [f"é {number} " + "x" * 500 for number in range(10_000)]
    content = json.dumps([{"text": text} for text in texts], ensure_ascii=False).encode()
    assert len(content) > MAX_ROW_BYTES
    assert read(content, "json") == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "the array does not end"),
        (b'[{"text": "a"}', "the array does not end"),
        (b'[{"text": "a"}] x', "text follows the end of the array"),
        (b'[{"text": "a"} {"text": "b"}]', "row 2: not JSON: expected a comma"),
        (b'[{"text": "a"},]', "row 2: not JSON"),
        (b'[{"text": "a"}, 5]', "row 2: a number .5.; expected an object"),
        (b'[{"text": "a}]', "row 1: not JSON: Unterminated string"),
        (b"[" * 200_000, "row 1: not JSON: nested too deeply|row 1: a list"),
    ],
)
def test_an_array_that_is_broken_names_the_row(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content, "json")


def test_an_array_in_a_file_of_lines_is_recognized() -> None:
    with pytest.raises(InputError, match="an array, not an object on each line") as refusal:
        read(b'[{"text": "a"}]\n', "jsonl")
    assert refusal.value.remedy == "input format json"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"red\n"),
        ("a.jsonl", b'{"text": "red"}\n'),
        ("a.json", b'[{"text": "red"}]'),
        ("a.csv", b"text\nred\n"),
    ],
)
def test_compressed_files_are_read(name: str, content: bytes, suffix: str, tmp_path: Any) -> None:
    compressed = gzip.compress(content) if suffix == ".gz" else pyarrow.compress(content, "zstd", asbytes=True)
    if suffix == ".zst":  # pyarrow's stream, which other tools write
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        compressed = sink.getvalue().to_pybytes()
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(compressed)
    with path.open("rb") as file:
        (batch,) = open_text_table(file, "file", format_of(path), TableOptions()).batches
    assert batch.texts == ["red"]
    for damaged in (compressed[: len(compressed) // 2], compressed[:-3], compressed[:8] + b"\xff" * 40):
        with pytest.raises(InputError, match="file"):
            read(damaged, format_of(path))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "latin-1"])
@pytest.mark.parametrize("file_format", ["lines", "jsonl", "json", "csv", "tsv"])
def test_text_in_any_encoding_is_read_as_it_is_said(encoding: str, file_format: Format) -> None:
    texts = {"lines": "Zürich\ncafé\n", "json": '[{"text": "Zürich"}, {"text": "café"}]', "csv": "text\nZürich\ncafé\n"}
    texts["tsv"], texts["jsonl"] = texts["csv"], '{"text": "Zürich"}\n{"text": "café"}\n'
    assert read(texts[file_format].encode(encoding), file_format, encoding=encoding) == ["Zürich", "café"]


@pytest.mark.parametrize(
    ("content", "encoding", "message", "remedy"),
    [
        ("é\n".encode("utf-16"), "utf-8", "UTF-16, not UTF-8", "encoding utf-16"),
        (b"\xe9\n", "utf-8", "line 1: not UTF-8 at byte 0", "encoding"),
        (b"a\n\x81\n", "cp1252", "not cp1252", "encoding"),
        (b"a", "klingon", "encoding='klingon'", None),
        (b"a", "base64", "encoding='base64'", None),
        (b"a", "a\0b", "encoding=", None),
    ],
)
def test_a_wrong_encoding_is_said(content: bytes, encoding: str, message: str, remedy: str | None) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        read(content, "lines", encoding=encoding)
    assert refusal.value.remedy == remedy


# --- memory


class Endless(io.RawIOBase):
    """A device that gives one byte for ever."""

    def __init__(self, start: bytes, rest: bytes) -> None:
        self.start, self.rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.start[: len(buffer)] or self.rest * len(buffer)
        self.start = self.start[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize(
    ("file_format", "start", "rest", "encoding"),
    [
        ("lines", b"", b"\0", "utf-8"),
        ("lines", b"", b"x", "utf-16"),
        ("lines", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\0", "utf-8"),
        ("jsonl", b'{"text": "', b"x", "utf-8"),
        ("json", b'[{"text": "', b"x", "utf-8"),
        ("json", b'[{"text": "a"}, {"text": [', b"1\n,"[:1], "utf-8"),
        ("csv", b'text\n"', b"x", "utf-8"),
        ("csv", b'text,x\n"', b"\n", "utf-8"),
        ("tsv", b"text\n", b"x", "utf-8"),
    ],
)
def test_a_text_without_an_end_is_refused_within_a_bound(
    monkeypatch: pytest.MonkeyPatch, file_format: Format, start: bytes, rest: bytes, encoding: str
) -> None:
    monkeypatch.setattr("gte_sdk.tables.text_rows.MAX_ROW_BYTES", 1 << 16)  # millions of lines take a minute
    tracemalloc.start()
    with pytest.raises(InputError):
        for _ in open_text_table(
            io.BufferedReader(Endless(start, rest)), "file", file_format, TableOptions(encoding=encoding)
        ).batches:
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MAX_ROW_BYTES
