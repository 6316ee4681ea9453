"""The page on drift: each program's export is what `gte drift` reads, and what it writes back are the new vectors."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte

from .notes import NOTES

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "check-a-store.md"
# Of 384 dimensions, as gte-mini's: another model whose vectors fit the same column.
FOREIGN = np.roll(np.eye(len(NOTES), 384, dtype=np.float32), 7, axis=1)


def program_with(word: str) -> str:
    programs = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (program,) = (text for text in programs if f"import {word}" in text)
    return str(program)


def check_and_take_back(program: str, names: dict[str, Any]) -> None:
    """Runs the program up to its commands, the commands, and the rest."""
    before, drift, embed, after = re.split(r"# gte (.+)\n# gte (.+)\n", program)
    exec(before, names)
    assert CliRunner().invoke(gte, drift.split()).exit_code == 1
    assert CliRunner().invoke(gte, embed.split()).exit_code == 0
    new = embed.split()[-1]
    assert CliRunner().invoke(gte, ["drift", new, *drift.split()[2:]]).exit_code == 0
    exec(after, names)


def test_qdrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gte_mini: Embedder) -> None:
    client_module = pytest.importorskip("qdrant_client")
    monkeypatch.chdir(tmp_path)
    models = client_module.models
    client = client_module.QdrantClient(path="qdrant")
    client.create_collection("notes", vectors_config=models.VectorParams(size=384, distance=models.Distance.COSINE))
    for row, text in enumerate(NOTES):
        point = models.PointStruct(id=row, vector=FOREIGN[row].tolist(), payload={"text": text})
        client.upsert("notes", [point])
    client.close()
    names: dict[str, Any] = {}
    check_and_take_back(program_with("QdrantClient"), names)
    points, _ = names["client"].scroll("notes", limit=100, with_vectors=True)
    stored = {point.payload["text"]: point.vector for point in points}
    np.testing.assert_allclose([stored[text] for text in NOTES], gte_mini.embed(NOTES), atol=1e-6)
    names["client"].close()


def test_lancedb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gte_mini: Embedder) -> None:
    lancedb = pytest.importorskip("lancedb")
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text, "vector": FOREIGN[row]} for row, text in enumerate(NOTES)]
    lancedb.connect("lance").create_table("notes", rows)
    check_and_take_back(program_with("lancedb"), {})
    table = lancedb.connect("lance").open_table("notes").to_arrow()
    assert table["text"].to_pylist() == list(NOTES)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), gte_mini.embed(NOTES))


def test_sqlite_vec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gte_mini: Embedder) -> None:
    apsw, sqlite_vec = pytest.importorskip("apsw"), pytest.importorskip("sqlite_vec")
    monkeypatch.chdir(tmp_path)
    connection = apsw.Connection("notes.db")
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)")
    connection.execute("CREATE VIRTUAL TABLE vectors USING vec0(embedding float[384])")
    for row, text in enumerate(NOTES, 1):
        connection.execute("INSERT INTO notes VALUES (?, ?)", (row, text))
        connection.execute("INSERT INTO vectors(rowid, embedding) VALUES (?, ?)", (row, FOREIGN[row - 1].tobytes()))
    connection.close()
    names: dict[str, Any] = {}
    check_and_take_back(program_with("apsw"), names)
    stored = [row[0] for row in names["connection"].execute("SELECT embedding FROM vectors ORDER BY rowid")]
    np.testing.assert_array_equal([np.frombuffer(row, "<f4") for row in stored], gte_mini.embed(NOTES))


def test_pgvector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gte_mini: Embedder, postgres: dict[str, str]
) -> None:
    psycopg, pgvector = pytest.importorskip("psycopg"), pytest.importorskip("pgvector.psycopg")
    monkeypatch.chdir(tmp_path)
    for name, value in postgres.items():
        monkeypatch.setenv(name, value)
    with psycopg.connect("dbname=notes") as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE notes (id int PRIMARY KEY, text text, embedding vector(384))")
        for row, text in enumerate(NOTES):
            connection.execute("INSERT INTO notes VALUES (%s, %s, %s)", (row, text, str(FOREIGN[row].tolist())))
    names: dict[str, Any] = {}
    check_and_take_back(program_with("psycopg"), names)
    names["connection"].close()
    with psycopg.connect("dbname=notes") as connection:
        pgvector.register_vector(connection)
        rows = connection.execute("SELECT text, embedding FROM notes ORDER BY id", binary=True).fetchall()
    assert [text for text, _ in rows] == list(NOTES)
    np.testing.assert_array_equal([vector.to_numpy() for _, vector in rows], gte_mini.embed(NOTES))
