"""Programs that speak OpenAI's interface: the official client and LangChain, unchanged, against a live server."""

import base64
import importlib.util
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from gte_sdk import Embedder, top_k_cosine

TEXTS = ["How do I undo my last commit?", "git reset --soft HEAD~1", "Brot, Käse und 水", "a\x00b"]


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_the_openai_client_gets_the_vectors_of_gte_sdk(client: openai.OpenAI, embedder: Embedder) -> None:
    answer = client.embeddings.create(model="gte-mini", input=TEXTS)  # the client asks for base64 on its own
    vectors = np.array([item.embedding for item in answer.data], dtype=np.float32)
    np.testing.assert_array_equal(vectors, embedder.embed(TEXTS))
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    tokens = sum(len(row) for row in embedder.tokenize(TEXTS).ids)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (tokens, tokens, "gte-mini")


def test_decimal_numbers_read_back_as_the_same_float32(client: openai.OpenAI, embedder: Embedder) -> None:
    answer = client.embeddings.create(model="gte-mini", input=TEXTS, encoding_format="float")
    vectors = np.array([item.embedding for item in answer.data]).astype(np.float32)
    np.testing.assert_array_equal(vectors, embedder.embed(TEXTS))


def test_base64_is_little_endian_float32(url: str, embedder: Embedder) -> None:
    body = {"model": "gte-mini", "input": TEXTS[0], "encoding_format": "base64"}
    (item,) = httpx.post(f"{url}/v1/embeddings", json=body).json()["data"]
    vector = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(vector, embedder.embed(TEXTS[0]))


def test_dimensions_are_those_of_the_model_or_refused(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input="red", dimensions=384)
    assert len(answer.data[0].embedding) == 384
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions=100: gte-mini was trained for 384") as at:
        client.embeddings.create(model="gte-mini", input="red", dimensions=100)
    assert (at.value.status_code, at.value.param, at.value.code) == (422, "dimensions", "invalid_value")


@pytest.mark.parametrize("special", [False, True])
def test_token_ids_with_or_without_special_tokens(client: openai.OpenAI, embedder: Embedder, special: bool) -> None:
    rows = [row if special else row[1:-1] for row in embedder.tokenize(TEXTS).ids]
    answer = client.embeddings.create(model="gte-mini", input=rows)
    vectors = np.array([item.embedding for item in answer.data], dtype=np.float32)
    np.testing.assert_array_equal(vectors, embedder.embed(TEXTS))
    one = client.embeddings.create(model="gte-mini", input=rows[1])
    np.testing.assert_array_equal(np.array(one.data[0].embedding, np.float32), embedder.embed(TEXTS[1]))


def test_models(client: openai.OpenAI, embedder: Embedder) -> None:
    assert [model.id for model in client.models.list()] == ["gte-mini", "text-embedding-3-small"]
    model = client.models.retrieve("gte-mini")
    assert model.model_dump()["fingerprint"] == embedder.fingerprint
    with pytest.raises(openai.NotFoundError, match=r"not served here.* gte serve --alias NAME gives it another name"):
        client.models.retrieve("gte-huge")
    with pytest.raises(openai.NotFoundError, match="this server has gte-mini, text-embedding-3-small") as at:
        client.embeddings.create(model="gte-huge", input="red")
    assert at.value.code == "model_not_found"


def test_many_texts_of_all_lengths_come_back_in_order(client: openai.OpenAI, embedder: Embedder) -> None:
    words = ["red", "green", "blue", "fast", "slow", "query", "document"]
    texts = [" ".join(words[(i * j) % 7] for j in range(1 + i % 60)) for i in range(300)]
    answer = client.embeddings.create(model="gte-mini", input=texts)
    vectors = np.array([item.embedding for item in answer.data], dtype=np.float32)
    np.testing.assert_array_equal(vectors, embedder.embed(texts))


def test_rerank_is_the_cosine_of_query_and_documents(url: str, embedder: Embedder) -> None:
    documents = [TEXTS[1], {"text": TEXTS[2]}, "Undo a commit"]
    body = {"model": "gte-mini", "query": TEXTS[0], "documents": documents, "top_n": 2, "return_documents": True}
    answer = httpx.post(f"{url}/rerank", json=body).json()
    texts = [TEXTS[1], TEXTS[2], "Undo a commit"]
    scores, indices = top_k_cosine(embedder.embed_query(TEXTS[0]), embedder.embed_documents(texts), 2)
    assert [result["index"] for result in answer["results"]] == indices[0].tolist()
    assert [np.float32(result["relevance_score"]) for result in answer["results"]] == scores[0].tolist()
    assert [result["document"]["text"] for result in answer["results"]] == [texts[i] for i in indices[0]]
    del body["top_n"], body["return_documents"]
    answer = httpx.post(f"{url}/v1/rerank", json=body).json()
    assert len(answer["results"]) == 3
    assert "document" not in answer["results"][0]
    assert answer["usage"]["total_tokens"] == sum(len(row) for row in embedder.tokenize([TEXTS[0], *texts]).ids)


@pytest.mark.skipif(importlib.util.find_spec("langchain_openai") is None, reason="langchain-openai is not installed")
def test_langchain_works_unchanged(url: str, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_hosts(monkeypatch)
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    # LangChain would otherwise send OpenAI's own token ids instead of the texts.
    langchain = OpenAIEmbeddings(
        model="gte-mini", base_url=f"{url}/v1", api_key=SecretStr("none"), check_embedding_ctx_length=False
    )
    np.testing.assert_array_equal(np.array(langchain.embed_documents(TEXTS), np.float32), embedder.embed(TEXTS))
    np.testing.assert_array_equal(np.array(langchain.embed_query(TEXTS[0]), np.float32), embedder.embed(TEXTS[0]))


def refuse_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def only_this_machine(host: str | None, *arguments: object, **options: object) -> object:
        assert host in ("127.0.0.1", b"127.0.0.1"), host
        return resolve(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", only_this_machine)
