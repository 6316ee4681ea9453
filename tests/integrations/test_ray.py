"""Ray: BatchEmbedder in real map_batches, and `gte embed --on ray` with its workers and itself killed."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from gte_sdk import Embedder, InputError, ModelMismatchError
from gte_sdk.integrations.pandas import to_numpy
from gte_sdk.integrations.ray import BatchEmbedder

ROOT = Path(__file__).parent.parent.parent
GTE = [sys.executable, "-m", "gte_sdk.cli", "embed"]
TEXTS = ["a red car", "", "Über 東京"]
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}

# In a process of its own: Ray leaves threads and signal handlers behind, and talks to its daemons by sockets.
MAP_BATCHES = """
import json, sys
import ray
from gte_sdk.integrations.ray import BatchEmbedder

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
rows = ray.data.from_items([{"id": number, "review": f"text {number}"} for number in range(300)])
for batch_format in ("numpy", "pyarrow"):
    embedded = rows.map_batches(
        BatchEmbedder, fn_constructor_kwargs={"column": "review", "kind": "query", "model": sys.argv[1]},
        batch_size=64, batch_format=batch_format, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
    )
    embedded.write_parquet(sys.argv[2] + "/" + batch_format)
"""


def run(command: Sequence[object], timeout: int = 600) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False)


@pytest.mark.parametrize("kind", ["plain", "query", "document"])
def test_batches_of_every_format_get_their_vectors_and_keep_the_rest(prompted: Path, kind: Any) -> None:
    embedder = Embedder(prompted)
    embed = {"plain": embedder.embed, "query": embedder.embed_query, "document": embedder.embed_documents}[kind]
    batch_embedder = pickle.loads(pickle.dumps(BatchEmbedder("review", vector_column="v", kind=kind, model=prompted)))
    numpy_batch = {"id": np.arange(3), "review": np.array(TEXTS, dtype=object)}
    found = batch_embedder(numpy_batch)
    assert (list(found), list(numpy_batch)) == (["id", "review", "v"], ["id", "review"])
    np.testing.assert_array_equal(found["v"], embed(TEXTS))
    table = pyarrow.table({"id": pyarrow.array([1, None, 3], pyarrow.int8()), "review": TEXTS})
    found = batch_embedder(table)
    assert found.select(["id", "review"]).equals(table)
    assert found.schema.field("v").type == pyarrow.list_(pyarrow.float32(), embedder.dim)
    np.testing.assert_array_equal(np.array(found["v"].to_pylist(), np.float32), embed(TEXTS))
    frame = pandas.DataFrame({"review": TEXTS}, index=[4, 5, 6])
    found = batch_embedder(frame)
    assert found.index.tolist() == [4, 5, 6]
    np.testing.assert_array_equal(to_numpy(found["v"]), embed(TEXTS))


def test_wrong_columns_and_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="no column 'text'; the columns are id"):
        BatchEmbedder()({"id": np.arange(1)})
    with pytest.raises(InputError, match="there is a column 'text' already"):
        BatchEmbedder("text", vector_column="text")(pyarrow.table({"text": ["a"]}))
    with pytest.raises(InputError, match="kind='passage'"):
        BatchEmbedder(kind="passage")  # type: ignore[arg-type]
    with pytest.raises(ModelMismatchError):
        BatchEmbedder(fingerprint="another")({"text": np.array(["a"], dtype=object)})


def test_ray_data_maps_batches_on_two_workers(prompted: Path, tmp_path: Path) -> None:
    ended = run([sys.executable, "-c", MAP_BATCHES, prompted, tmp_path])
    assert ended.returncode == 0, ended.stderr
    expected = Embedder(prompted).embed_query([f"text {number}" for number in range(300)])
    for batch_format in ("numpy", "pyarrow"):
        table = parquet.read_table(tmp_path / batch_format).sort_by("id")
        assert table.column("id").to_pylist() == list(range(300))
        np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), np.float32), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker to kill in /proc")
def test_killed_workers_and_a_killed_run_lose_and_double_no_row(tmp_path: Path) -> None:
    script = ROOT / "examples" / "ray_worker_killed.py"
    ended = run([sys.executable, script, tmp_path / "work", "--rows", "9000", "--files", "12"])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert len(report.pop("killed")) == 3
    assert report == {
        "rows": 9000, "parts": 12, "rows_lost": 0, "rows_doubled": 0, "same_order_and_texts": True,
        "vectors_same_bits": True,
    }  # fmt: skip
    # What is done is not done again: some parts are older than the last kill.
    assert "kept from before" in ended.stderr
    assert sorted(path.name for path in (tmp_path / "work").iterdir() if "local" not in path.name) == [
        "source", "vectors",
    ]  # fmt: skip


def test_a_bad_row_ends_the_run_with_its_place_and_keeps_the_parts(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, texts in enumerate([["a", "b"], ["c", None]]):
        parquet.write_table(pyarrow.table({"text": texts}), source / f"{number}.parquet")
    command = [*GTE, source, "-o", tmp_path / "out", "--on", "ray", "--workers", "1"]
    ended = run(command)
    assert ended.returncode == 1
    assert "1.parquet, row 2: 'text' is null; expected text" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert " are kept in " in ended.stderr
    assert not (tmp_path / "out").exists()
    other_kind = run([*command, "--resume", "--kind", "query"])
    assert other_kind.returncode == 1
    assert "has kind plain, this run query" in other_kind.stderr


def test_a_worker_that_cannot_open_the_model_and_a_missing_ray_are_said_in_one_line(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "in.parquet")
    command = [*GTE, tmp_path / "in.parquet", "-o", tmp_path / "out", "--on", "ray"]
    ended = run([*command, "--model", tmp_path / "nowhere"])
    assert ended.returncode == 1
    assert "Error: a worker cannot open the model: model=" in ended.stderr
    assert "Traceback" not in ended.stderr
    without_ray = "import sys; sys.modules['ray'] = None; from gte_sdk.cli import main; main()"
    ended = run([sys.executable, "-c", without_ray, *command[3:]])
    assert (ended.returncode, ended.stderr) == (1, "Error: --on ray needs Ray: pip install 'ray[data]'\n")
    assert not (tmp_path / "out.unfinished").exists()
