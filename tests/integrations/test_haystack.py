"""Haystack's own store, pipelines and serialisation around the text and the document embedder."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError, TruncationWarning
from gte_sdk.integrations.haystack import GteDocumentEmbedder, GteTextEmbedder

from .notes import ANSWER, LONG, NOTES, QUESTION


def vectors_of(result: dict[str, Any]) -> Any:
    return np.array([document.embedding for document in result["documents"]], dtype=np.float32)


def test_vectors_are_gte_sdks(gte_mini: Embedder) -> None:
    documents = [Document(content=note) for note in NOTES]
    result = GteDocumentEmbedder().run(documents)
    np.testing.assert_array_equal(vectors_of(result), gte_mini.embed(NOTES))
    assert [document.id for document in result["documents"]] == [document.id for document in documents]
    assert documents[0].embedding is None
    answer = GteTextEmbedder().run(QUESTION)
    np.testing.assert_array_equal(np.array(answer["embedding"], dtype=np.float32), gte_mini.embed(QUESTION))
    assert answer["meta"] == result["meta"]
    assert answer["meta"] == {
        "model": "gte-mini",
        "dim": 384,
        "max_tokens": gte_mini.max_tokens,
        "fingerprint": gte_mini.fingerprint,
    }
    assert GteDocumentEmbedder().run([])["documents"] == []


def test_async_vectors_are_the_same() -> None:
    documents = [Document(content=note) for note in NOTES]
    embedder = GteDocumentEmbedder()
    assert asyncio.run(embedder.run_async(documents)) == embedder.run(documents)
    assert asyncio.run(GteTextEmbedder().run_async(QUESTION)) == GteTextEmbedder().run(QUESTION)


def test_queries_and_documents_get_the_models_prompts(prompted: Path) -> None:
    model = Embedder(prompted)
    as_query, as_document = model.embed_query("red"), model.embed_documents(["red"])
    assert not np.allclose(as_query, as_document[0])
    text, documents = GteTextEmbedder(prompted), GteDocumentEmbedder(prompted)
    for answer in (text.run("red"), asyncio.run(text.run_async("red"))):
        np.testing.assert_array_equal(np.array(answer["embedding"], dtype=np.float32), as_query)
    red = [Document(content="red")]
    for result in (documents.run(red), asyncio.run(documents.run_async(red))):
        np.testing.assert_array_equal(vectors_of(result), as_document)


def test_fields_of_the_meta_are_embedded_before_the_content(gte_mini: Embedder) -> None:
    embedder = GteDocumentEmbedder(meta_fields_to_embed=["title", "year"], embedding_separator=" | ")
    documents = [
        Document(content="content", meta={"title": "Title", "year": 2023, "secret": "no"}),
        Document(content=None, meta={"title": "Only a title", "year": None}),
    ]
    expected = gte_mini.embed(["Title | 2023 | content", "Only a title"])
    np.testing.assert_array_equal(vectors_of(embedder.run(documents)), expected)


def test_stored_pipelines_search_in_haystacks_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "gte_sdk.*")
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("embedder", GteDocumentEmbedder(threads=1))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    indexing.run({"embedder": {"documents": [Document(content=note) for note in NOTES]}})

    asking = Pipeline()
    asking.add_component("embedder", GteTextEmbedder(threads=1))
    asking = Pipeline.loads(asking.dumps())
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    asking.connect("embedder.embedding", "retriever.query_embedding")
    (found,) = asking.run({"embedder": {"text": QUESTION}})["retriever"]["documents"]
    assert found.content == ANSWER


@pytest.mark.parametrize("kind", [GteTextEmbedder, GteDocumentEmbedder])
def test_dictionaries_keep_the_parameters(prompted: Path, kind: Any) -> None:
    embedder = kind(prompted, threads=1, max_tokens=4, truncation="ignore", device="cpu", variant="fp32")
    parameters = embedder.to_dict()["init_parameters"]
    assert parameters["model"] == str(prompted)
    assert (parameters["threads"], parameters["max_tokens"], parameters["dim"]) == (1, 4, None)
    restored = kind.from_dict(embedder.to_dict())
    assert restored.to_dict() == embedder.to_dict()
    restored.warm_up()
    assert restored.embedder.max_tokens == 4
    assert restored.embedder is embedder.embedder


def test_bad_input_is_named() -> None:
    with pytest.raises(InputTypeError, match="text is a list; give a str, and Documents to GteDocumentEmbedder"):
        GteTextEmbedder().run(["a"])
    with pytest.raises(InputTypeError, match="documents is a str; give a list of Document"):
        GteDocumentEmbedder().run("a")
    with pytest.raises(InputTypeError, match=r"document 1 is a str; give a haystack\.Document"):
        GteDocumentEmbedder().run([Document(content="a"), "b"])
    with pytest.raises(InputError, match=r"document 1 .* has no content"):
        GteDocumentEmbedder().run([Document(content="a"), Document(content=None)])
    with pytest.raises(InputTypeError, match="meta_fields_to_embed='title' is a str"):
        GteDocumentEmbedder(meta_fields_to_embed="title")
    with pytest.raises(ModelFormatError, match="no-such-model"):
        GteTextEmbedder("no-such-model").warm_up()
    with pytest.raises(TypeError, match="devise"):
        GteTextEmbedder(devise="cpu")  # type: ignore[call-arg]
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        GteTextEmbedder().run(LONG)
    with pytest.raises(InputError, match="more than max_tokens=8 tokens"):
        GteDocumentEmbedder(max_tokens=8, truncation="error").run([Document(content=LONG)])
