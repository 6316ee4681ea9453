"""The index of a folder in one SQLite file: its files, their passages, and one vector for each different text.

One file, since passages and vectors in two could disagree after a crash: every change is one transaction, so a kill
leaves the state before or after it. A vector is kept under the SHA-256 of its text, so what was embedded once, also for
another place or by a run that was interrupted, is never embedded again. No server, no dependency; a search reads all
vectors into memory (docs/command-line.md has the schema).
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import GteError, InputError, ModelFormatError, ModelMismatchError
from gte_sdk.passages.splitting import Passage
from gte_sdk.search.index_file import MAGIC as VECTOR_INDEX_MAGIC

APPLICATION_ID = 0x47544531
"""The bytes "GTE1" at offset 68 of the file, where `file` and this module look."""
FORMAT_VERSION = 1
_SQLITE_MAGIC = b"SQLite format 3\0"
# An update holds its lock for one batch; whoever waits longer than this waits for something that hangs.
_LOCK_SECONDS = 30
# Fewer than the parameters that SQLite allowed in a statement before 3.32 (999).
_PARAMETERS = 500

_SCHEMA = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, stamp TEXT NOT NULL, sha256 BLOB NOT NULL);
    CREATE TABLE vectors (id INTEGER PRIMARY KEY, text_sha256 BLOB NOT NULL UNIQUE, vector BLOB NOT NULL);
    CREATE TABLE passages (
        id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
        line INTEGER NOT NULL, context TEXT NOT NULL, text TEXT NOT NULL, vector_id INTEGER NOT NULL REFERENCES vectors
    );
    CREATE INDEX passages_of_file ON passages (file_id);
    CREATE INDEX passages_of_vector ON passages (vector_id);
"""


class Settings(NamedTuple):
    """What an index is of."""

    model: str
    """As Embedder takes it."""
    fingerprint: str
    dim: int
    paths: tuple[str, ...]
    """Absolute: the folders and files to read."""
    globs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


class FileState(NamedTuple):
    stamp: str
    """Size and times of the file when it was read; "" where they cannot tell a later change."""
    sha256: bytes


class FilePassages(NamedTuple):
    path: str
    state: FileState
    passages: Sequence[tuple[Passage, bytes]]
    """Each with the SHA-256 of the text that is embedded for it."""


class Snapshot(NamedTuple):
    vector_ids: list[int]
    vectors: NDArray[np.float32]
    """(n, dim), one row for each different text."""
    version: tuple[int, int]
    """Differs from PassageStore.version() as soon as anybody changed the index."""


def is_passage_store(path: Path) -> bool:
    """Whether a file is an index of passages. Raises InputError for an index file of vectors alone."""
    if not path.is_file():  # to open a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError:
        return False
    if head.startswith(VECTOR_INDEX_MAGIC):
        raise InputError(f"{path} holds vectors without their texts (gte_sdk.Index); make an index with: gte index")
    return head.startswith(_SQLITE_MAGIC) and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


