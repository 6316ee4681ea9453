"""A source of many files, its shards, read where they are: on a disk, the Hub (hf://), S3 (s3://), GCS (gs://).

fsspec opens the files. Parquet is read a few row groups at a time, and again in every pass. JSON lines, which can only
be read from the beginning, and Parquet with row groups too large for memory, are brought into the cache once, as
Parquet with small ones. Each shard is read as a whole once, to find what must be left out; the cache keeps its index.
"""

import functools
import hashlib
import io
import itertools
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gte_sdk.atomic_file import replace_whole
from training.data.left_out import NOTHING, Hashes, Scanned, scan
from training.data.pairs import (
    DEFAULT_CACHE,
    SCHEMA,
    Blocks,
    Columns,
    PairsError,
    Source,
    hash_of,
    pick_columns,
    read_json_lines,
    with_left_out,
    write_left_out,
)

BLOCK_BYTES, MOST_BLOCK_BYTES, WINDOW_BYTES = 2**22, 2**25, 2**25
"""Of texts in memory: row groups are read together up to the first, may have the second, and are permuted within the
third, of each source. 33 sources take about a gigabyte."""
ROWS_A_GROUP = 4096
FORMAT_VERSION = 1
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_VERSION_FIELDS = ("size", "mtime", "etag", "ETag", "blob_id", "generation", "LastModified", "created")


class _Shard(NamedTuple):
    filesystem: Any
    path: str
    url: str
    columns: Columns
    version: str
    """A hash of all that its index depends on."""


class _Index(NamedTuple):
    """Of one shard."""

    groups: NDArray[np.int64]
    """(b + 1,): the first row group of each block, and how many there are."""
    rows: NDArray[np.int64]
    """(b,)"""
    sizes: NDArray[np.int64]
    """(b,): bytes of texts in memory."""
    refused: NDArray[np.int64]
    empty: NDArray[np.int64]


