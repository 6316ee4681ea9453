"""The programs of docs/beyond-one-machine.md, run as they stand there: Ray, Spark, and into vector databases."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pyarrow
import pytest
from pgvector.psycopg import register_vector
from pyarrow import parquet

import gte_sdk

PAGE = Path(__file__).parent.parent.parent / "docs" / "beyond-one-machine.md"
REVIEWS = ["the kettle leaks", "boils in a minute", "arrived late", "quiet and light"] * 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's programs and input, and the output of its first command."""
    programs = re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, text in programs:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert [name for name, _ in programs] == [
        "on_ray.py", "on_spark.py", "batches.py", "to_qdrant.py", "to_lancedb.py", "to_pgvector.py",
    ]  # fmt: skip
    table = pyarrow.table({"id": list(range(100)), "review": REVIEWS})
    parquet.write_table(table, tmp_path / "reviews.parquet")
    vectors = pyarrow.FixedSizeListArray.from_arrays(gte_sdk.embed(REVIEWS).reshape(-1), 384)
    (tmp_path / "vectors").mkdir()
    parquet.write_table(table.append_column("embedding", vectors), tmp_path / "vectors" / "part-000000.parquet")
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> str:
    environment = {
        **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1",
        **environment,
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def check_vectors(folder: Path) -> None:
    table = parquet.read_table(folder).sort_by("id")
    assert table.column("id").to_pylist() == list(range(100))
    assert table.column("review").to_pylist() == REVIEWS
    np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), np.float32), gte_sdk.embed(REVIEWS))


def test_the_command_on_ray(folder: Path) -> None:
    command = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if "--on ray --output" in line)
    shutil.rmtree(folder / "vectors")
    run(folder, "-m", "gte_sdk.cli", *command.split()[1:])
    check_vectors(folder / "vectors")
    assert [path.name for path in (folder / "vectors").iterdir()] == ["part-000000.parquet"]


def test_the_program_on_ray(folder: Path) -> None:
    run(folder, "on_ray.py")
    check_vectors(folder / "on-ray")


@pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ,
    reason="Spark needs a Java; Debian: apt-get install default-jre-headless",
)
def test_the_program_on_spark(folder: Path) -> None:
    run(folder, "on_spark.py")
    check_vectors(folder / "on-spark")


@pytest.mark.parametrize("program", ["to_qdrant.py", "to_lancedb.py"])
def test_a_database_finds_the_nearest_review(folder: Path, program: str) -> None:
    assert run(folder, program).splitlines()[-1] == "quiet and light"
    run(folder, program)  # loading twice is loading once


def test_pgvector_finds_the_nearest_review_and_keeps_every_bit(folder: Path, postgres: dict[str, str]) -> None:
    assert run(folder, "to_pgvector.py", **postgres).splitlines()[-1] == "quiet and light"
    with psycopg.connect(f"dbname=reviews host={postgres['PGHOST']} user={postgres['PGUSER']}") as connection:
        register_vector(connection)
        rows = connection.execute("SELECT id, review, embedding FROM reviews ORDER BY id", binary=True).fetchall()
    assert [row[:2] for row in rows] == list(enumerate(REVIEWS))
    np.testing.assert_array_equal(np.array([row[2].to_numpy() for row in rows]), gte_sdk.embed(REVIEWS))
