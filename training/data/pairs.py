"""Pairs of texts on disk: Parquet or JSON lines become a memory-mapped Arrow file for each source, read row by row.

A file is checked as a whole when it is first opened, and kept uncompressed under its SHA-256 in a cache directory. From
then on, opening a source costs a hash of the file, and memory holds only the rows that are read. shards.py opens what
is too large for that.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gte_sdk.atomic_file import replace_whole
from gte_sdk.model_files.directory import sha256_of_file
from training.data.left_out import NOTHING, Hashes, Scanned, find_repeated, rows_of, scan, to_gaps
from training.data.order import Order, make_order

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


Columns = Mapping[str, tuple[str, ...]]
"""The columns, or fields, that hold a column of SCHEMA, if they have other names. Several are joined by a space."""


class PairsError(ValueError):
    """A source that is missing, empty or malformed. The message names the file, the row and the remedy."""


class Pair(NamedTuple):
    query: str
    document: str
    negatives: tuple[str, ...] = ()
    """Hard negatives of the query, if any."""
    label: str = ""
    """What query and document have in common, such as a topic. Pairs with one label are no negatives of each other."""


class Blocks(NamedTuple):
    """Where the rows of a source are."""

    starts: NDArray[np.int64]
    """(b + 1,): the first row of each block, and how many rows there are."""
    read: Callable[[int], pa.RecordBatch]
    """A block, in the columns of SCHEMA."""
    a_window: int = 0
    """How many blocks are read at a time, because reading a row costs as much as reading its block; 0: it does not."""


@dataclass(frozen=True)
class Source:
    """Pairs with one name, such as `code__rosettacode`; `code` is the category."""

    name: str
    path: Path | str
    sha256: str
    blocks: Blocks
    gaps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The rows that are left out, in the form of left_out.py: 8 bytes for each, and none for the others."""
    refused: int = 0
    """How many rows were left out because an evaluation set has one of their texts."""
    repeated: int = 0
    """How many rows were left out because they repeat another one."""
    empty: int = 0
    """How many rows were left out because they lack a text."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of queries whose rows name none, see label_by_links."""

    @property
    def category(self) -> str:
        return self.name.partition("__")[0]

    def __len__(self) -> int:
        return int(self.blocks.starts[-1]) - len(self.gaps)

    def __getitem__(self, index: int) -> Pair:
        """Pair `index` of those to train on, 0 <= index < len(self)."""
        return self.read(np.array([index]))[0]

    def read(self, indices_N: NDArray[np.int64]) -> list[Pair]:
        """The pairs of these indices, in their order. Each block is read once."""
        rows_N = rows_of(indices_N, self.gaps)
        blocks_N = np.searchsorted(self.blocks.starts, rows_N, side="right") - 1
        pairs: dict[int, Pair] = {}
        for place in np.argsort(blocks_N, kind="stable").tolist():
            block = int(blocks_N[place])
            offset = int(rows_N[place] - self.blocks.starts[block])
            columns = self.blocks.read(block).columns
            query, document, negatives, label = (column[offset].as_py() for column in columns)
            pairs[place] = Pair(query, document, tuple(negatives or ()), label or self.labels.get(query, ""))
        return [pairs[place] for place in range(len(rows_N))]

    @property
    def rows(self) -> NDArray[np.int64]:
        """(n,): the rows to train on, in their order. 8 bytes for each: not for large sources."""
        return rows_of(np.arange(len(self)), self.gaps)

    def with_rows(self, rows: NDArray[np.int64]) -> "Source":
        """The same source with some of its rows."""
        left_out = np.setdiff1d(np.arange(self.blocks.starts[-1]), rows)
        return dataclasses.replace(self, gaps=to_gaps(left_out))

    def order(self, seed: Sequence[int]) -> Order:
        """The order of a pass."""
        left_out_before = np.searchsorted(self.gaps + np.arange(len(self.gaps)), self.blocks.starts)
        return make_order(np.diff(self.blocks.starts - left_out_before), self.blocks.a_window, seed)


def open_source(path: Path, cache: Path = DEFAULT_CACHE, forbidden: Hashes = NOTHING) -> Source:
    """Opens a .parquet or .jsonl file of (query, document, optional list of negatives, optional label).

    Exact repetitions of a row, and rows with a text that hash_evaluation_texts has in `forbidden`, are left out and
    counted. Raises PairsError if the file is missing, of another kind, without rows, or has a row without a text where
    one belongs.
    """
    if not path.is_file():
        raise PairsError(f"{path} is missing; every source of the recipe must be there")
    cache = cache.expanduser()
    try:
        return _open_source(path, cache, forbidden)
    except OSError as error:
        raise PairsError(f"{path} cannot be read, or cached in {cache}: {error}; free space there") from error


def _open_source(path: Path, cache: Path, forbidden: Hashes) -> Source:
    sha256 = sha256_of_file(path)
    arrow_file = cache / f"{sha256[:40]}.v2.arrow"  # the version of SCHEMA
    if not arrow_file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with replace_whole(arrow_file) as file:
            _write_arrow(path, file)
    reader = pa.ipc.open_file(pa.memory_map(str(arrow_file)))
    batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)])
    left_out = cache / f"{sha256[:40]}.{hash_of(forbidden)}.left-out.npy"
    if not left_out.is_file():
        scanned = [scan(batch, forbidden) for batch in batches]
        write_left_out(left_out, scanned)
    source = with_left_out(Source(path.stem, path, sha256, Blocks(starts, batches.__getitem__)), left_out)
    if not len(source):
        raise PairsError(f"{path} has no pair left: all {starts[-1]} are in an evaluation set")
    return source


