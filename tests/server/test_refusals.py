"""Every limit and every malformed request: the status, the code and the field, in the shape of OpenAI's errors."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gte_sdk import Embedder, InputError
from gte_sdk.server import Settings

from .servers import answer_of, post_head, raw_connection, served

KEY = "sesame-open"


@pytest.fixture(scope="module")
def strict(embedder: Embedder) -> Iterator[str]:
    """A server whose limits are small."""
    settings = Settings(
        "gte-mini", max_body_bytes=2000, max_held_bytes=3000, max_inputs=3, max_queued_texts=4, max_connections=6,
        truncate=False,
    )  # fmt: skip
    with served(embedder, settings) as address:
        yield address


@pytest.fixture(scope="module")
def hasty(embedder: Embedder) -> Iterator[str]:
    """A server whose time limits are short."""
    with served(embedder, Settings("gte-mini", header_seconds=2, body_seconds=2)) as address:
        yield address


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error, whose shape is checked."""
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["message"]
    return answer.status_code, error["code"], error["param"]


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
    assert refused(httpx.get(f"{url}/v2")) == (404, "not_found", None)
    answer = httpx.get(f"{url}/v1/embeddings")
    assert refused(answer) == (405, "method_not_allowed", None)
    assert answer.headers["allow"] == "POST"
    assert "connection" not in answer.headers


def test_only_this_machine_may_be_asked_for_without_a_key(url: str) -> None:
    for host in ("localhost", "localhost:80", "127.0.0.1:9", "[::1]:8000"):
        assert httpx.get(f"{url}/v1/models", headers={"host": host}).status_code == 200
    for host in ("example.com", "localhost.example.com", "127.0.0.1.example.com", "192.168.0.1", "[::1", ""):
        assert refused(httpx.get(f"{url}/v1/models", headers={"host": host})) == (403, "wrong_host", None)


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


def test_bodies_that_are_too_large(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"model": "gte-mini", "input": "x" * 2000}).encode("ascii")
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{strict}/v1/embeddings", content=body, headers=headers)
    assert refused(answer) == (413, "body_too_large", None)
    in_pieces = (body[i : i + 500] for i in range(0, len(body), 500))  # chunked: no content-length to see it by
    assert refused(httpx.post(f"{strict}/v1/embeddings", content=in_pieces, headers=headers))[0] == 413
    megabytes = b"x" * 20_000_000
    with monkeypatch.context() as patch:  # a slow machine may need longer than a second for so many bytes
        patch.setattr("gte_sdk.server.gate._DRAIN_SECONDS", 60.0)
        answer = httpx.post(f"{strict}/v1/embeddings", content=megabytes, headers=headers)
    assert refused(answer) == (413, "body_too_large", None)
    with raw_connection(strict) as connection:  # who has not sent all of it after a second is cut off
        connection.sendall(post_head("/v1/embeddings", 10**9) + b"x" * 5000)
        assert answer_of(connection)[0] == 413
    assert metric(strict, "gte_held_bytes") == 0


def test_too_many_inputs_and_too_long_texts(strict: str, embedder: Embedder) -> None:
    body = {"model": "gte-mini", "input": ["red"] * 4}
    assert refused(httpx.post(f"{strict}/v1/embeddings", json=body)) == (422, "too_many_inputs", "input")
    body = {"model": "gte-mini", "input": ["red", "a " * (embedder.max_tokens - 1)]}
    assert refused(httpx.post(f"{strict}/v1/embeddings", json=body)) == (422, "too_long", "input")


def test_long_texts_are_cut_and_named(url: str, embedder: Embedder) -> None:
    before = metric(url, "gte_truncated_texts_total")
    limit = embedder.max_tokens
    texts = ["red", "red " * (limit - 1), "green " * 9999]
    answer = httpx.post(f"{url}/v1/embeddings", json={"model": "gte-mini", "input": texts})
    assert answer.headers["x-gte-truncated-input"] == "1,2"
    np.testing.assert_array_equal(np.array(answer.json()["data"][2]["embedding"], np.float32), embedder.embed(texts[2]))
    assert answer.json()["usage"]["prompt_tokens"] == 3 + limit + limit
    assert metric(url, "gte_truncated_texts_total") == before + 2
    answer = httpx.post(f"{url}/v1/embeddings", json={"model": "gte-mini", "input": "red " * (limit - 2)})
    assert "x-gte-truncated-input" not in answer.headers
    assert answer.json()["usage"]["prompt_tokens"] == limit


@pytest.mark.parametrize("start", [b"", b"POST /v1/embeddings HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"])
def test_a_header_that_does_not_arrive_is_408(hasty: str, start: bytes) -> None:
    with raw_connection(hasty) as connection:
        connection.sendall(start)
        status, content = answer_of(connection)  # without the limit nothing would come
        assert (status, content["error"]["code"]) == (408, "header_timeout")
        assert "within 2 seconds" in content["error"]["message"]


