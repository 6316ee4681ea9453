"""Vector files: what is written is what other tools read, and a failure leaves what was there before."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from gte_sdk.atomic_file import replace_whole
from gte_sdk.embedding.vector_types import row_type
from gte_sdk.errors import InputError
from gte_sdk.tables.text_batches import TextBatch
from gte_sdk.tables.text_rows import Row
from gte_sdk.tables.vector_files import (
    ROW_GROUP_ROWS,
    VectorFormat,
    open_writer,
    vector_format_of,
)

DIM = 3


def vectors(count: int, start: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(start).standard_normal((count, DIM)).astype(np.float32)


def batch(first_row: int, rows: list[Row]) -> TextBatch:
    return TextBatch(first_row, [row["text"] for row in rows], rows, None)


def written(vector_format: VectorFormat, batches: list[tuple[TextBatch, NDArray[np.float32]]]) -> io.BytesIO:
    file = io.BytesIO()
    with open_writer(file, vector_format, row_type("float32", DIM), "embedding", {"gte_sdk.model": "tiny"}) as write:
        for rows, vectors_ND in batches:
            write(rows, vectors_ND)
    file.seek(0)
    return file


def test_formats_come_from_the_suffix() -> None:
    assert [vector_format_of(Path(name)) for name in ["a.npy", "a.jsonl", "a.PARQUET"]] == ["npy", "jsonl", "parquet"]
    with pytest.raises(InputError, match=r"a\.csv: the suffix '\.csv' says no format"):
        vector_format_of(Path("a.csv"))


@pytest.mark.parametrize("counts", [[], [1], [9, 1], [512, 512, 512]])
def test_npy_is_one_float32_array_whatever_the_row_count_turns_out_to_be(counts: list[int]) -> None:
    parts = [vectors(count, number) for number, count in enumerate(counts)]
    file = written("npy", [(TextBatch(1, [], [], None), part) for part in parts])
    array = np.load(file)
    assert array.dtype == np.float32
    assert array.shape == (sum(counts), DIM)
    np.testing.assert_array_equal(array, np.concatenate(parts) if parts else np.empty((0, DIM), np.float32))
    assert file.read() == b""


def test_npy_can_be_memory_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(written("npy", [(TextBatch(1, [], [], None), vectors(5))]).getvalue())
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), vectors(5))


def test_jsonl_keeps_the_row_and_gives_back_the_same_floats() -> None:
    rows: list[Row] = [{"id": 1, "text": "Über 東京"}, {"text": "b", "tags": ["x", None]}, {"text": "\ud800 lone"}]
    values = vectors(3) * np.float32(1e-3)
    file = written("jsonl", [(batch(1, rows[:2]), values[:2]), (batch(3, rows[2:]), values[2:])])
    lines = file.read().decode("utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    assert [list(row) for row in read] == [
        ["id", "text", "embedding"],
        ["text", "tags", "embedding"],
        ["text", "embedding"],
    ]
    np.testing.assert_array_equal(np.array([row.pop("embedding") for row in read], dtype=np.float32), values)
    assert read == rows
    assert "Über 東京" in lines[0]


def test_parquet_keeps_columns_and_types_and_adds_a_fixed_size_list() -> None:
    columns = {
        "id": pyarrow.array([3, 1, 2], pyarrow.int16()),
        "text": ["a", "b", "c"],
        "when": pyarrow.array([0, 1, None], pyarrow.timestamp("ms", "UTC")),
    }
    source = pyarrow.table(columns).replace_schema_metadata({"made": "before"}).combine_chunks().to_batches()[0]
    values = vectors(3)
    parts = [
        (TextBatch(1, ["a", "b"], None, source[:2]), values[:2]),
        (TextBatch(3, ["c"], None, source[2:]), values[2:]),
    ]
    table = parquet.read_table(written("parquet", parts))
    assert table.drop_columns(["embedding"]).equals(pyarrow.table(columns))
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), DIM)
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(3, DIM), values)
    assert table.schema.metadata[b"gte_sdk.model"] == b"tiny"
    assert table.schema.metadata[b"made"] == b"before"


def test_parquet_from_rows_takes_the_types_of_the_first_batch() -> None:
    first = batch(1, [{"text": "a", "n": 1}, {"text": "b", "n": None, "more": "x"}])
    table = parquet.read_table(written("parquet", [(first, vectors(2)), (batch(3, [{"text": "c"}]), vectors(1))]))
    assert table.drop_columns(["embedding"]).to_pylist() == [
        {"text": "a", "n": 1, "more": None},
        {"text": "b", "n": None, "more": "x"},
        {"text": "c", "n": None, "more": None},
    ]
    cases: list[tuple[Row, str]] = [
        ({"text": "c", "n": "three"}, r"rows 3 to 3: .*one type each"),
        ({"text": "c", "new": 1}, r"rows 3 to 3: the column 'new' is new"),
        ({"text": "\ud800"}, r"rows 3 to 3: "),
    ]
    for row, message in cases:
        with pytest.raises(InputError, match=message):
            written("parquet", [(first, vectors(2)), (batch(3, [row]), vectors(1))])


def test_parquet_rows_are_gathered_into_row_groups_that_bound_memory() -> None:
    rows: list[Row] = [{"text": "a"}] * 512
    count = 2 * ROW_GROUP_ROWS // 512 + 1
    parts = [(batch(1 + 512 * number, rows), vectors(512, number)) for number in range(count)]
    metadata = parquet.ParquetFile(written("parquet", parts)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [ROW_GROUP_ROWS] * 2 + [512]


def test_parquet_values_that_json_has_no_words_for() -> None:
    columns = {
        "text": ["a"],
        "when": pyarrow.array([0], pyarrow.timestamp("s")),
        "raw": [b"\xff\0"],
        "ratio": [float("nan")],
        "nested": [[{"day": None, "x": float("inf")}]],
    }
    record_batch = pyarrow.table(columns).to_batches()[0]
    (line,) = written("jsonl", [(TextBatch(1, ["a"], None, record_batch), vectors(1))]).read().decode().splitlines()
    row = json.loads(line, parse_constant=pytest.fail)
    del row["embedding"]
    assert row == {
        "text": "a", "when": "1970-01-01T00:00:00", "raw": "/wA=", "ratio": None, "nested": [{"day": None, "x": None}],
    }  # fmt: skip


@pytest.mark.parametrize("vector_format", ["jsonl", "parquet"])
def test_a_column_of_the_same_name_is_not_overwritten(vector_format: VectorFormat) -> None:
    rows = batch(1, [{"text": "a", "embedding": "mine"}])
    with pytest.raises(InputError, match="already"):
        written(vector_format, [(rows, vectors(1))])


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("vector_format", ["npy", "jsonl", "parquet"])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, vector_format: VectorFormat) -> None:
    import resource

    def fill(target: Path) -> None:
        rows: list[Row] = [{"text": f"{number:x}" * 50} for number in range(ROW_GROUP_ROWS)]
        with (
            replace_whole(target) as file,
            open_writer(file, vector_format, row_type("float32", DIM), "embedding", {}) as write,
        ):
            for number in range(4):
                write(batch(1, rows), vectors(len(rows), number))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fill(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
