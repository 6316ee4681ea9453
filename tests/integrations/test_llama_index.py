"""LlamaIndex's own index, ingestion and serialisation around `GteEmbedding`."""

import asyncio
import pickle
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError, TruncationWarning
from gte_sdk.integrations.llama_index import GteEmbedding

from .notes import ANSWER, LONG, NOTES, QUESTION


@pytest.fixture(scope="module")
def embedding() -> GteEmbedding:
    return GteEmbedding()


def test_vectors_are_gte_sdks(embedding: GteEmbedding, gte_mini: Embedder) -> None:
    assert isinstance(embedding, BaseEmbedding)
    expected = gte_mini.embed(NOTES)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding_batch(NOTES)), expected)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding(NOTES[1])), expected[1])
    np.testing.assert_array_equal(np.float32(embedding.get_query_embedding(QUESTION)), gte_mini.embed(QUESTION))
    assert type(embedding.get_query_embedding(QUESTION)[0]) is float


def test_async_vectors_are_the_same(embedding: GteEmbedding) -> None:
    texts = [f"{note} {number}" for number in range(9) for note in NOTES]
    small_batches = GteEmbedding(embed_batch_size=5, num_workers=3)
    assert asyncio.run(small_batches.aget_text_embedding_batch(texts)) == embedding.get_text_embedding_batch(texts)
    assert asyncio.run(embedding.aget_text_embedding(ANSWER)) == embedding.get_text_embedding(ANSWER)
    assert asyncio.run(embedding.aget_query_embedding(QUESTION)) == embedding.get_query_embedding(QUESTION)


def test_queries_and_texts_get_the_models_prompts(prompted: Path) -> None:
    embedding, model = GteEmbedding(model_name=str(prompted)), Embedder(prompted)
    as_query, as_document = model.embed_query("red"), model.embed_documents("red")
    assert not np.allclose(as_query, as_document)
    np.testing.assert_array_equal(np.float32(embedding.get_query_embedding("red")), as_query)
    np.testing.assert_array_equal(np.float32(asyncio.run(embedding.aget_query_embedding("red"))), as_query)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding("red")), as_document)
    np.testing.assert_array_equal(np.float32(asyncio.run(embedding.aget_text_embedding("red"))), as_document)


def test_search_in_llama_indexs_index(embedding: GteEmbedding) -> None:
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text=note) for note in NOTES])
    index = VectorStoreIndex(nodes, embed_model=embedding)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(QUESTION)
    assert found.text == ANSWER
    expected = np.dot(embedding.get_query_embedding(QUESTION), embedding.get_text_embedding(ANSWER))
    assert found.score == pytest.approx(expected, abs=1e-6)
    (found,) = asyncio.run(index.as_retriever(similarity_top_k=1).aretrieve(QUESTION))
    assert found.text == ANSWER


def test_serialized_fields_make_the_same_embedding(prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = GteEmbedding(model_name=str(prompted), threads=1, max_tokens=4, truncation="ignore", embed_batch_size=7)
    assert (embedding.dim, embedding.max_tokens) == (5, 4)
    expected = embedding.get_text_embedding("red green blue")
    for restored in (
        GteEmbedding.from_dict(embedding.to_dict()),
        GteEmbedding.from_json(embedding.to_json()),
        pickle.loads(pickle.dumps(embedding)),
    ):
        assert restored.to_dict() == embedding.to_dict()
        assert restored.embed_batch_size == 7
        assert restored.get_text_embedding("red green blue") == expected
        assert restored.embedder.max_tokens == 4
    monkeypatch.chdir(prompted.parent)
    assert GteEmbedding(model_name=prompted.name).to_dict()["model_name"] == str(prompted)


def test_it_says_which_model_it_is(embedding: GteEmbedding, gte_mini: Embedder) -> None:
    assert (embedding.model_name, embedding.dim, embedding.max_tokens) == ("gte-mini", 384, gte_mini.max_tokens)
    assert embedding.class_name() == "GteEmbedding"
    assert embedding.embedder.fingerprint == gte_mini.fingerprint


def test_bad_input_is_named(embedding: GteEmbedding, prompted: Path) -> None:
    with pytest.raises(ValidationError, match="devise"):
        GteEmbedding(devise="cpu")
    with pytest.raises(ModelFormatError, match="no-such-model"):
        GteEmbedding(model_name="no-such-model")
    with pytest.raises(ValidationError, match="it was not trained to be cut"):
        GteEmbedding(model_name=str(prompted), dim=3)
    with pytest.raises(InputTypeError, match="text 1 is a NoneType"):
        embedding.get_text_embedding_batch(["a", None])
    with pytest.raises(InputTypeError, match="text 0 is a NoneType"):
        asyncio.run(embedding.aget_query_embedding(None))
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        embedding.get_text_embedding(LONG)
    with pytest.raises(InputError, match="more than max_tokens=8 tokens"):
        GteEmbedding(max_tokens=8, truncation="error").get_text_embedding(LONG)
