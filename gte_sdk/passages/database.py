"""The SQLite file of a passage index: created whole, and opened without trusting its content.

A file can come from anywhere, so its schema must be exactly ours. A view in place of a table could run forever, and a
trigger would run at all. With our schema, SQLite executes nothing that a file contains. A signal ends every statement.

The index of words is a virtual table of FTS5 that keeps itself in four plain ones. It is used only if all five are
declared as FTS5 declares them here.
"""

import contextlib
import functools
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gte_sdk.atomic_file import replace_whole
from gte_sdk.errors import GteError, IndexFormatError, InputError
from gte_sdk.search.index_file import MAGIC as VECTOR_INDEX_MAGIC

APPLICATION_ID = 0x47544531
"""The bytes "GTE1" at offset 68 of the file, where `file` and this module look."""
FORMAT_VERSION = 2
WITHOUT_WORDS = 1
"""The format before FORMAT_VERSION. It is the same but for the index of words, which an update adds."""
_SQLITE_MAGIC = b"SQLite format 3\0"
# An update holds SQLite's lock for one batch; whoever waits longer than this waits for something that hangs.
_LOCK_SECONDS = 30
# SQLite's journal has the name of the database and this; file systems take names of 255 bytes.
_MAX_NAME_BYTES = 255 - len("-journal")
# Virtual machine instructions, well below a tenth of a second, after which Python handles signals.
_INSTRUCTIONS = 100_000
# What can be wrong around a file; everything else is wrong in it.
_NOT_DAMAGE = ("locked", "busy", "readonly", "full", "unable to open", "disk I/O", "no such module")

_TABLES = """
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
# By the id of a passage. The texts themselves are in the passages only.
_WORDS = """
    CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61 remove_diacritics 2')
"""
_SCHEMAS = {WITHOUT_WORDS: _TABLES, FORMAT_VERSION: _TABLES + _WORDS}


def is_passage_store(path: Path) -> bool:
    """Returns whether a file is a passage index. Raises InputError for a vector index, which has no texts."""
    if not path.is_file():  # to open a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError:
        return False
    if head.startswith(VECTOR_INDEX_MAGIC):
        raise InputError(f"{path} holds vectors without their texts (gte_sdk.Index)", remedy="make index")
    return head.startswith(_SQLITE_MAGIC) and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def create_database(path: Path, values: Mapping[str, Any]) -> None:
    """Creates an empty passage index with these settings. `path` appears whole. Raises InputError if it exists."""
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES:
        raise InputError(f"{path}: a name of an index has at most {_MAX_NAME_BYTES} bytes")
    # SQLite wants a file of its own while it writes: locks of two kinds on one file may exclude each other.
    with tempfile.TemporaryDirectory() as folder, replace_whole(path, overwrite=False) as file:
        made = Path(folder, "index")
        with reporting(path), contextlib.closing(sqlite3.connect(made)) as connection:
            _fill(connection, values)
        file.write(made.read_bytes())


def open_in_memory(values: Mapping[str, Any]) -> sqlite3.Connection:
    """Returns an empty passage index that lives as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _fill(connection, values)
    return _prepared(connection)


def open_database(path: Path) -> sqlite3.Connection:
    """Opens a passage index. Raises IndexFormatError for another schema or version, InputError for another file."""
    if not is_passage_store(path):
        raise InputError(f"{path} is not a passage index; name another file")
    with reporting(path):
        uri = f"{path.absolute().as_uri()}?mode=rw"  # never makes a file
        connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)
    try:
        with reporting(path):
            _prepared(connection)
            version = format_version_of(connection)
            if version not in _SCHEMAS:
                raise IndexFormatError(
                    f"{path} has format version {version}; this gte-sdk reads {FORMAT_VERSION}: upgrade it",
                    remedy="rebuild",
                )
            if _schema_of(connection) != _own_schema(version):
                raise damaged(path, "its tables are not those of an index")
    except BaseException:
        connection.close()
        raise
    return connection


def format_version_of(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def add_words_table(connection: sqlite3.Connection) -> None:
    """Brings an index of the format WITHOUT_WORDS to FORMAT_VERSION, with no words yet, in the caller's transaction."""
    connection.execute(_WORDS)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:  # the last: messages with bytes of the file
        if str(error) == "interrupted":  # a signal's exception, which SQLite keeps to itself
            raise KeyboardInterrupt from error
        if isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in _NOT_DAMAGE):
            raise GteError(f"{path}: {error}") from error
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> IndexFormatError:
    return IndexFormatError(f"{path} is damaged: {reason}", remedy="rebuild")


def read_rows(
    connection: sqlite3.Connection,
    path: Path,
    query: str,
    types: tuple[type, ...],
    parameters: tuple[Any, ...] = (),
    times: int = 1,
) -> list[Any]:
    """Returns the rows of a query, whose values must have these types.

    Their total size is bounded by the size of the file, `times` as much if the query repeats values: in a damaged file
    whose pages form a circle, rows would never end.
    """
    rows = []
    sized = [number for number, wanted in enumerate(types) if wanted in (bytes, str)]
    with reporting(path):
        sizes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
        room = sizes[0] * sizes[1] * times
        for row in connection.execute(query, parameters):
            if tuple(map(type, row)) != types:
                raise damaged(path, "a value is of another type than its column")
            room -= len(types) - len(sized)
            for number in sized:
                room -= len(row[number])
            if room < 0:
                raise damaged(path, "it holds more than its size allows")
            rows.append(row)
    return rows


def _fill(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.executescript(_SCHEMAS[FORMAT_VERSION])
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()]
    )
    connection.commit()


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.set_progress_handler(lambda: 0, _INSTRUCTIONS)  # Python runs signal handlers as it enters a function
    return connection


def _schema_of(connection: sqlite3.Connection) -> set[tuple[Any, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return {(*names, " ".join(sql.split()) if isinstance(sql, str) else sql) for *names, sql in rows}


@functools.cache
def _own_schema(version: int) -> set[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMAS[version])
        return _schema_of(connection)
