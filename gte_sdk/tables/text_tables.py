"""Texts out of files of rows: lines, JSONL, CSV, TSV and Parquet, read as a stream of batches.

Memory is that of one batch, or of one row group of a Parquet file. Rows are checked as they are read: the first that
has no text (a missing or null field, a number, a broken line) is an InputError that names the file and the row, since a
vector file with a silent gap no longer belongs to its rows.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from gte_sdk.errors import InputError

Format = Literal["lines", "jsonl", "csv", "tsv", "parquet"]
FORMATS: tuple[Format, ...] = ("lines", "jsonl", "csv", "tsv", "parquet")
DEFAULT_COLUMN = "text"

BATCH_ROWS = 512
# A batch of long rows is cut earlier, so that 512 books do not lie in memory at once.
BATCH_CHARACTERS = 4_000_000

_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".txt": "lines", ".text": "lines", ".lines": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
# What a spreadsheet puts into one field is bounded by memory only; the csv module's own limit is 128 KiB.
_CSV_FIELD_LIMIT = 2**31 - 1

Row = dict[str, Any]


class TextBatch(NamedTuple):
    first_row: int
    """Number of the first row, from 1; a CSV header is not counted."""
    texts: list[str]
    rows: Sequence[Row] | None
    """The rows with all their columns; None for a Parquet file, whose rows are in record_batch."""
    record_batch: Any
    """The pyarrow.RecordBatch of a Parquet file, else None."""


class TextTable(NamedTuple):
    column: str
    """The column that the texts come from."""
    columns: tuple[str, ...] | None
    """All columns, None where every row has its own (JSONL)."""
    row_count: int | None
    """None where it is not known before the end."""
    batches: Iterator[TextBatch]


def format_of(path: Path) -> Format:
    """The format that a file's suffix stands for; InputError for one that is not known."""
    suffix = path.suffix.lower()
    if suffix not in _FORMAT_OF_SUFFIX:
        known = " ".join(_FORMAT_OF_SUFFIX)
        raise InputError(f"{path}: the suffix {suffix!r} says no format (known: {known}); give --input-format")
    return _FORMAT_OF_SUFFIX[suffix]


def read_texts(file: IO[bytes], name: str, file_format: Format, column: str | None) -> TextTable:
    """Opens a table of texts. `file` is open in binary mode, and seekable for Parquet; `name` is for messages.

    column: where the texts are; by default "text", or the only column that there is. A file of lines has none.
    The batches raise InputError at the first row without a text. An empty line of a file of lines is an empty text;
    blank lines between JSON objects are passed over.
    """
    if file_format == "parquet":
        return read_parquet_texts(file, name, column)
    if file_format == "lines":
        if column is not None:
            raise InputError(f"{name}: column {column!r} was asked for, but a file of lines has no columns")
        lines = ({DEFAULT_COLUMN: line} for _, line in _lines(file, name))
        return TextTable(DEFAULT_COLUMN, (DEFAULT_COLUMN,), None, _batches(lines, DEFAULT_COLUMN))
    if file_format == "jsonl":
        return _read_jsonl(file, name, column)
    return _read_csv(file, name, column, "\t" if file_format == "tsv" else ",")


def _read_jsonl(file: IO[bytes], name: str, column: str | None) -> TextTable:
    rows = _json_rows(file, name)
    first = next(rows, None)
    if first is None:
        return TextTable(column or DEFAULT_COLUMN, None, None, iter(()))
    chosen = _choose_column(name, column, list(first[1]))

    def checked() -> Iterator[Row]:
        yield _checked_row(name, *first, chosen)
        for number, row in rows:
            yield _checked_row(name, number, row, chosen)

    return TextTable(chosen, None, None, _batches(checked(), chosen))