def label_by_links(source: Source) -> Source:
    """The source with labels, if query and document are always two texts of one class that no column names.

    Texts that pairs connect, directly or through other texts, are of one class. Reads the whole source, and keeps its
    queries in memory.
    """
    pairs = source.read(np.arange(len(source)))
    numbers: dict[str, int] = {}
    ends_N2 = np.array([[numbers.setdefault(text, len(numbers)) for text in pair[:2]] for pair in pairs])
    links = coo_array((np.ones(len(pairs)), (ends_N2[:, 0], ends_N2[:, 1])), shape=(len(numbers), len(numbers)))
    _, classes_T = connected_components(links, directed=False)
    labels = {pair.query: f"{source.name} {classes_T[numbers[pair.query]]}" for pair in pairs}
    return dataclasses.replace(source, labels=labels)


def write_left_out(path: Path, scanned: Iterable[Scanned]) -> None:
    """Writes which rows of a source are left out; `scanned` are its blocks, or runs of blocks, in their order."""
    hashes, refused, empty, first = [], [], [], 0
    for part in scanned:
        hashes.append(part.hashes)
        refused.append(part.refused + first)
        empty.append(part.empty + first)
        first += len(part.hashes)
    of_kind = [np.concatenate(refused), find_repeated(hashes), np.concatenate(empty)]
    left_out = np.unique(np.concatenate(of_kind))
    with replace_whole(path) as file:
        np.save(file, np.concatenate([[len(rows) for rows in of_kind], to_gaps(left_out)]))


def with_left_out(source: Source, path: Path) -> Source:
    """The source without the rows that write_left_out has written. They stay on disk, memory-mapped."""
    numbers: NDArray[np.int64] = np.load(path, mmap_mode="r")
    refused, repeated, empty = map(int, numbers[:3])
    return dataclasses.replace(source, gaps=numbers[3:], refused=refused, repeated=repeated, empty=empty)


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
        tables = _read_json_file(path)
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
    try:
        table = file.read([field.name for field in SCHEMA if field.name in names])
    except (pa.ArrowException, OSError) as error:
        raise PairsError(f"{path} is damaged: {error}") from error
    for first_row in range(0, max(1, table.num_rows), ROWS_A_BATCH):
        yield pick_columns(str(path), table.slice(first_row, ROWS_A_BATCH), {}, names)


def _read_json_file(path: Path) -> Iterator[pa.Table]:
    with path.open("rb") as lines:
        yield from read_json_lines(str(path), lines, {})


def read_json_lines(
    name: str, lines: Iterable[bytes], columns: Columns, rows_a_table: int = ROWS_A_BATCH
) -> Iterator[pa.Table]:
    """Yields tables of SCHEMA. Raises PairsError that names the file `name` and the row, for a line that is no pair."""
    rows: list[dict[str, Any]] = []
    for row, line in enumerate(lines, 1):
        try:
            fields = json.loads(line.decode("utf-8"))
            rows.append({field.name: _pick(fields, columns.get(field.name, (field.name,))) for field in SCHEMA})
            if isinstance(rows[-1]["negatives"], str):
                raise TypeError("negatives is one text, not a list of texts")
            pa.array([rows[-1]], pa.struct(SCHEMA))
        except (ValueError, TypeError, AttributeError) as error:
            message = f'{{"query": "...", "document": "...", "negatives": ["..."]}} belongs there ({error})'
            shown = line.strip()[:80].decode("utf-8", "backslashreplace")
            raise PairsError(f"{name}, row {row}: {shown!r} is malformed; {message}") from error
        if len(rows) == rows_a_table:
            yield pa.Table.from_pylist(rows, SCHEMA)
            rows = []
    if rows:
        yield pa.Table.from_pylist(rows, SCHEMA)


def _pick(fields: dict[str, Any], names: Sequence[str]) -> Any:
    return fields.get(names[0]) if len(names) == 1 else " ".join(filter(None, map(fields.get, names)))


def pick_columns(name: str, table: pa.Table, columns: Columns, there: Sequence[str]) -> pa.Table:
    """The table in the columns of SCHEMA. Raises PairsError, naming the file `name`, if it lacks one.

    `there` are the columns of the file, of which the table has those that are read.
    """
    arrays = []
    for role in SCHEMA:
        names = columns.get(role.name, (role.name,))
        if role.name in ("negatives", "label") and role.name not in columns and role.name not in there:
            arrays.append(pa.nulls(table.num_rows, role.type))
            continue
        if missing := [column for column in names if column not in there]:
            raise PairsError(f"{name} has no column {' and '.join(missing)} but {', '.join(there)}")
        try:
            if role.name == "negatives" and all(pa.types.is_string(table[column].type) for column in names):
                arrays.append(_as_lists([table[column] for column in names]))
                continue
            parts = [table[column].cast(role.type) for column in names]
        except pa.ArrowException as error:
            kinds = " and ".join(str(table[column].type) for column in names)
            raise PairsError(f"{name}: its {role.name} is {kinds}, not {role.type}") from error
        arrays.append(_join(parts) if len(parts) > 1 else parts[0])
    return pa.table(arrays, schema=SCHEMA)


def _as_lists(columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    """One list a row of the texts of several columns, without those that are null."""
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([[text for text in row if text is not None] for row in rows], SCHEMA.field("negatives").type)


def _join(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*parts, pa.scalar(" ", parts[0].type), null_handling="skip")


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


def hash_of(forbidden: Hashes) -> str:
    return hashlib.sha256(forbidden.tobytes()).hexdigest()[:16]
