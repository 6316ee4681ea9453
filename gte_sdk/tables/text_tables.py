"""Reads texts from tables in lines, JSON, CSV, TSV and Parquet, as a stream of batches.

Memory holds one batch, or one row group of a Parquet file. The first row without a text raises an InputError that names
the file and the row: after a silent gap, vectors would no longer match their rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from gte_sdk.errors import InputError
from gte_sdk.tables.parquet_texts import read_parquet_texts
from gte_sdk.tables.text_batches import (
    DEFAULT_COLUMN,
    MISSING,
    TableOptions,
    TextTable,
    batches_of,
    choose_column,
    value_of,
)
from gte_sdk.tables.text_lines import read_lines, read_pieces
from gte_sdk.tables.text_rows import Row, csv_rows, json_rows, jsonl_rows, tsv_rows

Format = Literal["lines", "jsonl", "json", "csv", "tsv", "parquet"]
FORMATS: tuple[Format, ...] = ("lines", "jsonl", "json", "csv", "tsv", "parquet")
_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".txt": "lines", ".text": "lines", ".lines": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED_SUFFIXES = (".gz", ".zst")


def format_of(path: Path) -> Format:
    """Returns the format of a file by its suffix, without .gz or .zst. Raises InputError for an unknown one."""
    suffix = path.suffix.lower()
    if suffix in _COMPRESSED_SUFFIXES:
        suffix = path.with_suffix("").suffix.lower()
    if suffix not in _FORMAT_OF_SUFFIX:
        known = " ".join(_FORMAT_OF_SUFFIX)
        raise InputError(f"{path}: the suffix {suffix!r} says no format (known: {known})", remedy="input format")
    return _FORMAT_OF_SUFFIX[suffix]


def open_text_table(file: IO[bytes], name: str, file_format: Format, options: TableOptions) -> TextTable:
    """Opens a table of texts.

    file: open in binary mode; seekable for Parquet. Text files may be compressed with gzip or Zstandard.
    name: of the file, for messages.

    The batches raise InputError at the first row without a text (see TableOptions.on_null). An empty line of a file of
    lines is an empty text.
    """
    if options.delimiter is not None:
        _check_delimiter(name, options.delimiter, file_format)
    if file_format == "parquet":
        if options.encoding != "utf-8":
            raise InputError(f"{name}: Parquet is always UTF-8; an encoding is for text files")
        return read_parquet_texts(file, name, options)
    if file_format == "json":
        return _json_table(json_rows(read_pieces(file, name, options.encoding), name), name, options)
    lines = read_lines(file, name, options.encoding, keep_ends=file_format == "csv")
    if file_format == "lines":
        if options.column is not None:
            raise InputError(f"{name}: column {options.column!r} was asked for, but a file of lines has no columns")
        line_rows = ((number, {DEFAULT_COLUMN: line}) for number, line in lines)
        return TextTable(DEFAULT_COLUMN, (DEFAULT_COLUMN,), None, batches_of(line_rows, name, DEFAULT_COLUMN, None))
    if file_format == "jsonl":
        return _json_table(jsonl_rows(lines, name), name, options)
    columns, rows = csv_rows(lines, name, options.delimiter) if file_format == "csv" else tsv_rows(lines, name)
    chosen = choose_column(name, options.column, columns)
    if options.on_null is not None:
        rows = ((number, {**row, chosen: row[chosen] or None}) for number, row in rows)
    return TextTable(chosen, tuple(columns), None, batches_of(rows, name, chosen, options.on_null))


def _check_delimiter(name: str, delimiter: str, file_format: Format) -> None:
    if file_format != "csv":
        raise InputError(f"{name}: a delimiter is for CSV, not for {file_format}", remedy="input format csv")
    if len(delimiter) != 1 or delimiter in '"\r\n \0':
        raise InputError(f"delimiter={delimiter!r}; give one character, such as ; or a tab")


def _json_table(rows: Iterator[tuple[int, Row]], name: str, options: TableOptions) -> TextTable:
    first = next(rows, None)
    if first is None:
        return TextTable(options.column or DEFAULT_COLUMN, None, None, iter(()))
    chosen = options.column
    if chosen is None or (value_of(first[1], chosen) is MISSING and options.on_null in (None, "error")):
        chosen = choose_column(name, chosen, list(first[1]))

    def all_rows() -> Iterator[tuple[int, Row]]:
        yield first
        yield from rows

    return TextTable(chosen, None, None, batches_of(all_rows(), name, chosen, options.on_null))
