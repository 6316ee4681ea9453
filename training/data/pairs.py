"""Pairs of texts on disk: Parquet or JSON lines become a memory-mapped Arrow file for each source, read row by row.

A file is checked as a whole when it is first opened, and kept uncompressed under its SHA-256 in a cache directory. From
then on, opening a source costs a hash of the file, and memory holds only the rows that are read.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gte_sdk.atomic_file import replace_whole
from gte_sdk.model_files.directory import sha256_of_file

ROWS_A_BATCH = 16_384
DEFAULT_CACHE = Path("~/.cache/gte-sdk/pairs")
SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("document", pa.large_string()),
        ("negatives", pa.large_list(pa.large_string())),
        ("label", pa.large_string()),
    ]
)
_NOT_A_WORD = re.compile(r"[\W_]+")


class PairsError(ValueError):
    """A source that is missing, empty or malformed. The message names the file, the row and the remedy."""


class Pair(NamedTuple):
    query: str
    document: str
    negatives: tuple[str, ...] = ()
    """Hard negatives of the query, if any."""
    label: str = ""
    """What query and document have in common, such as a topic. Pairs with one label are no negatives of each other."""


@dataclass(frozen=True)
class Source:
    """The pairs of one file. `name` is the file's stem, such as `code__rosettacode`; `code` is the category."""

    name: str
    path: Path
    sha256: str
    rows: NDArray[np.int64]
    """(n,): the rows to train on, in the file's order."""
    refused: int
    """How many rows were left out because an evaluation set has one of their texts."""
    batches: list[pa.RecordBatch]

    @property
    def category(self) -> str:
        return self.name.partition("__")[0]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        """Pair `index` of those to train on, 0 <= index < len(self)."""
        batch, offset = divmod(int(self.rows[index]), ROWS_A_BATCH)
        query, document, negatives, label = (column[offset].as_py() for column in self.batches[batch].columns)
        return Pair(query, document, tuple(negatives or ()), label or "")

    def with_rows(self, rows: NDArray[np.int64]) -> "Source":
        """The same source with some of its rows."""
        return dataclasses.replace(self, rows=rows)


def open_source(path: Path, cache: Path = DEFAULT_CACHE, forbidden: Set[str] = frozenset()) -> Source:
    """Opens a .parquet or .jsonl file of (query, document, optional list of negatives, optional label).

    Rows with a text whose `to_comparable` form is in `forbidden` are left out and counted. Raises PairsError if the
    file is missing, of another kind, without rows, or has a row without a text where one belongs.
    """
    if not path.is_file():
        raise PairsError(f"{path} is missing; every source of the recipe must be there")
    cache = cache.expanduser()
    try:
        return _open_source(path, cache, forbidden)
    except OSError as error:
        raise PairsError(f"{path} cannot be read, or cached in {cache}: {error}; free space there") from error


def _open_source(path: Path, cache: Path, forbidden: Set[str]) -> Source:
    sha256 = sha256_of_file(path)
    arrow_file = cache / f"{sha256[:40]}.v2.arrow"  # the version of SCHEMA
    if not arrow_file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with replace_whole(arrow_file) as file:
            _write_arrow(path, file)
    reader = pa.ipc.open_file(pa.memory_map(str(arrow_file)))
    batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    row_count = sum(batch.num_rows for batch in batches)
    allowed = np.arange(row_count, dtype=np.int64)
    if forbidden:
        name = f"{sha256[:40]}.{_hash_texts(frozenset(forbidden))[:16]}.npy"
        allowed = _load_allowed_rows(cache / name, batches, forbidden)
    if len(allowed) == 0:
        raise PairsError(f"{path} has no pair left: all {row_count} are in an evaluation set")
    return Source(path.stem, path, sha256, allowed, row_count - len(allowed), batches)


