"""Chroma's own collections, in memory and stored, around `GteEmbeddingFunction`."""

import json
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from chromadb.utils.embedding_functions import known_embedding_functions

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError, ModelMismatchError, TruncationWarning
from gte_sdk.integrations.chroma import GteEmbeddingFunction

from ..sdk.tiny_models import TABLE, write_tiny_model
from .notes import ANSWER, LONG, NOTES, QUESTION

QUIET = Settings(anonymized_telemetry=False)


@pytest.fixture(scope="module")
def function() -> GteEmbeddingFunction:
    return GteEmbeddingFunction()


def test_vectors_are_gte_sdks(function: GteEmbeddingFunction, gte_mini: Embedder) -> None:
    vectors = function(NOTES)
    assert all(vector.dtype == np.float32 for vector in vectors)
    np.testing.assert_array_equal(np.stack(vectors), gte_mini.embed(NOTES))
    np.testing.assert_array_equal(np.stack(function.embed_query([QUESTION])), gte_mini.embed([QUESTION]))
    assert function.max_tokens() == gte_mini.max_tokens
    assert not function.is_legacy()


def test_a_collection_uses_the_models_prompts(prompted: Path) -> None:
    client = chromadb.EphemeralClient(QUIET)
    collection = client.create_collection("prompts", embedding_function=GteEmbeddingFunction(prompted))
    collection.add(ids=["red", "blue"], documents=["red", "blue"])
    model = Embedder(prompted)
    stored = collection.get(ids=["red", "blue"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(stored, model.embed_documents(["red", "blue"]), atol=1e-6)
    found = collection.query(query_texts=["red"], n_results=2)
    by_id = dict(zip(found["ids"][0], found["distances"][0], strict=True))
    assert by_id["blue"] == pytest.approx(1 - model.embed_query("red") @ model.embed_documents("blue"), abs=1e-5)


def test_a_stored_collection_finds_its_function_again(tmp_path: Path, function: GteEmbeddingFunction) -> None:
    client = chromadb.PersistentClient(tmp_path, QUIET)
    client.create_collection("notes", embedding_function=function).add(ids=list("abcd"), documents=NOTES)
    collection = client.get_collection("notes")
    found = collection.query(query_texts=[QUESTION], n_results=1)
    assert found["documents"] == [[ANSWER]]
    assert collection.configuration["hnsw"]["space"] == "cosine"
    stored = collection.configuration["embedding_function"]
    assert stored.get_config() == function.get_config()
    assert stored.embedder is function.embedder


def test_the_configuration_is_json_and_makes_the_same_function(prompted: Path) -> None:
    function = GteEmbeddingFunction(prompted, threads=1, max_tokens=4, truncation="ignore")
    config = json.loads(json.dumps(function.get_config()))
    assert config["model_name"] == str(prompted)
    assert config["fingerprint"] == Embedder(prompted).fingerprint
    restored = known_embedding_functions["gte-sdk"].build_from_config(config)
    assert restored.get_config() == config
    assert restored.max_tokens() == 4
    np.testing.assert_array_equal(restored(["red green blue"]), function(["red green blue"]))
    short = GteEmbeddingFunction.build_from_config({key: config[key] for key in ("model_name", "fingerprint")})
    assert short.get_config()["threads"] is None
    with pytest.raises(InputError, match=r"unknown \['devise'\]"):
        GteEmbeddingFunction.build_from_config({**config, "devise": "cpu"})
    with pytest.raises(InputError, match=r"\['fingerprint'\] is missing"):
        GteEmbeddingFunction.build_from_config({"model_name": "gte-mini"})


def test_another_model_is_refused(prompted: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path, table=TABLE + 1)
    config = GteEmbeddingFunction(prompted).get_config()
    changed = GteEmbeddingFunction.build_from_config({**config, "model_name": str(other)})
    with pytest.raises(ModelMismatchError, match="the stored vectors were made by a model with fingerprint"):
        changed(["red"])
    client = chromadb.EphemeralClient(QUIET)
    collection = client.create_collection("changing", embedding_function=GteEmbeddingFunction(prompted))
    with pytest.raises(ModelMismatchError, match="make a new collection"):
        collection.modify(configuration={"embedding_function": GteEmbeddingFunction(other)})
    collection.modify(configuration={"embedding_function": GteEmbeddingFunction(prompted, threads=1)})
    assert client.get_collection("changing").configuration["embedding_function"].get_config()["threads"] == 1


def test_bad_input_is_named(function: GteEmbeddingFunction) -> None:
    with pytest.raises(ModelFormatError, match="no-such-model"):
        GteEmbeddingFunction("no-such-model")
    with pytest.raises(InputTypeError, match="text 1 is a NoneType"):
        function(["a", None])
    with pytest.raises(InputTypeError, match="text 0 is a int"):
        function.embed_query([1])
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        function([LONG])
    with pytest.raises(InputError, match="more than max_tokens=8 tokens"):
        GteEmbeddingFunction(max_tokens=8, truncation="error")([LONG])
