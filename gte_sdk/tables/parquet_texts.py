"""Texts out of Parquet files.

A batch of texts is bounded, but pyarrow decompresses a page as a whole, and a page has up to 2 GiB. Whoever writes the
file decides on that: some MiB with common writers. A cell that is too long is refused before it is read where the sizes
of the row groups say so, else when its page was read.
"""

from collections.abc import Iterator
from typing import IO, Any

from gte_sdk.errors import InputError
from gte_sdk.tables.text_batches import (
    BATCH_CHARACTERS,
    BATCH_ROWS,
    TableOptions,
    TextBatch,
    TextTable,
    choose_column,
    named,
)
from gte_sdk.tables.text_lines import MAX_ROW_BYTES, too_long
from gte_sdk.tables.text_rows import first_doubled

MOST_GROUP_BYTES_A_ROW = 2 * MAX_ROW_BYTES
"""The uncompressed size of a row group, all columns, by its rows: what is more is no table of texts."""
# Read at once: with the longest texts that may be, 192 MiB.
READ_ROWS = 64
assert BATCH_ROWS % READ_ROWS == 0


def read_parquet_texts(file: IO[bytes], name: str, options: TableOptions, rows: range | None = None) -> TextTable:
    """Opens the texts of a Parquet file, or of some of its rows.

    rows: a range that starts at a multiple of BATCH_ROWS. Batches end at multiples of BATCH_ROWS of the file, or of
    READ_ROWS where texts are long, whatever its row groups are, so a part of a file has the batches of the whole file.
    """
    pyarrow, parquet = import_parquet()
    try:
        parquet_file = parquet.ParquetFile(file, pre_buffer=False)
        schema = parquet_file.schema_arrow
        names: list[str] = schema.names
        if (doubled := first_doubled(names)) is not None:
            raise InputError(f"{name}: the column {doubled!r:.80} is there twice; rename one")
        chosen = _text_column(name, options.column, schema)
        _check_sizes(name, parquet_file.metadata)
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"{name}: not a readable Parquet file: {error}") from error
    path = [chosen] if chosen in names else chosen.split(".")
    wanted = range(parquet_file.metadata.num_rows) if rows is None else rows
    assert wanted.start % BATCH_ROWS == 0

    def batches() -> Iterator[TextBatch]:
        first_row = wanted.start + 1
        try:
            for record_batch in _record_batches(pyarrow, parquet_file, wanted, path[0]):
                yield _text_batch(name, first_row, record_batch, path, options)
                first_row += len(record_batch)
            if not wanted:
                yield TextBatch(first_row, [], None, pyarrow.RecordBatch.from_pylist([], schema))
        except (pyarrow.ArrowException, OSError, UnicodeError) as error:
            raise InputError(f"{name}, after row {first_row - 1}: {error}") from error

    return TextTable(chosen, tuple(names), len(wanted), batches())


def _text_column(name: str, column: str | None, schema: Any) -> str:
    """Returns the column of the texts, which may be a field of a struct ("doc.text")."""
    pyarrow, _ = import_parquet()
    top, *rest = (column or "").split(".")
    if column is not None and column not in schema.names and rest and top in schema.names:
        chosen, field = column, schema.field(top)
        for part in rest:
            if not pyarrow.types.is_struct(field.type) or field.type.get_field_index(part) < 0:
                raise InputError(f"{name}: no column {column!r}; {named(schema.names)}, and {top!r} is {field.type}")
            field = field.type.field(part)
    else:
        chosen = choose_column(name, column, schema.names)
        field = schema.field(chosen)
    value_type = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    if not any(
        is_text(value_type)
        for is_text in (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    ):
        raise InputError(f"{name}: the column {chosen!r} holds {field.type}, not text; {named(schema.names)}")
    return chosen


def _check_sizes(name: str, metadata: Any) -> None:
    """Raises InputError where a row group has more bytes than its rows may have together.

    That is of all columns: pyarrow ends the process where it is asked for those of one and its description is damaged.
    """
    first_row = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        most = max(group.num_rows, 1) * MOST_GROUP_BYTES_A_ROW
        if group.total_byte_size > most:
            raise InputError(
                f"{name}, rows {first_row} to {first_row + group.num_rows - 1} have {group.total_byte_size >> 20} MiB "
                f"together, and more than {MOST_GROUP_BYTES_A_ROW >> 20} MiB a row; split long texts, or write the "
                "column of the texts to a file of its own"
            )
        first_row += group.num_rows


def _text_batch(name: str, first_row: int, record_batch: Any, path: list[str], options: TableOptions) -> TextBatch:
    values = record_batch.column(path[0])
    if path[1:]:
        import pyarrow.compute

        values = pyarrow.compute.struct_field(values, path[1:])
    texts = values.to_pylist()
    for number, text in enumerate(texts, first_row):
        if text is not None and len(text) > MAX_ROW_BYTES:
            raise too_long(name, f"row {number}")
    if None not in texts:
        return TextBatch(first_row, texts, None, record_batch)
    if options.on_null in (None, "error"):
        raise InputError(
            f"{name}, row {first_row + texts.index(None)}: {'.'.join(path)!r} is null; expected text", remedy="on null"
        )
    if options.on_null == "empty":
        return TextBatch(first_row, [text or "" for text in texts], None, record_batch)
    kept = [text for text in texts if text is not None]
    return TextBatch(first_row, kept, None, record_batch.filter(values.is_valid()), len(texts) - len(kept))


def _record_batches(pyarrow: Any, parquet_file: Any, rows: range, column: str) -> Iterator[Any]:
    """Yields rows, BATCH_ROWS at a time across row groups, fewer where the texts in `column` are long."""
    groups: list[int] = []
    row = start = 0
    for group in range(parquet_file.num_row_groups):
        end = row + parquet_file.metadata.row_group(group).num_rows
        if end > rows.start and row < rows.stop:
            start = start if groups else row
            groups.append(group)
        row = end
    pending: list[Any] = []
    row, size = start, 0
    for read in parquet_file.iter_batches(batch_size=READ_ROWS, row_groups=groups):
        part = read.slice(max(0, rows.start - row))  # pyarrow's own batches end with each row group
        row += len(read) - len(part)
        while len(part) and row < rows.stop:
            piece = part.slice(0, min(READ_ROWS - row % READ_ROWS, rows.stop - row))
            part = part.slice(len(piece))
            pending.append(piece)
            row += len(piece)
            size += piece.column(column).nbytes
            if row % BATCH_ROWS == 0 or (row % READ_ROWS == 0 and size >= BATCH_CHARACTERS):
                yield _joined(pyarrow, pending)
                pending, size = [], 0
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
    """Imports pyarrow and pyarrow.parquet. Raises InputError with the extra to install if they are missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'gte-sdk[cli]'") from error
    return pyarrow, pyarrow.parquet
