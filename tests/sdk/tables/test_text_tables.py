"""Tables of texts: every format gives the same texts, streams, and names the row of whatever is wrong."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from gte_sdk.errors import InputError
from gte_sdk.tables.text_batches import BATCH_ROWS, TableOptions, TextBatch, TextTable
from gte_sdk.tables.text_tables import Format, format_of, open_text_table

TEXTS = ["plain", "", "  spaces  ", "Über 東京 😀", 'a "quoted", text', "form\x0cfeed and line\u2028separator"]


def read(content: bytes, file_format: Format, column: str | None = None) -> list[str]:
    return texts_of(open_text_table(io.BytesIO(content), "file", file_format, TableOptions(column)))


def texts_of(table: TextTable) -> list[str]:
    return [text for batch in table.batches for text in batch.texts]


def jsonl_of(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(texts: list[str], delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([["text", "id"], *([text, "7"] for text in texts)])
    return file.getvalue().encode()


def parquet_of(columns: dict[str, Any], row_group_size: int | None = None) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file, row_group_size=row_group_size)
    return file.getvalue()


def test_formats_come_from_the_suffix() -> None:
    assert [format_of(Path(name)) for name in ["a.txt", "a.JSONL", "a.ndjson", "a.csv", "a.tsv", "a.parquet"]] == [
        "lines", "jsonl", "jsonl", "csv", "tsv", "parquet",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"a\.docx: the suffix '\.docx' says no format \(known: \.txt "):
        format_of(Path("a.docx"))


def test_every_format_gives_the_same_texts() -> None:
    assert read("\n".join([*TEXTS, ""]).encode(), "lines") == TEXTS
    assert read("\r\n".join(TEXTS).encode(), "lines") == TEXTS
    assert read(b"\xef\xbb\xbf" + "\n".join(TEXTS).encode(), "lines") == TEXTS
    assert read(jsonl_of([{"id": 1, "text": text} for text in TEXTS]), "jsonl") == TEXTS
    assert read(csv_of(TEXTS), "csv") == TEXTS
    assert read(b"\xef\xbb\xbf" + csv_of(TEXTS), "csv") == TEXTS
    assert read(csv_of(TEXTS, "\t"), "tsv") == TEXTS
    assert read(parquet_of({"id": range(6), "text": TEXTS}), "parquet") == TEXTS


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=20))
def test_any_text_survives_jsonl_csv_and_parquet(texts: list[str]) -> None:
    assert read(jsonl_of([{"text": text} for text in texts]), "jsonl") == texts
    assert read(csv_of(texts), "csv") == texts
    assert read(parquet_of({"text": texts}), "parquet") == texts


def test_the_column_is_text_or_the_only_one_or_the_one_that_is_named() -> None:
    assert read(b"id,text\n1,yes\n", "csv") == ["yes"]
    assert read(b"review\ngood\n", "csv") == ["good"]
    assert read(b"id,text\n1,yes\n", "csv", "id") == ["1"]
    assert read(jsonl_of([{"review": "good"}]), "jsonl") == ["good"]
    assert read(parquet_of({"text": ["a"], "body": ["b"]}), "parquet", "body") == ["b"]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_a_missing_column_lists_those_there_are(file_format: Format) -> None:
    contents = {
        "csv": b"id,body\n1,a\n",
        "jsonl": jsonl_of([{"id": "1", "body": "a"}]),
        "parquet": parquet_of({"id": ["1"], "body": ["a"]}),
    }
    with pytest.raises(InputError, match=r"^file: no column 'review'; the columns are id, body$"):
        read(contents[file_format], file_format, "review")
    with pytest.raises(InputError, match=r"^file: no column 'text'; the columns are id, body$"):
        read(contents[file_format], file_format)


@pytest.mark.parametrize(
    ("content", "file_format", "message"),
    [
        (b"good\nb\xe9d\n", "lines", r"file, line 2: not UTF-8 at byte 1"),
        (jsonl_of([{"text": "a"}, {"text": None}]), "jsonl", r"file, row 2: 'text' is null; expected text"),
        (jsonl_of([{"text": "a"}, {"text": 1.5}]), "jsonl", r"file, row 2: 'text' is a number \(1.5\); expected text"),
        (jsonl_of([{"text": True}]), "jsonl", r"file, row 1: 'text' is a truth value \(true\)"),
        (jsonl_of([{"text": ["a"]}]), "jsonl", r"file, row 1: 'text' is a list \(\[\"a\"\]\)"),
        (jsonl_of([{"text": "a"}, {"id": 3}]), "jsonl", r"file, row 2: no 'text'; the columns are id"),
        (jsonl_of([{"text": "a"}, "b"]), "jsonl", r"file, row 2: a text \(\"b\"\); expected an object"),
        (b'{"text": "a"}\n\n{"text": "b"\n', "jsonl", r"file, row 3: not JSON: Expecting"),
        (b'{"text": "a", "x": NaN}\n', "jsonl", r"file, row 1: not JSON: NaN is not JSON"),
        (b'{"text": "a", "x": ' + b"[" * 100_000, "jsonl", r"file, row 1: not JSON: "),
        (b"text,id\na,1\nb\n", "csv", r"file, row 2 \(line 3\): 1 fields, but the header has 2"),
        (b'text,id\n"a\nb",1\nc,2,3\n', "csv", r"file, row 2 \(line 4\): 3 fields, but the header has 2"),
        (b'text\n"a"b\n', "csv", r"file, row 1 \(line 2\): .*expected after"),
        (b'text\n"never closed\n', "csv", r"file, row 1 \(line 2\): unexpected end of data"),
        (b"text\na\nb\xff\n", "csv", r"file, line 3: not UTF-8 at byte 1"),
        (b"text,text\na,b\n", "csv", r"file: the column 'text' is there twice; rename one"),
        (b"", "csv", r"file: empty; a CSV file starts with a line of column names"),
        (b"PAR1 not really", "parquet", r"file: not a readable Parquet file: "),
    ],
)  # fmt: skip
def test_the_first_bad_row_is_named(content: bytes, file_format: Format, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        read(content, file_format)


def test_parquet_nulls_and_columns_that_are_no_text_are_named() -> None:
    texts = ["a"] * (BATCH_ROWS + 3)
    with pytest.raises(InputError, match=rf"^file, row {BATCH_ROWS + 2}: 'text' is null; expected text$"):
        read(parquet_of({"text": [*texts[: BATCH_ROWS + 1], None, "b"]}), "parquet")
    with pytest.raises(InputError, match=r"^file: the column 'id' holds int64, not text; the columns are id, body$"):
        read(parquet_of({"id": [1], "body": ["a"]}), "parquet", "id")


def test_dictionary_and_large_strings_of_parquet_are_text() -> None:
    assert read(parquet_of({"text": pyarrow.array(["a", "b", "a"]).dictionary_encode()}), "parquet") == ["a", "b", "a"]
    assert read(parquet_of({"text": pyarrow.array(["a"], pyarrow.large_string())}), "parquet") == ["a"]


def test_a_file_of_lines_has_no_columns() -> None:
    with pytest.raises(InputError, match="column 'x' was asked for, but a file of lines has no columns"):
        read(b"a\n", "lines", "x")


def test_empty_tables() -> None:
    assert read(b"", "lines") == []
    assert read(b"\n\n", "lines") == ["", ""]
    assert read(b"\n \n", "jsonl") == []
    assert read(b"text,id\n", "csv") == []
    content = parquet_of({"id": pyarrow.array([], pyarrow.int8()), "text": pyarrow.array([], pyarrow.string())})
    (batch,) = open_text_table(io.BytesIO(content), "file", "parquet", TableOptions()).batches
    assert batch.texts == []
    assert batch.record_batch.schema.names == ["id", "text"]  # so that a Parquet output knows its columns


def test_fields_longer_than_the_csv_module_allows_by_default_are_read() -> None:
    assert read(b"text\n" + b"x" * 200_000 + b"\n", "csv") == ["x" * 200_000]


def test_batches_number_their_rows_and_are_cut_by_rows_and_by_characters() -> None:
    content = "\n".join(["x"] * (BATCH_ROWS + 1)).encode()
    batches = list(open_text_table(io.BytesIO(content), "file", "lines", TableOptions()).batches)
    assert [(batch.first_row, len(batch.texts)) for batch in batches] == [(1, BATCH_ROWS), (BATCH_ROWS + 1, 1)]
    long_lines = "\n".join(["x" * 3_000_000] * 5).encode()
    sizes = [
        len(batch.texts) for batch in open_text_table(io.BytesIO(long_lines), "file", "lines", TableOptions()).batches
    ]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("file_format", ["lines", "jsonl", "csv"])
def test_reading_holds_one_batch_and_not_the_file(tmp_path: Path, file_format: Format) -> None:
    def lines() -> Iterator[bytes]:
        yield b"text\n" if file_format == "csv" else b""
        line = "x" * 1000
        for _ in range(20_000):
            yield (json.dumps({"text": line}) if file_format == "jsonl" else line).encode() + b"\n"

    path = tmp_path / "texts"
    path.write_bytes(b"".join(lines()))
    tracemalloc.start()
    with path.open("rb") as file:
        row_count = sum(
            len(batch.texts) for batch in open_text_table(file, "file", file_format, TableOptions()).batches
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row_count == 20_000
    assert peak < 3_000_000  # the file has 20 MB


def test_parquet_row_groups_are_streamed_and_counted() -> None:
    content = parquet_of({"text": [f"text {n}" for n in range(3000)], "id": range(3000)}, row_group_size=700)
    table = open_text_table(io.BytesIO(content), "file", "parquet", TableOptions())
    batches: list[TextBatch] = list(table.batches)
    assert table.row_count == 3000
    assert table.columns == ("text", "id")
    assert [text for batch in batches for text in batch.texts] == [f"text {n}" for n in range(3000)]
    assert max(len(batch.texts) for batch in batches) <= BATCH_ROWS
    assert batches[-1].first_row + len(batches[-1].texts) == 3001
    assert batches[0].record_batch.column("id").to_pylist()[:3] == [0, 1, 2]
