"""What a connection may do: how slowly it may send and read, and what is no request or one that others refuse."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .servers import answer_of, metric, post_head, raw_connection, served, wait_for


@pytest.fixture(scope="module")
def hasty(embedder: Embedder) -> Iterator[str]:
    """A server whose time limits are short."""
    with served(embedder, Settings("gte-mini", header_seconds=2, body_seconds=2)) as address:
        yield address


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
