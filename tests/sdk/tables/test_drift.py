"""Stored vectors against a model's own: every form that stores export, and each way that they can differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from pyarrow import parquet

from gte_sdk import Embedder, InputError
from gte_sdk.cli.commands import gte
from gte_sdk.integrations.sqlite_vec import float32_bytes, int8_bytes
from gte_sdk.tables.drift import check_drift, vector_of

TEXTS = [f"Note {number} is about {word}." for number in range(20) for word in ("bread", "trains", "interest", "rain")]


@pytest.fixture(scope="module")
def mini() -> Embedder:
    return Embedder("gte-mini")


@pytest.fixture(scope="module")
def own(mini: Embedder) -> NDArray[np.float32]:
    return mini.embed_documents(TEXTS)


@pytest.fixture(scope="module")
def nanos() -> NDArray[np.float32]:
    return Embedder("gte-nano").embed_documents(TEXTS)


def embed(mini: Embedder) -> Callable[[list[str]], NDArray[np.float32]]:
    return lambda texts: mini.embed_documents(texts)


@pytest.mark.parametrize(
    "stored",
    [
        lambda row: row, lambda row: row.tolist(), lambda row: row.astype(np.float16), lambda row: row * 3,
        lambda row: json.dumps(row.tolist()), float32_bytes, lambda row: np.frombuffer(int8_bytes(row), np.int8),
        lambda row: np.frombuffer(int8_bytes(row), np.int8).astype(float).tolist(),
    ],
    ids=["array", "list", "float16", "longer", "pgvector", "sqlite-vec", "int8", "int8 as JSON"],
)  # fmt: skip
def test_the_models_own_vectors_are_known_in_every_form(
    mini: Embedder, own: NDArray[np.float32], stored: Callable[[Any], Any]
) -> None:
    found = check_drift(zip(TEXTS, map(stored, own), strict=True), embed(mini))
    assert found.is_none()
    assert (found.row_count, found.sampled, found.same, found.unlike) == (80, 80, 80, ())
    other = check_drift(zip(TEXTS, map(stored, own[:, ::-1].copy()), strict=True), embed(mini))
    assert other.same == 0
    assert other.mean_cosine < 0.5


def test_rows_that_differ_are_named_worst_first(mini: Embedder, own: NDArray[np.float32]) -> None:
    mixed_ND = own.copy()
    mixed_ND[7] = own[9]
    mixed_ND[30] *= -1
    found = check_drift(zip(TEXTS, mixed_ND, strict=True), embed(mini))
    assert (found.same, found.unlike) == (78, (31, 8))
    assert found.least_cosine == pytest.approx(-1, abs=1e-5)
    exact = np.einsum("nd,nd->n", mixed_ND, own)
    assert found.mean_cosine == pytest.approx(exact.mean(), abs=1e-6)


def test_a_sample_is_drawn_from_all_rows_and_is_the_same_each_time() -> None:
    seen: list[list[str]] = []

    def first_axis(texts: list[str]) -> NDArray[np.float32]:
        seen.append(texts)
        return np.tile(np.array([1, 0], np.float32), (len(texts), 1))

    rows = [(str(number), None if number % 2 else [1.0, 0.0]) for number in range(2000)]
    for _ in range(2):
        found = check_drift(rows, first_axis, sample_rows=100)
        assert (found.row_count, found.sampled) == (1000, 100)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 100
    drawn = np.array(seen[0], dtype=int)
    assert (drawn % 2 == 0).all()
    assert 700 < drawn.mean() < 1300  # 1,000 by chance, with a deviation of 58


def test_vectors_of_another_width_are_not_the_models(mini: Embedder) -> None:
    found = check_drift([("a", [1.0, 0.5])], embed(mini))
    assert (found.dim, found.same, found.mean_cosine) == (2, 0, 0.0)


@pytest.mark.parametrize(
    "value",
    ["words", "[[1]]", "{}", b"123", b"", [], [[1.0], [2.0]], [1, [2]], ["a"], [float("nan")], 7, {"a": 1}, [True],
     "[" * 9999],
)  # fmt: skip
def test_what_is_no_vector_is_one_error_with_its_row(value: Any) -> None:
    with pytest.raises(InputError, match="row 3"):
        vector_of(value, "row 3")


def test_a_table_without_vectors_is_said(mini: Embedder) -> None:
    with pytest.raises(InputError, match="no row has a vector"):
        check_drift([("a", None)], embed(mini))
    with pytest.raises(InputError, match="sample_rows=0"):
        check_drift([], embed(mini), sample_rows=0)


# --- the command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def write_table(path: Path, vectors_ND: NDArray[Any], column: str) -> None:
    rows = [{"id": row, "payload": {"text": text}, column: vector} for row, (text, vector)
            in enumerate(zip(TEXTS, vectors_ND.tolist(), strict=True))]  # fmt: skip
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [f'"{row["payload"]["text"]}";"{json.dumps(row[column])}"'.replace(";", ",") for row in rows]
        path.write_text("\n".join([f"payload.text,{column}", *lines]), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_an_export_is_checked_and_all_of_it_embedded_again(
    suffix: str, tmp_path: Path, own: NDArray[np.float32], nanos: NDArray[np.float32]
) -> None:
    path = tmp_path / f"export{suffix}"
    columns = ["--column", "payload.text", "--vector-column", "vector"]
    write_table(path, nanos, "vector")
    result = run("drift", path, *columns)
    assert result.exit_code == 1
    assert f"{path}: 80 rows, 256 dimensions" in result.output
    assert "not the model's vectors: it makes 384 dimensions" in result.output
    again = f"gte embed {path} --column payload.text --kind document --model gte-mini --vector-column vector --replace"
    assert again in result.output
    assert run("drift", path, *columns, "--model", "gte-nano").exit_code == 0
    taken = run("embed", path, *columns, "-o", tmp_path / "refused.parquet")
    assert taken.exit_code == 1
    assert "has a column 'vector' already" in taken.output
    assert "--replace" in taken.output

    new = tmp_path / "new.parquet"
    assert run("embed", path, *columns, "--replace", "-o", new, "-q").exit_code == 0
    table = parquet.read_table(new)
    assert table.column_names == (["payload.text", "vector"] if suffix == ".csv" else ["id", "payload", "vector"])
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), own)
    result = run("drift", new, *columns, "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["noted_fingerprint"] == answer["fingerprint"]
    assert (answer["same"], answer["is_drift"]) == (80, False)


def test_vectors_in_a_file_of_their_own(tmp_path: Path, own: NDArray[np.float32]) -> None:
    texts, vectors = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    np.save(vectors, own)
    assert run("drift", texts, "--vectors", vectors).exit_code == 0
    for wrong, said in (
        (own[:-1], "79 vectors"), (np.vstack([own, own]), "160 vectors"), (own[0], "shape (384,)"),
        (np.array([{}]), "not a readable .npy"),
    ):  # fmt: skip
        np.save(vectors, wrong)
        result = run("drift", texts, "--vectors", vectors)
        assert result.exit_code == 1
        assert said in result.output


def test_columns_that_are_not_there(tmp_path: Path, own: NDArray[np.float32]) -> None:
    for suffix in (".parquet", ".jsonl"):
        path = tmp_path / f"export{suffix}"
        write_table(path, own, "vector")
        result = run("drift", path, "--column", "payload.text")
        assert result.exit_code == 1
        assert "'embedding'" in result.output
        assert "--vector-column" in result.output
    result = run(
        "embed", path, "--column", "payload", "--vector-column", "payload", "--replace", "-o", tmp_path / "x.npy"
    )
    assert result.exit_code == 1