def open_shards(
    name: str,
    files: Sequence[str],
    columns: Mapping[str, str | Sequence[str]] | None = None,
    *,
    data: Path | None = None,
    forbidden: Hashes = NOTHING,
    workers: int = 0,
    cache: Path = DEFAULT_CACHE,
) -> Source:
    """One source of all files that the patterns match: .parquet and .jsonl, the latter also as .gz and .zst.

    A pattern is a path, relative to `data` if it is not absolute, or a URL of fsspec. `columns` says which columns, or
    fields, hold the query, the document, the negatives and the label; several are joined by a space. Rows that lack a
    text, repeat another row, or have a text that is `forbidden`, are left out and counted. Shards that have no index
    yet are read by `workers` processes; 0: by this one. Raises PairsError for what cannot be found or read.
    """
    cache = cache.expanduser() / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    of_roles = {role: (names,) if isinstance(names, str) else tuple(names) for role, names in (columns or {}).items()}
    if unknown := set(of_roles) - set(SCHEMA.names):
        raise PairsError(f"{name}.columns has {unknown.pop()!r}; a pair has {', '.join(SCHEMA.names)}")
    shards = [shard for pattern in files for shard in _find(pattern, data, of_roles)]
    missing = [shard for shard in shards if not _index_file(shard, cache, forbidden).is_file()]
    if workers and len(missing) > 1:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(functools.partial(_write_index, cache=cache, forbidden=forbidden), missing))
    else:
        for shard in missing:
            _write_index(shard, cache, forbidden)
    indexes = [_read_index(_index_file(shard, cache, forbidden)) for shard in shards]
    rows = np.concatenate([index.rows for index in indexes])
    sizes = np.concatenate([index.sizes for index in indexes])
    if not rows.sum():
        raise PairsError(f"{name}: {', '.join(files)} have no rows")
    sha256 = hashlib.sha256("".join(shard.version for shard in shards).encode()).hexdigest()
    starts = np.concatenate([[0], np.cumsum(rows)])
    a_window = max(1, int(WINDOW_BYTES // max(1.0, float(sizes.mean()))))
    source = Source(name, files[0], sha256, Blocks(starts, _make_reader(shards, indexes, cache, a_window), a_window))
    left_out = cache / f"{sha256[:40]}.{hash_of(forbidden)}.left-out.npy"
    if not left_out.is_file():
        hash_files = [_hash_file(_index_file(shard, cache, forbidden)) for shard in shards]
        hashes = [np.load(path, mmap_mode="r") for path in hash_files]
        write_left_out(
            left_out,
            [Scanned(of_one, index.refused, index.empty) for of_one, index in zip(hashes, indexes, strict=True)],
        )
    source = with_left_out(source, left_out)
    if not len(source):
        raise PairsError(f"{name}: all {starts[-1]} rows of {', '.join(files)} are left out")
    return source


def _find(pattern: str, data: Path | None, columns: Columns) -> list[_Shard]:
    import fsspec

    url = pattern
    if "://" not in pattern and not Path(pattern).expanduser().is_absolute():
        if data is None:
            raise PairsError(f"{pattern!r} is relative to a data directory; give one with --data DIR")
        url = str(data.resolve() / pattern)
    with _errors_of(pattern):
        filesystem, path = fsspec.core.url_to_fs(url)
        found = filesystem.glob(path, detail=True)
    shards = []
    for at, facts in sorted(found.items()):
        if facts.get("type") == "file" and at.endswith(_SUFFIXES):
            known = [(key, str(facts[key])) for key in _VERSION_FIELDS if key in facts]
            identity = [FORMAT_VERSION, filesystem.unstrip_protocol(at), known, sorted(columns.items())]
            version = hashlib.sha256(repr(identity).encode()).hexdigest()[:40]
            shards.append(_Shard(filesystem, at, filesystem.unstrip_protocol(at), columns, version))
    if not shards:
        raise PairsError(f"{pattern!r} matches no .parquet, .jsonl, .jsonl.gz or .jsonl.zst file")
    return shards


def _index_file(shard: _Shard, cache: Path, forbidden: Hashes) -> Path:
    return cache / f"{shard.version}.{hash_of(forbidden)}.npz"


def _hash_file(index_file: Path) -> Path:
    return index_file.with_suffix(".hashes.npy")


def _cached_parquet(shard: _Shard, cache: Path) -> Path:
    return cache / f"{shard.version}.parquet"


def _read_index(path: Path) -> _Index:
    with np.load(path) as arrays:
        return _Index(**{name: arrays[name] for name in _Index._fields})


def _write_index(shard: _Shard, cache: Path, forbidden: Hashes) -> None:
    """Reads a shard once. The index is written last, so a shard that has one needs nothing more."""
    with _errors_of(shard.url):
        file = _open_parquet(shard, cache)
        if file is None:
            _bring_into_cache(shard, cache)
            file = _open_parquet(shard, cache)
            assert file is not None
        names = None if _cached_parquet(shard, cache).is_file() else _names(file, shard)
        groups, rows, sizes = _cut_into_blocks(file, names)
        scanned = [
            scan(_read_groups(file, shard, cache, int(first), int(end)), forbidden)
            for first, end in itertools.pairwise(groups)
        ]
    first_rows = np.cumsum(rows) - rows
    with replace_whole(_hash_file(_index_file(shard, cache, forbidden))) as target:
        np.save(target, np.concatenate([NOTHING, *(part.hashes for part in scanned)]))
    nothing = np.zeros(0, dtype=np.int64)
    refused, empty = (
        np.concatenate([nothing, *(of_one + first for of_one, first in zip(of_kind, first_rows, strict=True))])
        for of_kind in ([part.refused for part in scanned], [part.empty for part in scanned])
    )
    with replace_whole(_index_file(shard, cache, forbidden)) as target:
        np.savez(target, **_Index(groups, rows, sizes, refused, empty)._asdict())


def _open_parquet(shard: _Shard, cache: Path) -> pq.ParquetFile | None:
    """The shard, or the copy that was made of it; None if one must be made."""
    if (copy := _cached_parquet(shard, cache)).is_file():
        return pq.ParquetFile(copy)
    if not shard.path.endswith(".parquet"):
        return None
    file = pq.ParquetFile(shard.filesystem.open(shard.path, "rb"))
    _, _, sizes = _cut_into_blocks(file, _names(file, shard))
    return None if sizes.max(initial=0) > MOST_BLOCK_BYTES else file


def _names(file: pq.ParquetFile, shard: _Shard) -> list[str]:
    """The columns of the file that are read."""
    wanted = {name for role in SCHEMA.names for name in shard.columns.get(role, (role,))}
    return [name for name in file.schema_arrow.names if name in wanted]


def _cut_into_blocks(
    file: pq.ParquetFile, names: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of row groups of up to BLOCK_BYTES, or one larger one: the first of each, rows and bytes."""
    groups, rows, sizes = [0], [0], [0]
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if names is None or chunk.path_in_schema.partition(".")[0] in names
        )
        if rows[-1] and sizes[-1] + size > BLOCK_BYTES:
            groups.append(number)
            rows.append(0)
            sizes.append(0)
        rows[-1] += group.num_rows
        sizes[-1] += size
    groups.append(file.metadata.num_row_groups)
    return np.array(groups), np.array(rows), np.array(sizes)


def _read_groups(file: pq.ParquetFile, shard: _Shard, cache: Path, first: int, end: int) -> pa.RecordBatch:
    columns: Columns = {} if _cached_parquet(shard, cache).is_file() else shard.columns
    names = _names(file, shard._replace(columns=columns))
    table = pick_columns(
        shard.url, file.read_row_groups(range(first, end), columns=names), columns, file.schema_arrow.names
    )
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=SCHEMA)


def _bring_into_cache(shard: _Shard, cache: Path) -> None:
    with replace_whole(_cached_parquet(shard, cache)) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as to:
        for table in _read_tables(shard):
            to.write_table(table, row_group_size=ROWS_A_GROUP)


def _read_tables(shard: _Shard) -> Iterator[pa.Table]:
    with shard.filesystem.open(shard.path, "rb") as stream:
        if shard.path.endswith(".parquet"):
            file = pq.ParquetFile(stream)
            for batch in file.iter_batches(ROWS_A_GROUP, columns=_names(file, shard)):
                yield pick_columns(shard.url, pa.Table.from_batches([batch]), shard.columns, file.schema_arrow.names)
        else:
            compression = _COMPRESSIONS.get(Path(shard.path).suffix)
            plain = pa.PythonFile(stream, "r")
            lines = io.BufferedReader(pa.CompressedInputStream(plain, compression) if compression else plain, 2**20)
            yield from read_json_lines(shard.url, lines, shard.columns, ROWS_A_GROUP)


def _make_reader(shards: Sequence[_Shard], indexes: Sequence[_Index], cache: Path, a_window: int) -> Any:
    """Reads a block of all shards; keeps those of a window, and a few files open."""
    first_blocks = np.cumsum([0, *(len(index.rows) for index in indexes)])

    @functools.lru_cache(maxsize=4)
    def open_file(number: int) -> pq.ParquetFile:
        file = _open_parquet(shards[number], cache)
        if file is None:
            raise PairsError(f"the copy of {shards[number].url} in {cache} is gone; delete that directory")
        return file

    @functools.lru_cache(maxsize=a_window)
    def read(block: int) -> pa.RecordBatch:
        number = int(np.searchsorted(first_blocks, block, side="right")) - 1
        groups, own = indexes[number].groups, block - int(first_blocks[number])
        with _errors_of(shards[number].url):
            return _read_groups(open_file(number), shards[number], cache, int(groups[own]), int(groups[own + 1]))

    return read


@contextmanager
def _errors_of(what: str) -> Iterator[None]:
    try:
        yield
    except PairsError:
        raise
    except (OSError, pa.ArrowException, ImportError, ValueError, EOFError) as error:
        raise PairsError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
