"""Writes vectors to .npy, JSONL and Parquet files, as a stream.

A writer is a context manager that yields a function `write(batch, vectors)`. Memory holds one batch, or one row group
of Parquet.
"""

import base64
import contextlib
import datetime
import decimal
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.vector_types import RowType
from gte_sdk.errors import InputError
from gte_sdk.tables.parquet_texts import import_parquet
from gte_sdk.tables.text_batches import TextBatch, rows_of

VectorFormat = Literal["npy", "jsonl", "parquet"]
VECTOR_FORMATS: tuple[VectorFormat, ...] = ("npy", "jsonl", "parquet")
Write = Callable[[TextBatch, NDArray[Any]], None]

# Parquet readers work a row group at a time; 8,192 rows of 384 dimensions are 12 MiB.
ROW_GROUP_ROWS = 8192
_FORMAT_OF_SUFFIX: dict[str, VectorFormat] = {
    ".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip


def vector_format_of(path: Path) -> VectorFormat:
    """Returns the format of an output by its suffix. Raises InputError for an unknown one."""
    if path.suffix.lower() not in _FORMAT_OF_SUFFIX:
        known = " ".join(_FORMAT_OF_SUFFIX)
        raise InputError(f"{path}: the suffix {path.suffix!r} says no format (known: {known})", remedy="output format")
    return _FORMAT_OF_SUFFIX[path.suffix.lower()]


@contextlib.contextmanager
def open_writer(
    file: IO[bytes], vector_format: VectorFormat, row: RowType, vector_column: str, metadata: Mapping[str, str]
) -> Iterator[Write]:
    """Yields the function that writes a batch with its (n, width) vectors to `file`.

    npy: one array (rows, width); needs a seekable file.
    jsonl: each row with its vector as `vector_column`. Nine digits restore the same float32.
    parquet: the columns of the input, and `vector_column` as fixed_size_list[width]; the schema has `metadata`.
    """
    if vector_format == "npy":
        with _npy_writer(file, row) as write:
            yield write
    elif vector_format == "jsonl":
        yield lambda batch, vectors_ND: _write_jsonl(file, vector_column, batch, vectors_ND)
    else:
        with _parquet_writer(file, vector_column, metadata) as write:
            yield write


@contextlib.contextmanager
def _npy_writer(file: IO[bytes], row: RowType) -> Iterator[Write]:
    row_count = 0

    def header(rows: int) -> None:
        description = {"descr": row.dtype.str, "fortran_order": False, "shape": (rows, row.width)}
        np.lib.format.write_array_header_1_0(file, description)

    def write(batch: TextBatch, vectors_ND: NDArray[Any]) -> None:
        nonlocal row_count
        file.write(np.ascontiguousarray(vectors_ND, dtype=row.dtype).data)
        row_count += len(vectors_ND)

    start = file.tell()
    header(0)
    data_start = file.tell()
    yield write
    # numpy leaves room in the header for the first axis to grow, so the final header has the same length.
    file.seek(start)
    header(row_count)
    assert file.tell() == data_start
    file.seek(0, os.SEEK_END)


def _write_jsonl(file: IO[bytes], vector_column: str, batch: TextBatch, vectors_ND: NDArray[Any]) -> None:
    rows = batch.rows
    if rows is None:
        try:
            found = batch.record_batch.to_pylist()
            rows = [{name: _json_value(value) for name, value in row.items()} for row in found]
        except (ValueError, OverflowError, RecursionError) as error:  # such as times that Python has no value for
            raise InputError(f"{rows_of(batch)}: {error}", remedy="format parquet") from error
    for row, vector in zip(rows, vectors_ND.tolist(), strict=True):
        _check_vector_column(vector_column, row)
        try:
            encoded = json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
            encoded = json.dumps(row).encode("ascii")
        separator = ", " if row else ""
        numbers = ", ".join(map("{:.9g}".format, vector))
        file.write(memoryview(encoded)[:-1])
        file.write(f"{separator}{json.dumps(vector_column)}: [{numbers}]}}\n".encode())


def _json_value(value: object) -> object:
    """Converts a Parquet value to JSON: times to ISO 8601, decimals to text, bytes to base64, NaN to null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _json_value(item) for name, item in value.items()}
    return value


@contextlib.contextmanager
def _parquet_writer(file: IO[bytes], vector_column: str, metadata: Mapping[str, str]) -> Iterator[Write]:
    pyarrow, parquet = import_parquet()
    writer: Any = None
    pending: list[Any] = []
    input_schema: Any = None

    def write(batch: TextBatch, vectors_ND: NDArray[Any]) -> None:
        nonlocal input_schema
        columns = batch.record_batch
        if columns is None:
            columns = _record_batch(pyarrow, batch, input_schema)
        input_schema = columns.schema
        _check_vector_column(vector_column, input_schema.names)
        vectors = arrow_vectors(vectors_ND)
        schema = input_schema.append(pyarrow.field(vector_column, vectors.type, nullable=False))
        pending.append(pyarrow.record_batch([*columns.columns, vectors], schema=schema))
        if sum(len(part) for part in pending) >= ROW_GROUP_ROWS:
            flush()

    def flush() -> None:
        nonlocal writer
        table = pyarrow.Table.from_batches(pending)
        if writer is None:
            described = {**(table.schema.metadata or {}), **metadata}
            schema = table.schema.with_metadata(described)
            others = [name for name in schema.names if name != vector_column]
            writer = parquet.ParquetWriter(file, schema, use_dictionary=others, compression="zstd")
        writer.write_table(table.replace_schema_metadata(writer.schema.metadata))
        pending.clear()

    try:
        yield write
        if pending:
            flush()
    except BaseException:
        if writer is not None:
            with contextlib.suppress(OSError):  # what broke the writing breaks the closing too, and says less
                writer.close()
        raise
    if writer is None:
        raise InputError("the input has no rows; a Parquet file needs one to know its columns", remedy="format npy")
    writer.close()


def arrow_vectors(vectors_ND: NDArray[Any]) -> Any:
    """Returns n vectors as a pyarrow array fixed_size_list[width] of their type."""
    pyarrow, _ = import_parquet()
    numbers = pyarrow.array(np.ascontiguousarray(vectors_ND).reshape(-1))
    return pyarrow.FixedSizeListArray.from_arrays(numbers, vectors_ND.shape[1])


def _record_batch(pyarrow: Any, batch: TextBatch, schema: Any) -> Any:
    """Converts rows to Arrow columns with the types of the first batch."""
    rows: Sequence[dict[str, Any]] = batch.rows or []
    try:
        if schema is None:
            names = list(dict.fromkeys(name for row in rows for name in row))
            return pyarrow.RecordBatch.from_pydict({name: [row.get(name) for row in rows] for name in names})
        known = set(schema.names)
        if unknown := next((name for row in rows for name in row if name not in known), None):
            raise InputError(f"the column {unknown!r} is new")
        return pyarrow.RecordBatch.from_pylist(rows, schema=schema)
    except (pyarrow.ArrowException, InputError, TypeError, UnicodeError, OverflowError) as error:
        raise InputError(
            f"{rows_of(batch)}: {error}; the columns of a Parquet file have one type each, taken from the first rows",
            remedy="format jsonl",
        ) from error


def _check_vector_column(vector_column: str, columns: Sequence[str] | Mapping[str, Any]) -> None:
    if vector_column in columns:
        raise InputError(f"the input has a column {vector_column!r} already", remedy="vectors there")
