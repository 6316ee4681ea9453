"""fastembed's TextEmbedding: the vectors that it yields, and reasons for what cannot be had."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError
from gte_sdk.integrations.fastembed import TextEmbedding

from ..tiny_models import DIM, write_tiny_model

TEXTS = ["red green", "blue", "", "fast slow red"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    prompts = {"query": "fast ", "document": "slow "}
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), prompts=prompts))


def test_vectors_come_one_by_one(directory: str) -> None:
    model, embedder = TextEmbedding(directory), Embedder(directory)
    np.testing.assert_array_equal(list(model.embed(TEXTS, batch_size=2, parallel=0)), embedder.embed(TEXTS))
    np.testing.assert_array_equal(list(model.embed("red")), [embedder.embed("red")])
    np.testing.assert_array_equal(list(model.query_embed(TEXTS)), embedder.embed_query(TEXTS))
    np.testing.assert_array_equal(list(model.passage_embed(iter(TEXTS))), embedder.embed_documents(TEXTS))
    assert model.embedding_size == TextEmbedding.get_embedding_size(directory) == DIM
    assert model.token_count(TEXTS) == sum(map(len, embedder.tokenize(TEXTS).ids))
    assert model.token_count("red") == len(embedder.tokenize(["red"]).ids[0])


def test_settings(directory: str) -> None:
    named = TextEmbedding("any name", specific_model_path=directory, threads=1, cuda=False, local_files_only=True)
    assert named.model_name == "any name"
    assert named.embedder.report().threads == 1
    provided = TextEmbedding(directory, providers=[("CPUExecutionProvider", {})])
    np.testing.assert_array_equal(list(provided.embed("red")), list(named.embed("red")))
    travelled = pickle.loads(pickle.dumps(named))
    np.testing.assert_array_equal(list(travelled.embed("red")), list(named.embed("red")))
    names = [model["model"] for model in TextEmbedding.list_supported_models()]
    assert {"gte-mini", "BAAI/bge-small-en-v1.5"} <= set(names)


def test_a_lazy_model_is_opened_at_its_first_use(tmp_path: Path) -> None:
    model = TextEmbedding(str(tmp_path / "later"), lazy_load=True)
    write_tiny_model(tmp_path / "later")
    assert model.embedding_size == DIM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_dir": "/models"}, "cache_dir='/models': .* set HF_HOME"),
        ({"device_ids": [0, 1]}, r"device_ids=\[0, 1\]: one Embedder runs on one device"),
        ({"cuda": "mps"}, "cuda='mps'; one of"),
        ({"providers": ["TensorrtExecutionProvider"]}, "providers=.*Tensorrt.*; one of"),
        ({"providers": []}, r"providers=\[\]; one of"),
    ],
)
def test_what_cannot_be_had(directory: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextEmbedding(directory, **arguments)


def test_arguments_are_checked_at_the_call(directory: str) -> None:
    model = TextEmbedding(directory)
    with pytest.raises(InputError, match="parallel=4: one Embedder uses all cores"):
        model.embed(TEXTS, parallel=4)
    with pytest.raises(InputError, match="batch_size=0"):
        model.passage_embed(TEXTS, batch_size=0)