def test_a_header_byte_by_byte_is_408_and_does_not_start_the_clock_again(hasty: str) -> None:
    with raw_connection(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        deadline = time.monotonic() + 60
        while not select.select([connection], [], [], 0.05)[0]:
            assert time.monotonic() < deadline, "each byte started the clock again"
            connection.sendall(b"y")
        assert answer_of(connection)[0] == 408


def test_the_second_header_of_a_connection_has_its_time_limit_too(hasty: str) -> None:
    with raw_connection(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        assert answer_of(connection)[1]["error"]["code"] == "header_timeout"


def test_a_body_that_does_not_arrive_is_408(hasty: str) -> None:
    with raw_connection(hasty) as connection:
        connection.sendall(post_head("/v1/embeddings", 100) + b'{"model"')
        status, content = answer_of(connection)
        assert (status, content["error"]["code"]) == (408, "body_timeout")
    assert metric(hasty, "gte_held_bytes") == 0


def test_a_client_that_does_not_read_its_answer_is_cut_off(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []  # the ports of clients whose connections ended, by whoever ended them
    lose = HttpToolsProtocol.connection_lost

    def noted(protocol: HttpToolsProtocol, error: Exception | None) -> None:
        assert protocol.client is not None
        lost.append(protocol.client[1])
        lose(protocol, error)

    monkeypatch.setattr(HttpToolsProtocol, "connection_lost", noted)
    with served(embedder, Settings("gte-mini", write_seconds=0.5)) as url, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        body = json.dumps({"model": "gte-mini", "input": ["red"] * 2000}).encode("ascii")  # an answer of 9 MB
        connection.sendall(post_head("/v1/embeddings", len(body)) + body)
        assert connection.recv(9) == b"HTTP/1.1 "
        wait_for(lambda: connection.getsockname()[1] in lost)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 16):
                received += len(chunk)
        assert received < 8_000_000


def test_an_endless_header_is_431(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini", header_seconds=120)) as url, raw_connection(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        deadline = time.monotonic() + 60
        while not select.select([connection], [], [], 0.001)[0]:
            assert time.monotonic() < deadline, "a header without an end was taken"
            connection.sendall(b"y" * 1024)
        assert answer_of(connection)[0] == 431


def test_what_is_no_http_is_400(url: str) -> None:
    with raw_connection(url) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_connections_beyond_the_limit_are_503(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini", max_connections=4, header_seconds=120)) as url:
        waiting = [raw_connection(url) for _ in range(4)]
        try:
            deadline = time.monotonic() + 60
            while True:  # the connection of the fixture's own request may still be closing
                with raw_connection(url) as connection:
                    connection.settimeout(2)
                    try:
                        status, content = answer_of(connection)
                    except TimeoutError:
                        assert time.monotonic() < deadline
                        continue
                assert (status, content["error"]["code"]) == (503, "too_many_connections")
                break
        finally:
            for connection in waiting:
                connection.close()

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{url}/health").status_code == 200
            return False

        wait_for(answers)  # as soon as the server has seen that they are closed


def test_a_full_queue_is_429_and_a_client_that_leaves_gives_its_place_back() -> None:
    embedder = SlowEmbedder(truncation="ignore")
    settings = Settings("gte-mini", max_inputs=3, max_queued_texts=4, max_body_bytes=2000, max_held_bytes=5000)
    with served(embedder, settings) as url, httpx.Client(timeout=60) as client:

        def post(count: int) -> httpx.Response:
            body = {"model": "gte-mini", "input": ["red"] * count}
            return httpx.post(f"{url}/v1/embeddings", json=body, timeout=120)

        answers: list[httpx.Response] = []
        running = [threading.Thread(target=lambda: answers.append(post(1))) for _ in range(2)]
        for thread in running:  # one after the other: each is a batch of its own
            thread.start()
            wait_for(lambda: len(embedder.batches) == running.index(thread) + 1)  # noqa: B023
        leaving = raw_connection(url)
        body = json.dumps({"model": "gte-mini", "input": ["red"] * 3}).encode("ascii")
        leaving.sendall(post_head("/v1/embeddings", len(body)) + body)
        wait_for(lambda: client.get(f"{url}/health").json()["queued_texts"] == 3)
        answer = post(2)
        assert refused(answer) == (429, "queue_full", None)
        assert answer.headers["retry-after"] == "1"
        leaving.close()
        wait_for(lambda: metric(url, "gte_requests_in_progress") == 3)  # the two that run, and this question
        last = threading.Thread(target=lambda: answers.append(post(1)))
        last.start()
        wait_for(lambda: client.get(f"{url}/health").json()["queued_texts"] == 4)
        embedder.go.set()
        for thread in (*running, last):
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert embedder.batches == [1, 1, 1]  # nothing was computed for the one that left
        assert metric(url, "gte_queued_texts") == 0


def test_bodies_of_all_requests_together_have_a_limit() -> None:
    embedder = SlowEmbedder(truncation="ignore")
    settings = Settings("gte-mini", max_body_bytes=2000, max_held_bytes=3000)
    with served(embedder, settings) as url:

        def post() -> httpx.Response:
            return httpx.post(f"{url}/v1/embeddings", json={"model": "gte-mini", "input": "x" * 1900}, timeout=120)

        answers: list[httpx.Response] = []
        running = threading.Thread(target=lambda: answers.append(post()))
        running.start()
        wait_for(lambda: embedder.batches == [1])
        assert refused(post()) == (429, "bodies_full", None)
        embedder.go.set()
        running.join(60)
        assert (answers[0].status_code, post().status_code) == (200, 200)


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


class SlowEmbedder(Embedder):
    """Waits with every batch until it may go; says how many texts each had."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.go = threading.Event()
        self.batches: list[int] = []

    def embed_tokens(self, ids: Any) -> NDArray[np.float32]:
        self.batches.append(len(ids))
        assert self.go.wait(120)
        return super().embed_tokens(ids)


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
