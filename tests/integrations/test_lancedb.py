"""LanceDB's own tables and registry around the embedding function "gte-sdk"."""

import asyncio
import json
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow
import pytest
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry
from pydantic import ValidationError

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError, ModelMismatchError, TruncationWarning
from gte_sdk.integrations.lancedb import GteEmbeddingFunction

from ..sdk.tiny_models import TABLE, write_tiny_model
from .notes import ANSWER, LONG, NOTES, QUESTION


def made(**parameters: Any) -> Any:
    return get_registry().get("gte-sdk").create(**parameters)


def notes_table(database: Any, name: str, function: Any, texts: Any, **options: Any) -> Any:
    config = EmbeddingFunctionConfig(vector_column="vector", source_column="text", function=function)
    rows = [{"text": text} for text in texts]
    return database.create_table(name, rows, embedding_functions=[config], **options)


def test_vectors_are_gte_sdks(gte_mini: Embedder) -> None:
    function = made()
    assert isinstance(function, GteEmbeddingFunction)
    assert function.ndims() == 384
    expected = gte_mini.embed(NOTES)
    for texts in (NOTES, pyarrow.array(NOTES), pyarrow.chunked_array([NOTES[:1], NOTES[1:]]), np.array(NOTES)):
        np.testing.assert_array_equal(function.compute_source_embeddings_with_retry(texts), expected)
    np.testing.assert_array_equal(function.compute_query_embeddings_with_retry(QUESTION)[0], gte_mini.embed(QUESTION))


def test_queries_and_sources_get_the_models_prompts(prompted: Path) -> None:
    function, model = made(name=str(prompted)), Embedder(prompted)
    as_query, as_document = model.embed_query("red"), model.embed_documents("red")
    assert not np.allclose(as_query, as_document)
    np.testing.assert_array_equal(function.compute_query_embeddings("red")[0], as_query)
    np.testing.assert_array_equal(function.compute_source_embeddings("red")[0], as_document)


def test_a_stored_table_embeds_what_is_added_and_asked(tmp_path: Path, gte_mini: Embedder) -> None:
    notes_table(lancedb.connect(tmp_path), "notes", made(threads=1), NOTES[:2])
    table = lancedb.connect(tmp_path).open_table("notes")
    table.add([{"text": note} for note in NOTES[2:]])
    (found,) = table.search(QUESTION).limit(1).to_list()
    assert found["text"] == ANSWER
    rows = {row["text"]: row["vector"] for row in table.to_arrow().to_pylist()}
    np.testing.assert_array_equal(np.array([rows[note] for note in NOTES], dtype=np.float32), gte_mini.embed(NOTES))

    async def ask() -> list[dict[str, Any]]:
        database = await lancedb.connect_async(tmp_path)
        opened = await database.open_table("notes")
        rows: list[dict[str, Any]] = await (await opened.search(QUESTION)).limit(1).to_list()
        return rows

    assert asyncio.run(ask())[0]["text"] == ANSWER


def test_a_null_text_has_a_null_vector(tmp_path: Path) -> None:
    function = made()
    assert function.compute_source_embeddings(pyarrow.array([None, "a"]))[0] is None
    texts = [NOTES[1], None, NOTES[0]]
    table = notes_table(lancedb.connect(tmp_path), "nulls", function, texts, on_bad_vectors="null")
    vectors = table.to_arrow()["vector"]
    assert [vector.is_valid for vector in vectors] == [True, False, True]


def test_a_table_stores_parameters_and_fingerprint(tmp_path: Path, prompted: Path) -> None:
    function = made(name=str(prompted), max_tokens=4, truncation="ignore")
    table = notes_table(lancedb.connect(tmp_path), "notes", function, ["red"])
    (stored,) = json.loads(table.schema.metadata[b"embedding_functions"])
    fingerprint = Embedder(prompted).fingerprint
    assert stored["name"] == "gte-sdk"
    assert stored["model"] == {
        "name": str(prompted), "max_tokens": 4, "truncation": "ignore", "fingerprint": fingerprint,
    }  # fmt: skip
    restored = get_registry().parse_functions(table.schema.metadata)["vector"].function
    assert restored.embedder.max_tokens == 4
    np.testing.assert_array_equal(
        restored.compute_query_embeddings("red green"), function.compute_query_embeddings("red green")
    )


def test_a_path_is_stored_for_every_folder_and_a_default_by_its_name(prompted: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(prompted.parent)
    assert made(name=prompted.name).safe_model_dump()["name"] == str(prompted)
    assert made().safe_model_dump()["name"] == "gte-mini"


def test_another_model_is_refused(prompted: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path, table=TABLE + 1)
    changed = made(name=str(other), fingerprint=Embedder(prompted).fingerprint)
    with pytest.raises(ModelMismatchError, match="the stored vectors were made by a model with fingerprint"):
        changed.compute_query_embeddings_with_retry("red")


def test_bad_input_is_named_at_once() -> None:
    with pytest.raises(ValidationError, match="devise"):
        made(devise="cpu")
    with pytest.raises(ModelFormatError, match="no-such-model"):
        made(name="no-such-model").ndims()
    with pytest.raises(InputTypeError, match="text 1 is a int"):
        made().compute_source_embeddings_with_retry(["a", 1])
    with pytest.raises(InputTypeError, match="text 0 is a NoneType"):
        made().compute_query_embeddings_with_retry([None])
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        made().compute_source_embeddings_with_retry([LONG])
    with pytest.raises(InputError, match="more than max_tokens=8 tokens"):
        made(max_tokens=8, truncation="error").compute_source_embeddings_with_retry([LONG])
