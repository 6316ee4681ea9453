"""Batches of texts with their rows, and the column that the texts come from."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from gte_sdk.errors import InputError
from gte_sdk.tables.text_rows import Row, shown

OnNull = Literal["error", "skip", "empty"]
ON_NULL: tuple[OnNull, ...] = ("error", "skip", "empty")
DEFAULT_COLUMN = "text"

BATCH_ROWS = 512
# A batch of long rows is cut earlier, so that 512 books do not lie in memory at once.
BATCH_CHARACTERS = 4_000_000
_VALUE_CHARACTERS = 64  # what any value takes, beside its characters

MISSING = object()


class TableOptions(NamedTuple):
    """How to read a table, as far as its format leaves it open."""

    column: str | None = None
    """The column of the texts, or a field of a column ("doc.text"). None: "text", or the only column."""
    delimiter: str | None = None
    """The character that separates the columns of CSV. None: a comma."""
    encoding: str = "utf-8"
    on_null: OnNull | None = None
    """What to do with a row whose text is null, missing, or an empty cell of CSV. None: null is an error, and an empty
    cell is an empty text."""


class TextBatch(NamedTuple):
    first_row: int
    """Number of the first row, from 1; a CSV header is not counted."""
    texts: list[str]
    rows: Sequence[Row] | None
    """The rows with all their columns; None for a Parquet file, whose rows are in record_batch."""
    record_batch: Any
    """The pyarrow.RecordBatch of a Parquet file, else None."""
    skipped: int = 0
    """The number of rows skipped since the previous batch."""


class TextTable(NamedTuple):
    column: str
    """The column that the texts come from."""
    columns: tuple[str, ...] | None
    """All columns; None where every row has its own (JSON)."""
    row_count: int | None
    """None where it is not known before the end."""
    batches: Iterator[TextBatch]


def batches_of(rows: Iterable[tuple[int, Row]], name: str, column: str, on_null: OnNull | None) -> Iterator[TextBatch]:
    first_row, characters, skipped = 1, 0, 0
    texts: list[str] = []
    batch_rows: list[Row] = []
    for number, row in rows:
        text = value_of(row, column)
        if not isinstance(text, str):
            if text is not None and text is not MISSING:
                raise InputError(f"{name}, row {number}: {column!r} is {shown(text)}; expected text")
            if on_null in (None, "error"):
                found = (
                    f"no {column!r}; {named(list(row))}" if text is MISSING else f"{column!r} is null; expected text"
                )
                raise InputError(f"{name}, row {number}: {found}", remedy="on null")
            if on_null == "skip":
                skipped += 1
                continue
            text = ""
        first_row = first_row if texts else number
        texts.append(text)
        batch_rows.append(row)
        characters += _size(row)
        if len(texts) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield TextBatch(first_row, texts, batch_rows, None, skipped)
            texts, batch_rows, characters, skipped = [], [], 0, 0
    if texts or skipped:
        yield TextBatch(first_row, texts, batch_rows, None, skipped)


def _size(value: Any) -> int:
    """Returns about how many characters a row is, with all its columns."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_VALUE_CHARACTERS + len(name) + _size(part) for name, part in value.items())
    if isinstance(value, list):
        return _VALUE_CHARACTERS * len(value) + sum(
            _size(part) for part in value if isinstance(part, str | dict | list)
        )
    return 0


def value_of(row: Row, column: str) -> Any:
    """Returns the value of a column, or of a field of a column ("doc.text"); MISSING if there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def choose_column(name: str, column: str | None, columns: list[str]) -> str:
    """Returns `column`, or the default column if it is None. Raises InputError if there is no such column."""
    if column is None:
        if DEFAULT_COLUMN not in columns and len(columns) != 1:
            raise InputError(f"{name}: no column {DEFAULT_COLUMN!r}; {named(columns)}", remedy="column")
        return DEFAULT_COLUMN if DEFAULT_COLUMN in columns else columns[0]
    if column not in columns:
        raise InputError(f"{name}: no column {column!r}; {named(columns)}")
    return column


def named(columns: Sequence[str]) -> str:
    """Lists the columns, for a message."""
    return f"the columns are {', '.join(columns):.1000}" if columns else "there are no columns"


def without_column(table: TextTable, name: str) -> TextTable:
    """Returns the table with rows that lack a column, such as vectors that are made again.

    Raises InputError if it is the column of the texts.
    """
    if name == table.column:
        raise InputError(f"the column {name!r} holds the texts", remedy="vector column")

    def batches() -> Iterator[TextBatch]:
        for batch in table.batches:
            if batch.record_batch is not None:
                columns = batch.record_batch
                kept = [column for column in columns.schema.names if column != name]
                yield batch._replace(record_batch=columns.select(kept))
            else:
                rows = [{key: value for key, value in row.items() if key != name} for row in batch.rows or ()]
                yield batch._replace(rows=rows)

    columns = None if table.columns is None else tuple(column for column in table.columns if column != name)
    return table._replace(columns=columns, batches=batches())


def rows_of(batch: TextBatch) -> str:
    """Names the rows of a batch, for a message."""
    return f"rows {batch.first_row} to {batch.first_row + len(batch.texts) + batch.skipped - 1}"
