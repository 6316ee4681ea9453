"""A passage index: files, their passages, and one vector for each distinct text, in one SQLite file.

Passages and vectors in two files could disagree after a crash. In one file every change is a transaction, so a kill
leaves the state before it or after it. Vectors are stored under the SHA-256 of their text, so no text is embedded
twice, even if it moves or if the first run was interrupted. The words of the passages are in the same file, by SQLite's
FTS5. There is no server and no dependency. A search reads all vectors into memory. docs/command-line.md has the schema.
"""

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk._kernels import MAX_DIM
from gte_sdk.errors import IndexFormatError, InputError, ModelMismatchError
from gte_sdk.passages.database import (
    WITHOUT_WORDS,
    add_words_table,
    create_database,
    damaged,
    format_version_of,
    open_database,
    open_in_memory,
    read_rows,
    reporting,
)
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.update_lock import exclusive
from gte_sdk.passages.words import match_any, words_of_text

# Fewer than the parameters that SQLite allowed in a statement before 3.32 (999).
_PARAMETERS = 500


class Settings(NamedTuple):
    """What an index contains, and by which model."""

    model: str
    """As Embedder takes it."""
    fingerprint: str
    dim: int
    paths: tuple[str, ...]
    """The folders and files to read; absolute in an index on the disk."""
    globs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    ignore_files: bool = True
    """As in `text_files.Wanted`, like the three before."""
    facts: Mapping[str, Any] | None = None
    """What was said of the model beside its name: arguments of Embedder, such as prompts."""


class FileState(NamedTuple):
    stamp: str
    """Size and times of the file when it was read; "" if they cannot reveal a later change."""
    sha256: bytes


class FilePassages(NamedTuple):
    path: str
    state: FileState
    passages: Sequence[tuple[Passage, bytes]]
    """Each with the SHA-256 of the text that is embedded for it."""


class WordHit(NamedTuple):
    """A passage that has some of the words."""

    passage_id: int
    vector_id: int
    bm25: float
    """Positive; more is better."""


class Snapshot(NamedTuple):
    vector_ids: list[int]
    vectors: NDArray[np.float32]
    """(n, dim), one row for each different text."""
    version: tuple[int, ...]
    """Differs from PassageStore.version() as soon as anybody changed the index."""