def _json_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, Row]]:
    def no_constant(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    for number, line in _lines(file, name):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, row {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f'{name}, row {number}: {_shown(row)}; expected an object like {{"text": "..."}}')
        yield number, row


def _read_csv(file: IO[bytes], name: str, column: str | None, delimiter: str) -> TextTable:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    reader = csv.reader((line for _, line in _lines(file, name, keep_ends=True)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{name}, header: {error}") from error
    if header is None:
        raise InputError(f"{name}: empty; a CSV file starts with a line of column names")
    if doubled := [column_name for column_name in header if header.count(column_name) > 1]:
        raise InputError(f"{name}: the column {doubled[0]!r} is there twice; rename one")
    chosen = _choose_column(name, column, header)

    def rows() -> Iterator[Row]:
        number = 0
        while True:
            number += 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise InputError(f"{name}, row {number} (line {reader.line_num}): {error}") from error
            if fields is None:
                return
            if not fields:  # a blank line: an empty text where there is one column, else a row without its fields
                fields = [""]
            if len(fields) != len(header):
                where = f"{name}, row {number} (line {reader.line_num})"
                raise InputError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
            yield dict(zip(header, fields, strict=True))

    return TextTable(chosen, tuple(header), None, _batches(rows(), chosen))


def read_parquet_texts(file: IO[bytes], name: str, column: str | None, rows: range | None = None) -> TextTable:
    """As `read_texts` for Parquet; with `rows` only those of the file, which start at a multiple of BATCH_ROWS.

    Batches end at multiples of BATCH_ROWS of the file, whatever its row groups are: a part of a file is read in the
    batches that the whole file is read in.
    """
    pyarrow, parquet = import_parquet()
    try:
        parquet_file = parquet.ParquetFile(file, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file: {error}") from error
    schema = parquet_file.schema_arrow
    chosen = _choose_column(name, column, schema.names)
    field = schema.field(chosen)
    value_type = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    if not (pyarrow.types.is_string(value_type) or pyarrow.types.is_large_string(value_type)):
        raise InputError(f"{name}: the column {chosen!r} holds {field.type}, not text; {_columns(schema.names)}")
    wanted = range(parquet_file.metadata.num_rows) if rows is None else rows
    assert wanted.start % BATCH_ROWS == 0

    def batches() -> Iterator[TextBatch]:
        first_row = wanted.start + 1
        try:
            for record_batch in _record_batches(pyarrow, parquet_file, wanted):
                texts = record_batch.column(chosen).to_pylist()
                if None in texts:
                    raise InputError(f"{name}, row {first_row + texts.index(None)}: {chosen!r} is null; expected text")
                yield TextBatch(first_row, texts, None, record_batch)
                first_row += len(texts)
            if not wanted:
                yield TextBatch(first_row, [], None, pyarrow.RecordBatch.from_pylist([], schema))
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{name}, after row {first_row - 1}: {error}") from error

    return TextTable(chosen, tuple(schema.names), len(wanted), batches())


def _record_batches(pyarrow: Any, parquet_file: Any, rows: range) -> Iterator[Any]:
    """The rows of the row groups that they lie in, BATCH_ROWS at a time; pyarrow's own batches end with row groups."""
    groups: list[int] = []
    row = start = 0
    for group in range(parquet_file.num_row_groups):
        end = row + parquet_file.metadata.row_group(group).num_rows
        if end > rows.start and row < rows.stop:
            start = start if groups else row
            groups.append(group)
        row = end
    pending: list[Any] = []
    row = start
    for read in parquet_file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups):
        part = read.slice(max(0, rows.start - row), max(0, rows.stop - max(row, rows.start)))
        row += len(read)
        while len(part):
            room = BATCH_ROWS - sum(map(len, pending))
            pending.append(part.slice(0, room))
            part = part.slice(room)
            if sum(map(len, pending)) == BATCH_ROWS:
                yield _joined(pyarrow, pending)
                pending = []
        if row >= rows.stop:
            break
    if pending:
        yield _joined(pyarrow, pending)


def _joined(pyarrow: Any, batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    (batch,) = pyarrow.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def import_parquet() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet; InputError that names the extra where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'gte-sdk[cli]'") from error
    return pyarrow, pyarrow.parquet


def _lines(file: IO[bytes], name: str, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    """Numbered lines in UTF-8, with or without a byte order mark, without their ends of line unless kept."""
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not keep_ends:
            line = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{name}, row {number}" if not keep_ends else f"{name}, line {number}"
            raise InputError(f"{where}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from error


def _batches(rows: Iterable[Row], column: str) -> Iterator[TextBatch]:
    first_row = 1
    remaining = iter(rows)
    while batch := list(_take(remaining, column)):
        yield TextBatch(first_row, [row[column] for row in batch], batch, None)
        first_row += len(batch)


def _take(rows: Iterator[Row], column: str) -> Iterator[Row]:
    characters = 0
    for row in islice(rows, BATCH_ROWS):
        yield row
        characters += len(row[column])
        if characters >= BATCH_CHARACTERS:
            return


def _checked_row(name: str, number: int, row: Row, column: str) -> Row:
    if column not in row:
        raise InputError(f"{name}, row {number}: no {column!r}; {_columns(list(row))}")
    if not isinstance(row[column], str):
        raise InputError(f"{name}, row {number}: {column!r} is {_shown(row[column])}; expected text")
    return row


def _choose_column(name: str, column: str | None, columns: list[str]) -> str:
    if column is None:
        if DEFAULT_COLUMN not in columns and len(columns) != 1:
            raise InputError(f"{name}: no column {DEFAULT_COLUMN!r}; name one with --column; {_columns(columns)}")
        return DEFAULT_COLUMN if DEFAULT_COLUMN in columns else columns[0]
    if column not in columns:
        raise InputError(f"{name}: no column {column!r}; {_columns(columns)}")
    return column


def _columns(columns: Sequence[str]) -> str:
    return f"the columns are {', '.join(columns)}" if columns else "there are no columns"


def _shown(value: object) -> str:
    if value is None:
        return "null"
    kind = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return f"{kind.get(type(value), 'a text')} ({json.dumps(value, ensure_ascii=False):.60})"
