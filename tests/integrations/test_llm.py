"""The command `llm` itself, with the plugin that it finds by its entry point."""

import json
import sqlite3
from pathlib import Path

import llm
import numpy as np
import pytest
from click.testing import CliRunner, Result
from llm.cli import cli

from gte_sdk import Embedder, InputError, TruncationWarning

from .notes import ANSWER, LONG, NOTES, QUESTION


@pytest.fixture(autouse=True)
def llm_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    return tmp_path / "llm"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def output(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_llm_finds_the_plugin() -> None:
    assert "GteEmbeddingModel: gte-sdk/gte-mini (aliases: gte-mini)" in output("embed-models")
    assert "gte_sdk" in [plugin["name"] for plugin in json.loads(output("plugins"))] or "gte-sdk" in output("plugins")


def test_vectors_are_gte_sdks(gte_mini: Embedder) -> None:
    vector = json.loads(output("embed", "-m", "gte-mini", "-c", QUESTION))
    np.testing.assert_array_equal(np.array(vector, dtype=np.float32), gte_mini.embed(QUESTION))
    model = llm.get_embedding_model("gte-mini")
    np.testing.assert_array_equal(np.array(list(model.embed_multi(NOTES)), dtype=np.float32), gte_mini.embed(NOTES))
    assert type(model.embed(QUESTION)[0]) is float


@pytest.mark.filterwarnings("ignore:unclosed file")  # llm leaves its input to the garbage collector
def test_search_in_llms_collection(tmp_path: Path) -> None:
    notes, database = tmp_path / "notes.json", str(tmp_path / "notes.db")
    notes.write_text(json.dumps([{"id": str(number), "text": note} for number, note in enumerate(NOTES)]))
    output("embed-multi", "notes", str(notes), "-m", "gte-mini", "-d", database, "--store")
    found = json.loads(output("similar", "notes", "-c", QUESTION, "-n", "1", "-d", database))
    assert found["content"] == ANSWER
    with sqlite3.connect(database) as connection:
        assert connection.execute("select model from collections").fetchall() == [("gte-sdk/gte-mini",)]
    connection.close()


def test_a_model_is_registered_and_forgotten(prompted: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prompted.parent)
    said = output("gte", "register", prompted.name, "--alias", "tiny", "--max-tokens", "4", "--truncation", "error")
    assert said == f"gte-sdk/{prompted}: vectors of 5 numbers, texts of 4 tokens\n"
    monkeypatch.chdir(llm_folder)
    model = llm.get_embedding_model("tiny")
    assert model.model_id == f"gte-sdk/{prompted}"
    np.testing.assert_array_equal(np.float32(model.embed("red")), Embedder(prompted).embed("red"))
    with pytest.raises(InputError, match="more than max_tokens=4 tokens"):
        model.embed("red green blue")
    output("gte", "register", str(prompted), "--alias", "again")
    assert "tiny" not in llm.get_embedding_model_aliases()
    assert [path.name for path in llm_folder.glob("gte-sdk*")] == ["gte-sdk.json"]
    refused = run("gte", "unregister", "tiny")
    assert refused.exit_code == 1
    assert f"'tiny' is not registered; these are: gte-sdk/{prompted}" in refused.output
    output("gte", "unregister", "again")
    assert str(prompted) not in output("embed-models")


def test_bad_input_is_named(llm_folder: Path) -> None:
    refused = run("gte", "register", "no-such-model")
    assert refused.exit_code == 1
    assert "no-such-model" in refused.output
    assert not (llm_folder / "gte-sdk.json").exists()
    model = llm.get_embedding_model("gte-mini")
    with pytest.raises(ValueError, match="does not support binary data"):
        model.embed(b"bytes")
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        model.embed(LONG)
    (llm_folder / "gte-sdk.json").write_text("{")
    refused = run("embed-models")
    assert refused.exit_code == 1
    assert "gte-sdk.json cannot be read" in refused.output
