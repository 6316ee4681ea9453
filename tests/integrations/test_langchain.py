"""LangChain's own vector store, executor and pickling around `GteEmbeddings`."""

import asyncio
import pickle
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError, TruncationWarning
from gte_sdk.integrations.langchain import GteEmbeddings

from .notes import ANSWER, LONG, NOTES, QUESTION


@pytest.fixture(scope="module")
def embeddings() -> GteEmbeddings:
    return GteEmbeddings()


def test_vectors_are_gte_sdks(embeddings: GteEmbeddings, gte_mini: Embedder) -> None:
    assert isinstance(embeddings, Embeddings)
    vectors = embeddings.embed_documents(NOTES)
    assert type(vectors) is list
    assert type(vectors[0][0]) is float
    np.testing.assert_array_equal(np.array(vectors, dtype=np.float32), gte_mini.embed(NOTES))
    np.testing.assert_array_equal(
        np.array(embeddings.embed_query(QUESTION), dtype=np.float32), gte_mini.embed(QUESTION)
    )
    assert embeddings.embed_documents([]) == []


def test_async_vectors_are_the_same(embeddings: GteEmbeddings) -> None:
    async def together() -> tuple[list[list[float]], list[float], list[float]]:
        return await asyncio.gather(
            embeddings.aembed_documents(NOTES), embeddings.aembed_query(QUESTION), embeddings.aembed_query(ANSWER)
        )

    documents, question, answer = asyncio.run(together())
    assert documents == embeddings.embed_documents(NOTES)
    assert question == embeddings.embed_query(QUESTION)
    assert answer == embeddings.embed_query(ANSWER)


def test_one_str_is_no_list_of_documents(embeddings: GteEmbeddings) -> None:
    with pytest.raises(InputTypeError, match="texts is a str, 'document'; give a list of str"):
        embeddings.embed_documents("document")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="texts is a str, 'document'; give a list of str"):
        asyncio.run(embeddings.aembed_documents("document"))  # type: ignore[arg-type]


def test_queries_and_documents_get_the_models_prompts(prompted: Path) -> None:
    embeddings, model = GteEmbeddings(prompted), Embedder(prompted)
    as_query, as_document = model.embed_query("red"), model.embed_documents(["red"])
    assert not np.allclose(as_query, as_document[0])
    np.testing.assert_array_equal(np.array(embeddings.embed_query("red"), dtype=np.float32), as_query)
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(["red"]), dtype=np.float32), as_document)
    np.testing.assert_array_equal(np.array(asyncio.run(embeddings.aembed_query("red")), dtype=np.float32), as_query)
    np.testing.assert_array_equal(
        np.array(asyncio.run(embeddings.aembed_documents(["red"])), dtype=np.float32), as_document
    )


def test_search_in_langchains_store(embeddings: GteEmbeddings) -> None:
    store = InMemoryVectorStore(embeddings)
    store.add_texts(NOTES)
    ((document, score),) = store.similarity_search_with_score(QUESTION, k=1)
    assert document.page_content == ANSWER
    assert score == pytest.approx(np.dot(embeddings.embed_query(QUESTION), embeddings.embed_query(ANSWER)), abs=1e-6)
    (document,) = asyncio.run(store.as_retriever(search_kwargs={"k": 1}).ainvoke(QUESTION))
    assert document.page_content == ANSWER


def test_it_says_which_model_it_is(embeddings: GteEmbeddings, gte_mini: Embedder) -> None:
    assert (embeddings.model, embeddings.dim, embeddings.max_tokens) == ("gte-mini", 384, gte_mini.max_tokens)
    assert embeddings.embedder.fingerprint == gte_mini.fingerprint
    assert repr(embeddings) == f"GteEmbeddings(model='gte-mini', dim=384, max_tokens={gte_mini.max_tokens})"


def test_parameters_reach_the_model(prompted: Path) -> None:
    embeddings = GteEmbeddings(prompted, device="cpu", threads=1, variant="fp32", max_tokens=4, truncation="error")
    assert embeddings.max_tokens == 4
    with pytest.raises(InputError, match="more than max_tokens=4 tokens"):
        embeddings.embed_documents(["red green blue"])
    with pytest.raises(InputError, match="it was not trained to be cut"):
        GteEmbeddings(prompted, dim=3)
    with pytest.raises(TypeError, match="devise"):
        GteEmbeddings(devise="cpu")  # type: ignore[call-arg]


def test_pickle_keeps_the_parameters(prompted: Path) -> None:
    embeddings = GteEmbeddings(prompted, threads=1, max_tokens=4, truncation="ignore")
    pickled = pickle.dumps(embeddings)
    assert len(pickled) < 1000
    restored = pickle.loads(pickled)
    assert restored.max_tokens == 4
    assert restored.embed_query("red green blue") == embeddings.embed_query("red green blue")
    assert restored.embedder is embeddings.embedder


def test_equal_settings_share_one_open_model(embeddings: GteEmbeddings) -> None:
    assert GteEmbeddings().embedder is embeddings.embedder
    assert GteEmbeddings(threads=1).embedder is not embeddings.embedder


def test_bad_input_is_named(embeddings: GteEmbeddings) -> None:
    with pytest.raises(InputTypeError, match="text 1 is a NoneType"):
        embeddings.embed_documents(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="text 0 is a list"):
        embeddings.embed_query(["a"])  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="text 1 is a NoneType"):
        asyncio.run(embeddings.aembed_documents(["a", None]))  # type: ignore[list-item]
    with pytest.raises(ModelFormatError, match="no-such-model"):
        GteEmbeddings("no-such-model")
    with pytest.warns(TruncationWarning, match="tokens were left out"):
        embeddings.embed_documents([LONG])
