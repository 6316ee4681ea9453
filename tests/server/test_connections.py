"""What a connection may do: how slowly it may send and read, and what is no request or one that others refuse."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gte_sdk import Embedder
from gte_sdk.server import Settings
from gte_sdk.server.http.connection import MAX_PIPELINED

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


def test_a_chunked_body_that_never_ends_is_408(hasty: str) -> None:
    with raw_connection(hasty) as connection:
        connection.sendall(chunked_head())
        deadline = time.monotonic() + 60
        while not select.select([connection], [], [], 0.05)[0]:
            assert time.monotonic() < deadline
            connection.sendall(b"1\r\nx\r\n")
        assert answer_of(connection)[1]["error"]["code"] == "body_timeout"
    assert metric(hasty, "gte_held_bytes") == 0


# What may be sent without an end, none of it part of a header that is timed or a body that is measured.
ENDLESS = {
    "lines before a request": (b"", b"\r\n"),
    "a method": (b"", b"A"),
    "a path": (b"GET /", b"a"),
    "lines of a header": (b"GET /health HTTP/1.1\r\n", b"a: b\r\n"),
    "the size of a chunk": (b"CHUNKED", b"0"),
    "what may follow the size": (b"CHUNKED" + b"1;", b"a"),
    "lines behind a body": (b"CHUNKED" + b"0\r\n", b"a: b\r\n"),
    "one line behind a body": (b"CHUNKED" + b"0\r\na: ", b"b"),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=list(ENDLESS))
def test_what_has_no_end_is_cut_off_after_some_kilobytes(embedder: Embedder, start: bytes, more: bytes) -> None:
    settings = Settings("gte-mini", header_seconds=120, body_seconds=120)
    with served(embedder, settings) as url, raw_connection(url) as connection:
        connection.sendall(start.replace(b"CHUNKED", chunked_head()))
        sent, piece = 0, more * (8192 // len(more))
        with contextlib.suppress(ConnectionError):
            while not select.select([connection], [], [], 0.01)[0]:
                assert sent < 2_000_000
                connection.sendall(piece)
                sent += len(piece)
            assert answer_of(connection)[0] in (400, 431)


def test_a_header_that_is_too_large_but_arrives_at_once_is_431(url: str) -> None:
    for lines in (b"a: " + b"b" * 70_000 + b"\r\n", b"a: b\r\n" * 200, (b"a: " + b"b" * 10_000 + b"\r\n") * 7):
        with raw_connection(url) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lines + b"\r\n")
            status, content = answer_of(connection)
            assert (status, content["error"]["code"]) == (431, "header_too_large")


def test_some_requests_may_be_pipelined_and_a_flood_of_them_ends_the_connection(url: str) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with raw_connection(url) as connection:
        connection.sendall(ask * (MAX_PIPELINED - 1) + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        assert received.count(b"HTTP/1.1 200 OK") == MAX_PIPELINED
    with raw_connection(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(ask * 5000)
        while chunk := connection.recv(65536):
            assert b"HTTP/1.1 4" not in chunk  # an answer to another request would be taken for that to this one
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_client_that_waits_to_be_told_to_go_on(url: str) -> None:
    body = b'{"model": "gte-mini", "input": "red"}'
    with raw_connection(url) as connection:
        connection.sendall(post_head("/v1/embeddings", len(body), ["Expect: 100-continue", "Connection: close"]))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answer_of(connection)[0] == 200
    for head in (
        post_head("/v1/embeddings", 10**9, ["Expect: 100-continue"]),
        post_head("/v1/embeddings", 100, ["Expect: 100-continue"]).replace(b"application/json", b"text/plain"),
    ):
        with raw_connection(url) as connection:  # one that will be refused is not told to go on
            connection.sendall(head)
            assert answer_of(connection)[0] in (413, 415)


# Two readers of such a request could see two different requests in it.
AMBIGUOUS = {
    "two lengths": ["Content-Length: 5", "Content-Length: 6"],
    "a length and chunks": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "a negative length": ["Content-Length: -5"],
    "no number": ["Content-Length: 5x"],
    "a length beyond 64 bits": ["Content-Length: " + "9" * 30],
    "chunks that are not the last coding": ["Transfer-Encoding: chunked, gzip"],
    "a line that goes on": ["Content-Length: 5", "X: a\r\n b"],
    "a space in a name": ["Content-Length : 5"],
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
def test_a_request_with_an_ambiguous_length_is_400(url: str, lines: list[str]) -> None:
    head = ["POST /v1/embeddings HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines, "", ""]
    with raw_connection(url) as connection:
        connection.sendall("\r\n".join(head).encode("ascii") + b"hello")
        assert answer_of(connection)[0] == 400


def test_an_old_client_gets_an_answer_that_it_can_read(url: str) -> None:
    """HTTP/1.0 knows no chunks, so the answer has a length, however long it is."""
    body = json.dumps({"model": "gte-mini", "input": ["red"] * 100}).encode("ascii")
    with raw_connection(url) as connection:
        connection.sendall(post_head("/v1/embeddings", len(body)).replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        status, content = answer_of(connection)
        assert (status, len(content["data"])) == (200, 100)


def chunked_head() -> bytes:
    return post_head("/v1/embeddings", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
