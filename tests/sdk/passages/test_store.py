"""A passage index as a file: what a hostile one cannot do, and what happens when several processes have it."""

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk.atomic_file import move_whole
from gte_sdk.cli.commands import gte
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import IndexFormatError, InputError, ModelMismatchError
from gte_sdk.passages.database import create_database
from gte_sdk.passages.searching import PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, FileState, PassageStore, Settings
from gte_sdk.passages.update_lock import exclusive, lock_path_of
from gte_sdk.passages.updating import update_index

from ..tiny_models import write_tiny_model

DIM = 4
SETTINGS = Settings("tiny", "sha256:tiny", DIM, ("/notes",))
QUERY = np.ones((1, DIM), np.float32)


def fill(store: PassageStore, files: int = 3) -> None:
    for number in range(files):
        parts = [(Passage(f"{number}", line, "", f"text {number} {line}"), bytes([number, line])) for line in (1, 2)]
        vectors_ND = np.random.default_rng(number).standard_normal((2, DIM)).astype(np.float32)
        store.add_vectors([text_hash for _, text_hash in parts], vectors_ND)
        store.put_files([FilePassages(f"/notes/{number}.txt", FileState("stamp", b"hash"), parts)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with PassageStore(tmp_path / "notes.index", SETTINGS) as store:
        fill(store)
    return tmp_path / "notes.index"


def use(path: Path) -> None:
    """Everything that a search or an update reads."""
    with PassageStore(path) as store:
        store.check_fingerprint("sha256:tiny")
        PassageSearch(store).find(QUERY, 5, "text 1")
        store.files()
        store.counts()
        store.embedded_texts([b"a"])


# --- a file from anywhere

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, '' AS a, '' AS b, '' AS c FROM n"
)


@pytest.mark.parametrize("table", ["meta", "files", "vectors", "passages", "words"])
@pytest.mark.parametrize(
    "replacement",
    [
        f"CREATE VIEW {{table}} AS {ENDLESS}",
        "CREATE VIRTUAL TABLE {table} USING fts5(a)",
        "CREATE TABLE {table} (id INTEGER PRIMARY KEY, a TEXT AS (hex(zeroblob(100000000))))",
        None,
    ],
    ids=["an endless view", "a virtual table", "a computed column", "nothing"],
)
def test_another_schema_is_refused_when_it_is_opened(path: Path, table: str, replacement: str | None) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {table}")
        if replacement:
            connection.execute(replacement.format(table=table))
        connection.commit()
    with pytest.raises(IndexFormatError, match=r"notes\.index is damaged: its tables are not those of an index"):
        use(path)


@pytest.mark.parametrize(
    "addition",
    [
        f"CREATE VIEW more AS {ENDLESS}",
        "CREATE TRIGGER t AFTER DELETE ON files BEGIN DELETE FROM vectors; END",
        "CREATE INDEX more ON passages (abs(line))",
        "CREATE TABLE more (a)",
        "ALTER TABLE files ADD COLUMN more TEXT DEFAULT 'x'",
        "CREATE VIRTUAL TABLE more USING fts5vocab('words', 'row')",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = replace(sql, 'porter', 'trigram') "
        "WHERE name = 'words'",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY', 'PRIMARY KEY DESC') "
        "WHERE name = 'words_data'",
    ],
)
def test_what_was_added_to_the_schema_is_refused(path: Path, addition: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(addition)
        connection.commit()
    with pytest.raises(IndexFormatError, match="its tables are not those of an index"):
        use(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = '[' WHERE key = 'paths'",
        "UPDATE meta SET value = '5' WHERE key = 'paths'",
        "UPDATE meta SET value = '[5]' WHERE key = 'globs'",
        "UPDATE meta SET value = '5' WHERE key = 'model'",
        "UPDATE meta SET value = 'null' WHERE key = 'fingerprint'",
        "UPDATE meta SET value = '1e400' WHERE key = 'dim'",
        "UPDATE meta SET value = 'true' WHERE key = 'dim'",
        "UPDATE meta SET value = '-3' WHERE key = 'dim'",
        "UPDATE meta SET value = '8' WHERE key = 'dim'",
        "UPDATE meta SET value = '99999999999999999999' WHERE key = 'dim'",
        "UPDATE meta SET value = x'ff' WHERE key = 'model'",
        f"UPDATE meta SET value = '{'[' * 100_000}' WHERE key = 'paths'",
        "DELETE FROM meta",
        "UPDATE vectors SET vector = 5",
        "UPDATE vectors SET vector = 'text'",
        "UPDATE vectors SET vector = x'00'",
        "UPDATE vectors SET vector = x'0000c07f0000c07f0000c07f0000c07f'",
        "UPDATE passages SET line = 'one'",
        "UPDATE passages SET text = x'ff'",
        "UPDATE passages SET text = cast(x'ff' AS TEXT)",
        "UPDATE passages SET context = x'00'",
        "UPDATE files SET path = 'text' || id",
        "UPDATE files SET stamp = x'00'",
        "UPDATE files SET sha256 = 5",
    ],
)
def test_a_value_that_no_index_holds_is_one_error_with_the_path_and_the_remedy(path: Path, change: str) -> None:
    use(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    with pytest.raises(IndexFormatError, match=r"notes\.index is damaged: ") as refusal:
        use(path)
    assert refusal.value.remedy == "rebuild"


@pytest.mark.parametrize("value", ["x''", "zeroblob(64)", "x'ffffffffffffffffffff'", "1e400"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE words_data SET block = {}",
        "UPDATE words_data SET block = {} WHERE id = 1",
        "UPDATE words_data SET block = {} WHERE id = 10",
        "UPDATE words_data SET block = {} WHERE id > 10",
        "UPDATE words_docsize SET sz = {}",
        "UPDATE words_docsize SET id = id + 1000",
        "UPDATE words_idx SET pgno = {}",
        "UPDATE words_config SET v = {}",
        "INSERT INTO words_config VALUES ('rank', {})",
        "DELETE FROM words_data",
        "DELETE FROM words_docsize",
        "DELETE FROM words_config",
        "UPDATE words_data SET block = substr(block, 1, length(block) / 2)",
    ],
)
def test_words_that_lie_end_in_an_answer_or_in_one_error(path: Path, change: str, value: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(change.format(value))
        connection.commit()
    with contextlib.suppress(IndexFormatError):  # any other exception fails the test
        use(path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_statement_of_any_length(number: signal.Signals, code: int) -> None:
    program = f"""
import sys
from pathlib import Path
import click
from gte_sdk.cli import commands, main
from gte_sdk.passages.database import open_in_memory, reporting

@commands.gte.command()
def endless():
    with reporting(Path("x")):
        print("ready", flush=True)
        open_in_memory({{}}).execute("SELECT count(*) FROM ({ENDLESS})").fetchone()

sys.argv = ["gte", "endless"]
main()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, errors = process.communicate()
        timer.cancel()
    assert process.returncode == code
    assert b"Traceback" not in errors


def test_an_index_names_a_model_but_downloads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "notes").mkdir()
    settings = SETTINGS._replace(model="somebody/chosen-by-the-file", paths=(str(tmp_path / "notes"),))
    with PassageStore(tmp_path / "i", settings) as store:
        fill(store)
    for command in (["search", "blue", tmp_path / "i"], ["index", "-o", tmp_path / "i"]):
        result = CliRunner().invoke(gte, list(map(str, command)))
        assert result.exit_code == 1
        assert (
            "is of the model somebody/chosen-by-the-file, which is not on this machine; give --model" in result.stderr
        )


# --- several processes


def test_two_runs_on_one_new_file_make_one_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_by_another_first(path: Path, values: Any) -> None:
        create_database(path, SETTINGS._asdict())
        with PassageStore(path) as other:
            fill(other)
        create_database(path, values)

    monkeypatch.setattr("gte_sdk.passages.store.create_database", made_by_another_first)
    with PassageStore(tmp_path / "i", SETTINGS) as store:
        assert store.counts() == (3, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_whoever_comes_second_waits_says_so_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "i"
    waits, ended = threading.Event(), threading.Event()

    def second() -> None:
        with exclusive(path, waits.set):
            ended.set()

    thread = threading.Thread(target=second)
    with exclusive(path, pytest.fail):
        thread.start()
        assert waits.wait(120)
        assert not ended.is_set()
    thread.join()
    assert ended.is_set()
    assert not lock_path_of(path).exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def indexed(model: Path, tmp_path: Path) -> tuple[Path, Embedder]:
    """An index of a folder of one file."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("red", encoding="utf-8")
    embedder = Embedder(model)
    settings = Settings(str(model), embedder.fingerprint, embedder.dim, (str(tmp_path / "notes"),))
    with PassageStore(tmp_path / "i", settings) as store:
        update_index(store, embedder, pytest.fail, lambda done, total: None)
    return tmp_path / "i", embedder


def texts_found(store: PassageStore, embedder: Embedder) -> set[str]:
    return {found.passage.text for found in PassageSearch(store).find(embedder.embed_query(["red"]), 9)}


def test_a_watcher_and_a_search_follow_a_rebuild(indexed: tuple[Path, Embedder], tmp_path: Path) -> None:
    path, embedder = indexed
    with PassageStore(path) as watching, PassageStore(path) as searching:
        search = PassageSearch(searching)
        assert len(search.find(embedder.embed_query(["red"]), 9)) == 1
        path.chmod(0o600)
        (tmp_path / "notes" / "b.txt").write_text("blue", encoding="utf-8")
        with PassageStore(tmp_path / "new", watching.settings) as rebuilt:
            update_index(rebuilt, embedder, pytest.fail, lambda done, total: None)
        move_whole(tmp_path / "new", path)
        assert len(search.find(embedder.embed_query(["red"]), 9)) == 2
        (tmp_path / "notes" / "c.txt").write_text("green", encoding="utf-8")
        changes = update_index(watching, embedder, pytest.fail, lambda done, total: None)
        assert (changes.added, changes.unchanged) == (1, 2)
        assert texts_found(searching, embedder) == {"red", "blue", "green"}
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_watcher_that_meets_another_model_after_a_rebuild_says_so(
    indexed: tuple[Path, Embedder], tmp_path: Path
) -> None:
    path, embedder = indexed
    with PassageStore(path) as watching:
        with PassageStore(tmp_path / "new", watching.settings._replace(fingerprint="sha256:other")):
            pass
        move_whole(tmp_path / "new", path)
        with pytest.raises(ModelMismatchError, match="sha256:other"):
            update_index(watching, embedder, pytest.fail, lambda done, total: None)
        path.unlink()
        with pytest.raises(InputError, match="does not exist any more"):
            update_index(watching, embedder, pytest.fail, lambda done, total: None)


def test_an_update_in_a_folder_that_cannot_be_written_to_needs_no_lock(
    indexed: tuple[Path, Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, embedder = indexed
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == lock_path_of(path):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with PassageStore(path) as store:
        assert not update_index(store, embedder, pytest.fail, lambda done, total: None).any()


# --- what is left out


def binary(path: Path) -> None:
    path.write_bytes(b"\0\1")


def other_encoding(path: Path) -> None:
    path.write_bytes("Привет".encode("cp1251"))


def too_large(path: Path) -> None:
    path.write_bytes(b"x" * (3 << 20))


def not_regular(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_folder(path: Path) -> None:
    path.with_name("folder").mkdir()
    path.symlink_to("folder")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
@pytest.mark.parametrize("make", [binary, other_encoding, too_large, not_regular, link_to_a_folder])
def test_a_file_that_is_left_out_is_named_in_every_run(
    indexed: tuple[Path, Embedder], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path, embedder = indexed
    left_out = tmp_path / "notes" / "out.txt"
    make(left_out)
    if left_out.is_file():
        os.utime(left_out, ns=(1, 1))
    for _ in range(3):
        said: list[str] = []
        with PassageStore(path) as store:
            before = store.version()
            update_index(store, embedder, said.append, lambda done, total: None)
            changed = store.version() != before
        assert [str(left_out) in line for line in said] == [True], said
    assert not changed  # nothing was written for it, and no search reads the vectors again
    if left_out.is_dir():
        shutil.rmtree(tmp_path / "notes" / "folder")
