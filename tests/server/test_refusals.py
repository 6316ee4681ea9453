"""Every malformed request, and who may ask: the status, the code and the field, in the shape of OpenAI's errors."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import Embedder, InputError
from gte_sdk.server import Settings

from .servers import answer_of, metric, raw_connection, refused, served

KEY = "sesame-open"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": []}, "empty", "input"),
        ({"input": ""}, "empty", "input"),
        ({"input": ["red", ""]}, "empty", "input[1]"),
        ({"input": [[]]}, "empty", "input[0]"),
        ({"input": None}, "invalid_value", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": {"text": "red"}}, "invalid_value", "input"),
        ({"input": ["red", 5]}, "invalid_value", "input[1]"),
        ({"input": [5, "red"]}, "invalid_value", "input"),
        ({"input": [[5], "red"]}, "invalid_value", "input[1]"),
        ({"input": ["red", [5]]}, "invalid_value", "input[1]"),
        ({"input": [True]}, "invalid_value", "input"),
        ({"input": [5.5]}, "invalid_value", "input"),
        ({"input": [30522]}, "unknown_token", "input"),
        ({"input": [[-1]]}, "unknown_token", "input"),
        ({"input": ["red"] * 2049}, "too_many_inputs", "input"),
        ({"dimensions": 383}, "invalid_value", "dimensions"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"dimensions": "384"}, "invalid_value", "dimensions"),
        ({"dimensions": True}, "invalid_value", "dimensions"),
        ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"encoding_format": ["float"]}, "invalid_value", "encoding_format"),
        ({"input_type": "passage"}, "invalid_value", "input_type"),
        ({"user": 5}, "invalid_value", "user"),
        ({"model": 5}, "invalid_value", "model"),
        ({"inputs": "red"}, "unknown_field", "inputs"),
        ({"inputs": ""}, "unknown_field", "inputs"),
        ({"\ud800": 5}, "unknown_field", "\ud800"),
    ],
)
def test_wrong_content_is_422_and_names_the_field(url: str, change: dict[str, Any], code: str, param: str) -> None:
    body = json.dumps({"model": "gte-mini", "input": "red", **change})  # a lone surrogate goes as an escape
    headers = {"content-type": "application/json"}
    assert refused(httpx.post(f"{url}/v1/embeddings", content=body, headers=headers)) == (422, code, param)


# What clients send for an option that nobody set: languages without optional values know "" and null only.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "") for name in ("encoding_format", "input_type", "user")),
        *((name, None) for name in ("encoding_format", "input_type", "user", "dimensions", "timeout", "extra_body")),
    ],
)
def test_an_option_that_is_not_set_is_as_if_it_were_left_out(url: str, name: str, value: str | None) -> None:
    body = {"model": "gte-mini", "input": "red"}
    answer = httpx.post(f"{url}/v1/embeddings", json={**body, name: value})
    assert answer.json() == httpx.post(f"{url}/v1/embeddings", json=body).json()


@pytest.mark.parametrize("change", [{"top_n": None}, {"return_documents": None}, {"rank_fields": None}, {"user": None}])
def test_null_is_as_if_it_were_left_out_of_a_ranking(url: str, change: dict[str, Any]) -> None:
    body = {"model": "gte-mini", "query": "red", "documents": ["green", {"text": "blue", "id": None}]}
    answer = httpx.post(f"{url}/rerank", json={**body, **change})
    assert answer.json() == httpx.post(f"{url}/rerank", json=body).json()
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"documents": []}, "empty", "documents"),
        ({"documents": "red"}, "invalid_value", "documents"),
        ({"documents": [{"txt": "red"}]}, "unknown_field", "documents[0].txt"),
        ({"documents": [{"text": None}]}, "invalid_value", "documents[0]"),
        ({"documents": [{}]}, "invalid_value", "documents[0]"),
        ({"documents": ["red", None]}, "invalid_value", "documents[1]"),
        ({"documents": ["red"] * 2049}, "too_many_inputs", "documents"),
        ({"query": ""}, "empty", "query"),
        ({"query": ["red"]}, "invalid_value", "query"),
        ({"top_n": 0}, "invalid_value", "top_n"),
        ({"top_n": 1.5}, "invalid_value", "top_n"),
        ({"return_documents": 1}, "invalid_value", "return_documents"),
        ({"texts": ["red"]}, "unknown_field", "texts"),
    ],
)
def test_wrong_rankings_are_422_too(url: str, change: dict[str, Any], code: str, param: str) -> None:
    body = {"model": "gte-mini", "query": "red", "documents": ["green"], **change}
    assert refused(httpx.post(f"{url}/rerank", json=body)) == (422, code, param)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": "red"} and more', 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": "red", "dimensions": NaN}', 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": [-Infinity]}', 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": "\xff"}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"1" * 5000, 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": "red", "input": "green"}', 400, "invalid_json"),
        (b'{"model": "gte-mini", "input": "red", "\\u0069nput": "green"}', 400, "invalid_json"),
        ('{"model": "gte-mini", "input": "red"}'.encode("utf-16"), 400, "invalid_json"),
        ('{"model": "gte-mini", "input": "red"}'.encode("utf-32-le"), 400, "invalid_json"),
        (b'["red"]', 422, "invalid_value"),
        (b'{"model": "gte-mini", "input": [1e999]}', 422, "invalid_value"),
        (b'{"model": "gte-mini"}', 422, "missing"),
        (b'{"input": "red"}', 422, "missing"),
    ],
)
def test_bodies_that_are_no_request(url: str, body: bytes, status: int, code: str) -> None:
    answer = httpx.post(f"{url}/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert refused(answer)[:2] == (status, code)


def test_lone_surrogates_are_read_as_the_replacement_character(url: str, embedder: Embedder) -> None:
    body = b'{"model": "gte-mini", "query": "\\ud800", "documents": ["\\udfff x"], "return_documents": true}'
    answer = httpx.post(f"{url}/rerank", content=body, headers={"content-type": "application/json"})
    assert answer.json()["results"][0]["document"]["text"] == "\udfff x"
    body = b'{"model": "gte-mini", "input": "\\udfff x"}'
    answer = httpx.post(f"{url}/v1/embeddings", content=body, headers={"content-type": "application/json"})
    np.testing.assert_array_equal(
        np.array(answer.json()["data"][0]["embedding"], np.float32), embedder.embed("\ufffd x")
    )


def test_other_content_types_paths_and_methods(url: str) -> None:
    answer = httpx.post(f"{url}/v1/embeddings", content=b"{}", headers={"content-type": "text/plain"})
    assert refused(answer) == (415, "unsupported_content_type", None)
    for encoding in ("gzip", "deflate", "br", "GZIP, identity"):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        answer = httpx.post(f"{url}/v1/embeddings", content=b"\x1f\x8b", headers=headers)
        assert refused(answer) == (415, "unsupported_content_encoding", None)
    assert refused(httpx.get(f"{url}/v2")) == (404, "not_found", None)
    answer = httpx.get(f"{url}/v1/embeddings")
    assert refused(answer) == (405, "method_not_allowed", None)
    assert answer.headers["allow"] == "POST"
    assert "connection" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/embeddings/", "/v1/embeddings//", "/rerank/", "/v1/rerank/"])
def test_a_slash_at_the_end_of_an_address_changes_nothing(url: str, path: str) -> None:
    body = {"model": "gte-mini", "input": "red"}
    if "rerank" in path:
        body = {"model": "gte-mini", "query": "red", "documents": ["red"]}  # type: ignore[dict-item]
    answer, plain = (httpx.post(f"{url}{each}", json=body) for each in (path, path.rstrip("/")))
    assert (answer.status_code, answer.json()) == (200, plain.json())
    assert httpx.get(f"{url}/v1/models/").json() == httpx.get(f"{url}/v1/models").json()
    assert refused(httpx.get(f"{url}/v2/")) == (404, "not_found", None)


def test_a_health_check_in_http_1_0_names_no_host(url: str) -> None:
    for start, expected in (("GET /health HTTP/1.0", 200), ("GET /health HTTP/1.0\r\nHost: example.com", 403)):
        with raw_connection(url) as connection:
            connection.sendall(f"{start}\r\n\r\n".encode("ascii"))
            assert answer_of(connection)[0] == expected


def test_only_this_machine_may_be_asked_for_without_a_key(url: str) -> None:
    for host in ("localhost", "localhost:80", "127.0.0.1:9", "[::1]:8000"):
        assert httpx.get(f"{url}/v1/models", headers={"host": host}).status_code == 200
    for host in ("example.com", "localhost.example.com", "127.0.0.1.example.com", "192.168.0.1", "[::1", ""):
        assert refused(httpx.get(f"{url}/v1/models", headers={"host": host})) == (403, "wrong_host", None)
    for hosts in (["example.com", "localhost"], ["localhost", "example.com"]):
        lines = ["GET /v1/models HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
        with raw_connection(url) as connection:
            connection.sendall("\r\n".join(lines).encode("ascii"))
            status, content = answer_of(connection)
        assert (status, content["error"]["code"]) == (403, "wrong_host")


def test_the_key_is_asked_for(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini", api_key=KEY)) as url:
        for header in (None, KEY, f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}2", "Bearer", "Bearer \xe9"):
            headers = [(b"authorization", header.encode("latin-1"))] if header is not None else []
            for answer in (
                httpx.post(f"{url}/v1/embeddings", json={"model": "gte-mini", "input": "red"}, headers=headers),
                httpx.get(f"{url}/metrics", headers=headers),
            ):
                assert refused(answer) == (401, "invalid_api_key", None)
                assert answer.headers["www-authenticate"] == "Bearer"
        for header in (f"Bearer {KEY}", f"bearer  {KEY}"):
            named = {"authorization": header, "host": "example.com"}  # whoever has the key may use any name
            body = {"model": "gte-mini", "input": "red"}
            assert httpx.post(f"{url}/v1/embeddings", json=body, headers=named).status_code == 200
        for path in ("/", "/page.js", "/page.css", "/health"):
            assert httpx.get(f"{url}{path}").status_code == 200
        assert httpx.get(f"{url}/openapi.json").json()["security"] == [{"key": []}]


def test_a_fault_of_ours_is_500_without_its_details() -> None:
    class Faulty(Embedder):
        def embed_tokens(self, ids: Any) -> NDArray[np.float32]:
            raise RuntimeError("the secret of the server")

    with served(Faulty(), Settings("gte-mini")) as url:
        for _ in range(2):
            answer = httpx.post(f"{url}/v1/embeddings", json={"model": "gte-mini", "input": "red"})
            assert refused(answer) == (500, "server_error", None)
            assert "secret" not in answer.text
        assert metric(url, "gte_requests_in_progress") == 1


@pytest.mark.parametrize(
    "wrong", [{"max_inputs": 0}, {"max_queued_texts": 2047}, {"max_held_bytes": 5}, {"api_key": " "}, {"api_key": "é"}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings("gte-mini", **wrong)