class PassageStore:
    """One open index; use it as a context manager. Any number of processes may read it while one updates it.

    Raises ModelFormatError for a file that is damaged or of another format, GteError where SQLite cannot go on.
    """

    def __init__(self, path: Path, new: Settings | None = None) -> None:
        """Opens the index at `path`; where `new` is given and there is none yet, makes an empty one."""
        self.path = path
        if not path.exists():
            if new is None:
                raise InputError(f"{path} does not exist; make an index with: gte index FOLDER --output {path}")
            _create(path, new)
        if not is_passage_store(path):
            raise InputError(f"{path} is not an index of passages; name another file")
        with _reporting(path):
            self._connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA foreign_keys = ON")
        try:
            with _reporting(path):
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version != FORMAT_VERSION:
                raise ModelFormatError(
                    f"{path} has format version {version}; this gte-sdk reads {FORMAT_VERSION}: upgrade it, or make "
                    "the index again with --rebuild"
                )
            self.settings = self._read_settings()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> "PassageStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raises ModelMismatchError, with both fingerprints, for another model than that of the index."""
        if fingerprint != self.settings.fingerprint:
            raise ModelMismatchError(
                f"{self.path} holds vectors of {self.settings.fingerprint} (model {self.settings.model}), the model in "
                f"use is {fingerprint}; use the same model, or make the index again: gte index --rebuild"
            )

    # --- what an update reads and writes

    def set_sources(self, paths: Sequence[str], globs: Sequence[str], excludes: Sequence[str]) -> None:
        self.settings = self.settings._replace(paths=tuple(paths), globs=tuple(globs), excludes=tuple(excludes))
        self.set_meta({"paths": json.dumps(paths), "globs": json.dumps(globs), "excludes": json.dumps(excludes)})

    def meta(self, key: str) -> str | None:
        with _reporting(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, values: Mapping[str, str]) -> None:
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def files(self) -> dict[str, FileState]:
        with _reporting(self.path):
            rows = self._connection.execute("SELECT path, stamp, sha256 FROM files").fetchall()
        return {os.fsdecode(path): FileState(stamp, sha256) for path, stamp, sha256 in rows}

    def embedded_texts(self, text_hashes: Iterable[bytes]) -> set[bytes]:
        """Those of the hashes whose vectors are here."""
        wanted = list(text_hashes)
        found: set[bytes] = set()
        with _reporting(self.path):
            for start in range(0, len(wanted), _PARAMETERS):
                part = wanted[start : start + _PARAMETERS]
                marks = ", ".join("?" * len(part))
                query = f"SELECT text_sha256 FROM vectors WHERE text_sha256 IN ({marks})"
                found.update(row[0] for row in self._connection.execute(query, part))
        return found

    def add_vectors(self, text_hashes: Sequence[bytes], vectors_ND: NDArray[np.float32]) -> None:
        rows = zip(text_hashes, (vector.tobytes() for vector in vectors_ND.astype("<f4", copy=False)), strict=True)
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO vectors (text_sha256, vector) VALUES (?, ?)", rows)

    def put_files(self, files: Iterable[FilePassages]) -> None:
        """Takes the files with their passages, in place of what was here of them. The vectors are here already."""
        with self._transaction():
            for file in files:
                path = os.fsencode(file.path)
                self._connection.execute("DELETE FROM files WHERE path = ?", (path,))
                insert = "INSERT INTO files (path, stamp, sha256) VALUES (?, ?, ?)"
                file_id = self._connection.execute(insert, (path, *file.state)).lastrowid
                self._connection.executemany(
                    "INSERT INTO passages (file_id, line, context, text, vector_id) "
                    "VALUES (?, ?, ?, ?, (SELECT id FROM vectors WHERE text_sha256 = ?))",
                    [(file_id, part.line, part.context, part.text, text_hash) for part, text_hash in file.passages],
                )

    def set_stamps(self, stamps: Mapping[str, str]) -> None:
        with self._transaction():
            rows = [(stamp, os.fsencode(path)) for path, stamp in stamps.items()]
            self._connection.executemany("UPDATE files SET stamp = ? WHERE path = ?", rows)

    def remove_files(self, paths: Iterable[str]) -> None:
        with self._transaction():
            self._connection.executemany("DELETE FROM files WHERE path = ?", [(os.fsencode(path),) for path in paths])

    def remove_unused_vectors(self) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM vectors WHERE id NOT IN (SELECT vector_id FROM passages)")

    # --- what a search reads

    def counts(self) -> tuple[int, int]:
        """The number of files and of passages."""
        query = "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM passages)"
        with _reporting(self.path):
            file_count, passage_count = self._connection.execute(query).fetchone()
        return file_count, passage_count

    def version(self) -> tuple[int, int]:
        with _reporting(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return version, self._connection.total_changes

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """What is read inside belongs together; whoever updates waits meanwhile."""
        with self._transaction("DEFERRED"):
            yield

    def snapshot(self) -> Snapshot:
        query = "SELECT id, vector FROM vectors WHERE id IN (SELECT vector_id FROM passages) ORDER BY id"
        with _reporting(self.path):
            version = self.version()
            rows = self._connection.execute(query).fetchall()
        dim = self.settings.dim
        if any(len(vector) != 4 * dim for _, vector in rows):
            raise ModelFormatError(f"{self.path} is damaged: a vector has not {dim} numbers; make it again: --rebuild")
        vectors_ND = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(-1, dim)
        return Snapshot([id for id, _ in rows], vectors_ND.astype(np.float32, copy=False), version)

    def passages_of(self, vector_ids: Collection[int]) -> dict[int, list[Passage]]:
        """The passages that have each of these vectors, by path and line."""
        found: dict[int, list[Passage]] = {id: [] for id in vector_ids}
        with _reporting(self.path):
            for id in vector_ids:
                rows = self._connection.execute(
                    "SELECT path, line, context, text FROM passages JOIN files ON files.id = file_id "
                    "WHERE vector_id = ? ORDER BY path, line",
                    (id,),
                )
                found[id] += [Passage(os.fsdecode(path), *rest) for path, *rest in rows]
        return found

    def _read_settings(self) -> Settings:
        try:
            values = {name: json.loads(self.meta(name) or "null") for name in Settings._fields}
            lists = {name: tuple(values[name]) for name in ("paths", "globs", "excludes")}
            return Settings(str(values["model"]), str(values["fingerprint"]), int(values["dim"]), **lists)
        except (ValueError, TypeError) as error:
            raise ModelFormatError(f"{self.path} is damaged: its settings are not readable: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        with _reporting(self.path):
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _create(path: Path, new: Settings) -> None:
    """Makes an empty index; `path` appears whole, so that a kill leaves no file that is none yet."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with _reporting(path), contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA auto_vacuum = FULL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            connection.executescript(_SCHEMA)
            values = [(key, json.dumps(value)) for key, value in new._asdict().items()]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values)
            connection.commit()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:  # locked for long, disk full, read-only
        raise GteError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ModelFormatError(f"{path} is damaged: {error}; make it again: gte index --rebuild") from error