def to_comparable(text: str) -> str:
    """The form in which training texts are compared with evaluation texts: letters and digits in lower case."""
    return _NOT_A_WORD.sub(" ", text.casefold()).strip()


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Writes a Parquet file that open_source reads."""
    columns: Sequence[tuple[Any, ...]] = list(zip(*pairs, strict=True)) or [()] * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with replace_whole(path) as file:
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), file, compression="zstd")


def _write_arrow(path: Path, output: IO[bytes]) -> None:
    if path.suffix == ".parquet":
        tables = _read_parquet(path)
    elif path.suffix in (".jsonl", ".json"):
        tables = _read_json_lines(path)
    else:
        raise PairsError(f"{path} is neither .parquet nor .jsonl")
    first_row = 0
    with pa.ipc.new_file(output, SCHEMA) as writer:
        for table in tables:
            _check_texts(path, table, first_row)
            writer.write_table(table.combine_chunks(), max_chunksize=ROWS_A_BATCH)
            first_row += table.num_rows
    if first_row == 0:
        raise PairsError(f"{path} is empty; remove it from the recipe's sources")


def _read_parquet(path: Path) -> Iterator[pa.Table]:
    """Yields tables of ROWS_A_BATCH rows, the last one shorter, so that the row of a pair gives its batch.

    The file is read as a whole, because Parquet's own batches end where row groups end.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PairsError(f"{path} is not a readable Parquet file: {error}") from error
    names = file.schema_arrow.names
    if missing := {"query", "document"} - set(names):
        raise PairsError(f"{path} has no column {' and '.join(sorted(missing))} but {', '.join(names)}")
    try:
        table = file.read([field.name for field in SCHEMA if field.name in names])
    except (pa.ArrowException, OSError) as error:
        raise PairsError(f"{path} is damaged: {error}") from error
    for name in ("negatives", "label"):
        if name not in names:
            table = table.append_column(name, pa.nulls(table.num_rows, SCHEMA.field(name).type))
    table = table.select(SCHEMA.names)
    for first_row in range(0, table.num_rows, ROWS_A_BATCH):
        part = table.slice(first_row, ROWS_A_BATCH)
        try:
            yield part.cast(SCHEMA)
        except pa.ArrowException as error:
            raise PairsError(
                f"{path}: columns {part.schema.types} are not (text, text, list of texts, text)"
            ) from error


def _read_json_lines(path: Path) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    with path.open("rb") as lines:
        for row, line in enumerate(lines, 1):
            try:
                fields = json.loads(line.decode("utf-8"))
                rows.append({field.name: fields.get(field.name) for field in SCHEMA})
                if isinstance(rows[-1]["negatives"], str):
                    raise TypeError("negatives is one text, not a list of texts")
                pa.array([rows[-1]], pa.struct(SCHEMA))
            except (ValueError, TypeError, AttributeError) as error:
                message = f'{{"query": "...", "document": "...", "negatives": ["..."]}} belongs there ({error})'
                shown = line.strip()[:80].decode("utf-8", "backslashreplace")
                raise PairsError(f"{path}, row {row}: {shown!r} is malformed; {message}") from error
            if len(rows) == ROWS_A_BATCH:
                yield pa.Table.from_pylist(rows, SCHEMA)
                rows = []
    if rows:
        yield pa.Table.from_pylist(rows, SCHEMA)


def _check_texts(path: Path, table: pa.Table, first_row: int) -> None:
    for name in ("query", "document"):
        lengths = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(table[name])), 0)
        bad = pc.index(lengths, 0).as_py()
        if bad >= 0:
            value = table[name][bad].as_py()
            raise PairsError(f"{path}, row {first_row + bad + 1}: {name} is {value!r}, but every pair needs both texts")
    negatives = pc.list_flatten(table["negatives"])
    if negatives.null_count:
        bad = next(row for row, texts in enumerate(table["negatives"].to_pylist()) if None in (texts or ()))
        raise PairsError(f"{path}, row {first_row + bad + 1}: a negative is null, but every one must be a text")


def _load_allowed_rows(path: Path, batches: list[pa.RecordBatch], forbidden: Set[str]) -> NDArray[np.int64]:
    if not path.is_file():
        with replace_whole(path) as file:
            np.save(file, _find_allowed_rows(batches, forbidden))
    rows: NDArray[np.int64] = np.load(path)
    return rows


@lru_cache(maxsize=1)
def _hash_texts(texts: frozenset[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _find_allowed_rows(batches: list[pa.RecordBatch], forbidden: Set[str]) -> NDArray[np.int64]:
    rows = []
    for number, batch in enumerate(batches):
        columns = (column.to_pylist() for column in batch.columns)
        for offset, (query, document, negatives, _) in enumerate(zip(*columns, strict=True)):
            if all(to_comparable(text) not in forbidden for text in (query, document, *(negatives or ()))):
                rows.append(number * ROWS_A_BATCH + offset)
    return np.asarray(rows, dtype=np.int64)
