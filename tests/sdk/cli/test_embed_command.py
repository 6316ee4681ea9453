"""`gte embed` with a tiny real model: every input to every output, the library's vectors, no half files."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from pyarrow import parquet

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte

from ..tiny_models import DIM, write_tiny_model

TEXTS = ["red", "", "green blue", 'slow, "quoted" red', "Über 東京", "fast " * 10]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "document: "}
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts=prompts)


def embed(model: Path, *arguments: str | Path, standard_input: bytes | None = None) -> Result:
    return CliRunner().invoke(gte, ["embed", "--model", str(model), *map(str, arguments)], input=standard_input)


def write_input(folder: Path, suffix: str, texts: list[str]) -> Path:
    path = folder / f"input{suffix}"
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    if suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if suffix == ".tsv" else ","
            csv.writer(file, delimiter=delimiter).writerows([["id", "text"], *(row.values() for row in rows)])
    return path


def read_output(path: Path) -> tuple[list[str] | None, NDArray[np.float32]]:
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = parquet.read_table(path).to_pylist()
    return [row["text"] for row in rows], np.array([row["embedding"] for row in rows], dtype=np.float32)


@pytest.mark.parametrize("target", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize("source", [".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_input_becomes_every_output(model: Path, tmp_path: Path, source: str, target: str) -> None:
    output = tmp_path / f"output{target}"
    result = embed(model, write_input(tmp_path, source, TEXTS), "--output", output)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert f"gte: 6 texts, {DIM} dimensions" in result.stderr
    texts, vectors_ND = read_output(output)
    assert texts in (None, TEXTS)
    assert vectors_ND.dtype == np.float32
    np.testing.assert_array_equal(vectors_ND, Embedder(model).embed(TEXTS))


def test_standard_input_and_output_are_lines_and_jsonl(model: Path) -> None:
    result = embed(model, "-", standard_input=b"red\n\ngreen\n")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["red", "", "green"]
    np.testing.assert_array_equal(
        np.array([row["embedding"] for row in rows], dtype=np.float32), Embedder(model).embed(["red", "", "green"])
    )


def test_a_format_can_be_said_where_the_suffix_does_not(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "reviews.data", tmp_path / "vectors"
    source.write_bytes(b"review;\nred\n".replace(b";", b""))
    assert embed(model, source, "--output", output, "--format", "npy").exit_code == 2
    formats = ["--input-format", "csv", "--format", "npy"]
    assert embed(model, source, "--column", "review", "--output", output, *formats).exit_code == 0
    np.testing.assert_array_equal(np.load(output), Embedder(model).embed(["red"]))


def test_kind_puts_the_prompt_of_the_model_before_each_text(model: Path) -> None:
    embedder = Embedder(model)
    expected = {"plain": embedder.embed("red"), "query": embedder.embed_query("red")}
    expected["document"] = embedder.embed_documents("red")
    for kind, vector in expected.items():
        row = json.loads(embed(model, "-", "--kind", kind, standard_input=b"red\n").stdout)
        np.testing.assert_array_equal(np.array(row["embedding"], dtype=np.float32), vector)
    assert not np.array_equal(expected["plain"], expected["query"])


@pytest.mark.parametrize("target", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary"])
def test_vectors_have_the_type_and_dimensions_asked_for(tmp_path: Path, dtype: str, target: str) -> None:
    output = tmp_path / f"output{target}"
    source = write_input(tmp_path, ".jsonl", ["red", "green blue"])
    options = ["--dtype", dtype, "--dim", "64", "--output", str(output)]
    result = CliRunner().invoke(gte, ["embed", "--model", "gte-mini", str(source), *options])
    assert result.exit_code == 0, result.output
    assert "gte: 2 texts, 64 dimensions" in result.stderr
    expected = Embedder("gte-mini", dim=64).embed(["red", "green blue"], dtype=dtype)
    if target == ".npy":
        found = np.load(output)
    elif target == ".jsonl":
        rows = [json.loads(line)["embedding"] for line in output.read_text(encoding="utf-8").splitlines()]
        found = np.array(rows).astype(expected.dtype)
    else:
        table = parquet.read_table(output)
        assert table.schema.metadata[b"gte_sdk.dtype"].decode() == dtype
        found = table["embedding"].combine_chunks().flatten().to_numpy().reshape(2, -1)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_types_and_dimensions_that_a_model_does_not_have(model: Path) -> None:
    refused = embed(model, "-", "--dtype", "int8", standard_input=b"red\n")
    assert refused.exit_code == 1
    assert "dtype='int8': this model's directory has no range for vectors of 5 dimensions" in refused.stderr
    refused = embed(model, "-", "--dim", "3", standard_input=b"red\n")
    assert refused.exit_code == 1
    assert "it was not trained to be cut" in refused.stderr


def test_many_rows_stay_in_order(model: Path, tmp_path: Path) -> None:
    words = ["red", "green", "blue", "fast", "slow"]
    texts = [" ".join(words[(number + k) % 5] for k in range(number % 7)) for number in range(3000)]
    output = tmp_path / "out.npy"
    assert embed(model, write_input(tmp_path, ".txt", texts), "-o", output).exit_code == 0
    np.testing.assert_array_equal(np.load(output), Embedder(model).embed(texts))


def test_parquet_says_which_model_made_its_vectors(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    names = ["--kind", "query", "--vector-column", "vector"]
    assert embed(model, write_input(tmp_path, ".parquet", ["red"]), "--output", output, *names).exit_code == 0
    schema = parquet.read_schema(output)
    assert schema.names == ["id", "text", "vector"]
    assert schema.metadata[b"gte_sdk.fingerprint"].decode() == Embedder(model).fingerprint
    assert schema.metadata[b"gte_sdk.kind"] == b"query"


def test_an_empty_input_gives_an_empty_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").touch()
    assert embed(model, tmp_path / "none.txt", "-o", tmp_path / "none.npy").exit_code == 0
    assert np.load(tmp_path / "none.npy").shape == (0, DIM)
    empty = tmp_path / "none.parquet"
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), empty)
    assert embed(model, empty, "-o", tmp_path / "out.parquet").exit_code == 0
    assert parquet.read_table(tmp_path / "out.parquet").schema.names == ["text", "embedding"]
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


def test_an_existing_output_is_replaced_only_when_asked(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    output.write_bytes(b"mine")
    result = embed(model, "-", "-o", output, standard_input=b"red\n")
    assert result.exit_code == 1
    assert "out.npy exists; give --overwrite to replace it" in result.stderr
    assert output.read_bytes() == b"mine"
    result = CliRunner().invoke(gte, ["embed", "-", "-o", str(output), "--model", "no such"], input=b"red\n")
    assert "exists" in result.stderr  # said before the model is opened and hours are spent
    assert embed(model, "-", "-o", output, "--overwrite", standard_input=b"red\n").exit_code == 0
    assert np.load(output).shape == (1, DIM)


def test_a_file_can_be_replaced_by_itself_with_vectors(model: Path, tmp_path: Path) -> None:
    path = write_input(tmp_path, ".jsonl", TEXTS)
    assert embed(model, path, "-o", path, "--overwrite").exit_code == 0
    texts, vectors_ND = read_output(path)
    assert texts == TEXTS
    assert vectors_ND.shape == (6, DIM)


@pytest.mark.parametrize("target", ["npy", "jsonl", "parquet"])
def test_a_bad_row_is_named_and_leaves_nothing_behind(model: Path, tmp_path: Path, target: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "red"}\n' * 1500 + '{"text": null}\n', encoding="utf-8")
    result = embed(model, source, "-o", tmp_path / f"out.{target}")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"gte: 1,024 texts are kept in {tmp_path / f'out.{target}'}.unfinished; the same command with --resume "
        "continues from there",
        f"Error: {source}, row 1501: 'text' is null; expected text; give --on-null skip or --on-null empty",
    ]
    assert sorted(tmp_path.iterdir()) == [source, tmp_path / f"out.{target}.unfinished"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.txt"], 2, "'missing.txt' does not exist"),
        (["in.csv", "--column", "review"], 1, "in.csv: no column 'review'; the columns are id, body"),
        (["in.csv"], 1, "in.csv: no column 'text'; the columns are id, body; name one with --column"),
        (["in.csv", "--column", "body", "-o", "out.csv"], 2, "out.csv: the suffix '.csv' says no format"),
        (["in.csv", "--column", "body", "--format", "npy"], 2, "npy cannot be written to standard output"),
        (["-", "--input-format", "parquet"], 2, "Parquet cannot be read from standard input; give a file"),
        (["in.csv", "--column", "body", "-o", "no/out.npy"], 1, "the folder no does not exist; create it first"),
        (["in.csv", "--column", "body", "--vector-column", "id"], 1, "a column 'id' already"),
        (["in.csv", "--column", "body", "--model", "no such"], 1, "'no such' is neither a bundled model"),
        (["in.csv", "--kind", "essay"], 2, "'essay' is not one of"),
    ],
)
def test_what_stops_it_is_said_in_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("id,body\n1,red\n", encoding="utf-8")
    result = embed(model, *arguments, standard_input=b"")
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_texts_that_were_cut_are_reported_with_their_rows(model: Path) -> None:
    result = embed(model, "-", standard_input=b"red\n" * 600 + b"slow " * 40 + b"\n")
    assert result.exit_code == 0
    assert "texts longer than the 32 tokens that the model reads were cut, the first of them in rows 513 to 601" in (
        result.stderr
    )


def test_quiet_says_nothing(model: Path) -> None:
    assert embed(model, "-", "-q", standard_input=b"red\n").stderr == ""