class PassageStore:
    """One open passage index; use it as a context manager. Any number of processes may read while one updates it.

    Raises IndexFormatError for a file that is damaged or of another format, GteError where SQLite cannot go on.
    """

    def __init__(self, path: Path | None, new: Settings | None = None) -> None:
        """Opens an index, or creates it.

        Args:
            path: The file. None keeps the index in memory.
            new: The settings of the index to create if there is none.

        Raises:
            InputError: A file that does not exist, without `new`, or that is no passage index.
        """
        self.path = path or Path(":memory:")
        self._file: tuple[int, int] | None = None
        """Device and inode; None in memory."""
        if path is None:
            assert new is not None
            self._connection = open_in_memory(new._asdict())
        else:
            if not path.exists():
                if new is None:
                    raise InputError(f"{path} does not exist", remedy="make index")
                try:
                    create_database(path, new._asdict())
                except InputError:
                    if not path.exists():  # else another process made it a moment ago
                        raise
            self._connection = self._open()
        try:
            self.settings = self._read_settings()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> "PassageStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def locked(self, say_waiting: Callable[[], None]) -> Iterator[None]:
        """Makes other updates wait while the block runs. The block sees the file that has the index's name now."""
        if self._file is None:
            yield
            return
        with exclusive(self.path, say_waiting):
            self.follow()
            yield

    def follow(self) -> None:
        """Opens the index again if another file has taken its name, as happens at the end of a rebuild."""
        if self._file is None:
            return
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist any more", remedy="make index")
        if self._file != _identity(self.path):
            opened = self._open()
            self._connection.close()
            self._connection = opened
            self.settings = self._read_settings()

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raises ModelMismatchError, with both fingerprints, if the model is not that of the index."""
        if fingerprint != self.settings.fingerprint:
            raise ModelMismatchError(
                f"{self.path} holds vectors of {self.settings.fingerprint} (model {self.settings.model}), the model in "
                f"use is {fingerprint}; use the same model",
                remedy="rebuild",
            )

    # --- what an update reads and writes

    def set_sources(self, settings: Settings) -> None:
        """Takes over which files to read, and keeps the model."""
        sources = dict(list(settings._asdict().items())[3:])
        self.settings = self.settings._replace(**sources)
        self.set_meta({name: json.dumps(value) for name, value in sources.items()})

    def meta(self, key: str) -> str | None:
        with reporting(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, values: Mapping[str, str]) -> None:
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def files(self) -> dict[str, FileState]:
        rows = self.rows("SELECT path, stamp, sha256 FROM files", (bytes, str, bytes))
        return {os.fsdecode(path): FileState(stamp, sha256) for path, stamp, sha256 in rows}

    def passages_of_file(self, path: str) -> list[Passage]:
        """Returns the passages of a file in the order of its lines; none if the index does not have the file."""
        query = (
            "SELECT line, context, text FROM passages JOIN files ON files.id = file_id WHERE path = ? "
            "ORDER BY line, passages.id"
        )
        rows = self.rows(query, (int, str, str), (os.fsencode(path),))
        return [Passage(path, *row) for row in rows]

    def embedded_texts(self, text_hashes: Iterable[bytes]) -> set[bytes]:
        """Returns the hashes whose vectors are in the index."""
        query = "SELECT text_sha256 FROM vectors WHERE text_sha256 IN ({})"
        return {text_hash for (text_hash,) in self._rows_of(query, (bytes,), list(text_hashes))}

    def add_vectors(self, text_hashes: Sequence[bytes], vectors_ND: NDArray[np.float32]) -> None:
        rows = zip(text_hashes, (vector.tobytes() for vector in vectors_ND.astype("<f4", copy=False)), strict=True)
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO vectors (text_sha256, vector) VALUES (?, ?)", rows)

    def put_files(self, files: Iterable[FilePassages]) -> None:
        """Stores files with their passages, and replaces what it had of them. Their vectors must be stored already."""
        with self._transaction():
            for file in files:
                path = os.fsencode(file.path)
                self._remove_file(path)
                insert = "INSERT INTO files (path, stamp, sha256) VALUES (?, ?, ?)"
                file_id = self._connection.execute(insert, (path, *file.state)).lastrowid
                self._connection.executemany(
                    "INSERT INTO passages (file_id, line, context, text, vector_id) "
                    "VALUES (?, ?, ?, ?, (SELECT id FROM vectors WHERE text_sha256 = ?))",
                    [(file_id, part.line, part.context, part.text, text_hash) for part, text_hash in file.passages],
                )
                self._add_words(path)

    def set_stamps(self, stamps: Mapping[str, str]) -> None:
        with self._transaction():
            rows = [(stamp, os.fsencode(path)) for path, stamp in stamps.items()]
            self._connection.executemany("UPDATE files SET stamp = ? WHERE path = ?", rows)

    def remove_files(self, paths: Iterable[str]) -> None:
        with self._transaction():
            for path in paths:
                self._remove_file(os.fsencode(path))

    def remove_unused_vectors(self) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM vectors WHERE id NOT IN (SELECT vector_id FROM passages)")

    def has_words(self) -> bool:
        """Returns whether the index has the words of its passages. Indexes of the first format have none."""
        with reporting(self.path):
            return format_version_of(self._connection) != WITHOUT_WORDS

    def add_all_words(self) -> None:
        """Gives an index of the first format the words of its passages, in one transaction."""
        with self._transaction():
            add_words_table(self._connection)
            for (path,) in self.rows("SELECT path FROM files", (bytes,)):
                self._add_words(path)

    def _add_words(self, path: bytes) -> None:
        self._connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", self._words_of(path))

    def _remove_file(self, path: bytes) -> None:
        if self.has_words():
            # A table without the texts has to be told which words leave it.
            delete = "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)"
            self._connection.executemany(delete, self._words_of(path))
        self._connection.execute("DELETE FROM files WHERE path = ?", (path,))

    def _words_of(self, path: bytes) -> list[tuple[int, str]]:
        """Returns a file's passages by id, each as the text whose words are indexed. It begins with the file's name."""
        query = (
            "SELECT passages.id, context, passages.text FROM passages JOIN files ON files.id = file_id WHERE path = ?"
        )
        name = path.replace(b"\\", b"/").rpartition(b"/")[2].decode("utf-8", "replace")
        rows = self.rows(query, (int, str, str), (path,))
        return [(id, words_of_text(f"{name}\n{context}\n{text}")) for id, context, text in rows]

    # --- what a search reads

    def counts(self) -> tuple[int, int]:
        """Returns the number of files and of passages."""
        query = "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM passages)"
        with reporting(self.path):
            file_count, passage_count = self._connection.execute(query).fetchone()
        return file_count, passage_count

    def version(self) -> tuple[int, ...]:
        """Returns a value that changes when anybody changes the index, or another file takes its name."""
        with reporting(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return (*(self._file or ()), version, self._connection.total_changes)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Makes everything that the block reads come from one state; an update waits meanwhile."""
        with self._transaction("DEFERRED"):
            yield

    def snapshot(self) -> Snapshot:
        version = self.version()
        query = "SELECT id, vector FROM vectors WHERE id IN (SELECT vector_id FROM passages) ORDER BY id"
        rows = self.rows(query, (int, bytes))
        dim = self.settings.dim
        if any(len(vector) != 4 * dim for _, vector in rows):
            raise self._damaged(f"a vector has not {dim} numbers")
        vectors_ND = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(-1, dim)
        if not np.isfinite(vectors_ND).all():
            raise self._damaged("a vector holds NaN or an infinity")
        return Snapshot([id for id, _ in rows], vectors_ND.astype(np.float32, copy=False), version)

    def passages_of(self, vector_ids: Sequence[int], count: int) -> list[tuple[int, int]]:
        """Returns the ids of each vector's first `count` passages by path and line, each after its vector's id."""
        query = (
            "SELECT vector_id, id FROM (SELECT vector_id, passages.id, "
            "row_number() OVER (PARTITION BY vector_id ORDER BY path, line) AS place "
            "FROM passages JOIN files ON files.id = file_id WHERE vector_id IN ({})) WHERE place <= ?"
        )
        return self._rows_of(query, (int, int), vector_ids, (count,))

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """Returns passages by their ids."""
        query = (
            "SELECT passages.id, path, line, context, text FROM passages JOIN files ON files.id = file_id "
            "WHERE passages.id IN ({})"
        )
        rows = self._rows_of(query, (int, bytes, int, str, str), ids)
        return {id: Passage(os.fsdecode(path), *rest) for id, path, *rest in rows}

    def count_word(self, word: str) -> int:
        """Returns the number of passages that have a word."""
        query = "SELECT count(*) FROM words WHERE words MATCH ?"
        return int(self.rows(query, (int,), (match_any([word]),))[0][0])

    def count_files_with_word(self, word: str) -> int:
        query = (
            "SELECT count(DISTINCT file_id) FROM words JOIN passages ON passages.id = words.rowid WHERE words MATCH ?"
        )
        return int(self.rows(query, (int,), (match_any([word]),))[0][0])

    def find_words(self, words: Sequence[str], count: int) -> list[WordHit]:
        """Returns the `count` passages with the highest BM25 for any of the words, best first.

        BM25 is that of FTS5: k1 = 1.2, b = 0.75, and a word that more than half of the passages have weighs nothing.
        """
        query = (
            "SELECT passages.id, vector_id, -score FROM "
            "(SELECT rowid, bm25(words) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?) AS best "
            "JOIN passages ON passages.id = best.rowid JOIN vectors ON vectors.id = vector_id "
            "ORDER BY score, best.rowid"
        )
        hits = [WordHit(*row) for row in self.rows(query, (int, int, float), (match_any(words), count))]
        if not all(0 <= hit.bm25 < math.inf for hit in hits):
            raise self._damaged("a word has a weight that no word has")
        return hits

    def _rows_of(
        self, query: str, types: tuple[type, ...], ids: Sequence[Any], others: tuple[Any, ...] = ()
    ) -> list[Any]:
        """Returns the rows of a query for some ids, for whose marks it has a pair of braces."""
        rows = []
        for start in range(0, len(ids), _PARAMETERS):
            part = ids[start : start + _PARAMETERS]
            rows += self.rows(query.format(", ".join("?" * len(part))), types, (*part, *others), len(part))
        return rows

    def rows(self, query: str, types: tuple[type, ...], parameters: tuple[Any, ...] = (), times: int = 1) -> list[Any]:
        """Returns the rows of a query, checked; see `read_rows` in database.py."""
        return read_rows(self._connection, self.path, query, types, parameters, times)

    def _damaged(self, reason: str) -> IndexFormatError:
        return damaged(self.path, reason)

    def _open(self) -> sqlite3.Connection:
        self._file = _identity(self.path)
        return open_database(self.path)

    def _read_settings(self) -> Settings:
        try:
            values = {name: json.loads(self.meta(name) or "null") for name in Settings._fields}
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its settings are not readable: {error}") from error
        for name, default in Settings._field_defaults.items():  # an index may be older than a setting
            values[name] = default if values[name] is None else values[name]
        lists = [values[name] for name in ("paths", "globs", "excludes", "types")]
        are_texts = all(isinstance(text, str) for text in (values["model"], values["fingerprint"]))
        are_lists = all(
            isinstance(value, list | tuple) and all(isinstance(text, str) for text in value) for value in lists
        )
        dim, ignore_files, facts = values["dim"], values["ignore_files"], values["facts"]
        are_numbers = type(dim) is int and 1 <= dim <= MAX_DIM and isinstance(ignore_files, bool)
        if not are_texts or not are_lists or not are_numbers or not isinstance(facts, dict | None):
            raise self._damaged("its settings are of other types than an index has")
        paths, globs, excludes, types = map(tuple, lists)
        return Settings(values["model"], values["fingerprint"], dim, paths, globs, excludes, types, ignore_files, facts)

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        with reporting(self.path):
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
