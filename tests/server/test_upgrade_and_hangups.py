"""Clients that ask for another protocol get an answer in this one; clients that hang up are no fault."""

import contextlib
import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .servers import ServerProcess, gte_serve, metric, post_head, raw_connection, served, wait_for

BODY = json.dumps({"model": "gte-mini", "input": "red"}).encode("ascii")
H2C = [
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
]
UPGRADES = {
    "Java's HttpClient": H2C,
    "another order": [H2C[1], H2C[2], b"Connection: HTTP2-Settings, Upgrade"],
    "kept alive": [b"Connection: keep-alive, Upgrade", H2C[1]],
    "websocket": [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: eA==",
    ],
    "TLS": [b"Connection: Upgrade", b"Upgrade: TLS/1.0, HTTP/1.1"],
    "two": [b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: foo/2"],
    "none": [],
}


def request(lines: list[bytes], chunked: bool = False) -> bytes:
    head = [b"POST /v1/embeddings HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json", *lines]
    if chunked:
        pieces = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in BODY) + b"0\r\n\r\n"
        return b"\r\n".join([*head, b"Transfer-Encoding: chunked", b"", b""]) + pieces
    return b"\r\n".join([*head, b"Content-Length: %d" % len(BODY), b"", b""]) + BODY


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection that stays open."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    head = bytes(received)
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    body = bytearray()
    while len(body) < length:
        chunk = connection.recv(length - len(body))
        assert chunk
        body += chunk
    return int(head.split()[1]), bytes(body)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("lines", UPGRADES.values(), ids=list(UPGRADES))
@pytest.mark.parametrize("piece", [10_000, 7, 1])
def test_a_request_that_asks_for_another_protocol_is_answered(
    url: str, lines: list[bytes], chunked: bool, piece: int
) -> None:
    """However the bytes arrive; and the connection goes on after it."""
    content = request(lines, chunked)
    with raw_connection(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for start in range(0, len(content), piece):
                connection.sendall(content[start : start + piece])
            status, body = read_answer(connection)
            assert (status, json.loads(body)["usage"]["total_tokens"]) == (200, 3)


def test_pipelined_requests_for_another_protocol_are_answered_in_order(url: str) -> None:
    with raw_connection(url) as connection:
        connection.sendall(b"".join(request(lines) for lines in UPGRADES.values()))
        for _ in UPGRADES:
            assert read_answer(connection)[0] == 200


JAVA = """
import java.net.URI; import java.net.http.*;
public class Client { public static void main(String[] a) throws Exception {
  HttpRequest request = HttpRequest.newBuilder(URI.create(a[0])).header("Content-Type", "application/json")
    .POST(HttpRequest.BodyPublishers.ofString(a[1])).build();
  System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
} }
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java is installed")
def test_javas_own_client(url: str, tmp_path: Path) -> None:
    (tmp_path / "Client.java").write_text(JAVA, encoding="ascii")
    command = ["java", str(tmp_path / "Client.java"), f"{url}/v1/embeddings", BODY.decode("ascii")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=300).stdout == "200"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl is installed")
@pytest.mark.parametrize("option", ["--http2", "--http1.1", "--http1.0"])
def test_curl(url: str, option: str) -> None:
    command = ["curl", "-s", option, "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json"]
    result = subprocess.run(
        [*command, "-d", BODY.decode("ascii"), f"{url}/v1/embeddings"], capture_output=True, timeout=60
    )
    assert result.stdout == b"200"


# --- hanging up


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with gte_serve() as running:
        yield running


LARGE = json.dumps({"model": "gte-mini", "input": ["a long text " * 100] * 200}).encode("ascii")
# What was sent when the client went away.
UNFINISHED = {
    "a header": b"POST /v1/embeddings HT",
    "no byte of a body": post_head("/v1/embeddings", 100),
    "a part of a body": post_head("/v1/embeddings", 100) + b'{"model"',
    "less than it said": post_head("/rerank", 5_000_000) + b"x" * 1_000_000,
    "a chunk": post_head("/v1/embeddings", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"5\r\nab",
    "a refused body": post_head("/v1/embeddings", 10**9) + b"x" * 100_000,
    "a request that waits": post_head("/v1/embeddings", len(LARGE)) + LARGE,
    "a request before another": request([]) + post_head("/v1/embeddings", len(LARGE)) + LARGE + request([]) * 3,
}


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=list(UNFINISHED))
def test_a_client_that_hangs_up_is_no_fault(
    server: ServerProcess, sent: bytes, leave: Callable[[socket.socket], None]
) -> None:
    connection = raw_connection(server.url)
    connection.sendall(sent)
    time.sleep(0.2)  # so that the server may have read it; it passes too where it has not
    leave(connection)
    wait_for(lambda: metric(server.url, "gte_requests_in_progress") == 1)  # this question itself
    wait_for(lambda: metric(server.url, "gte_queued_texts") == 0)  # given back when its turn comes
    metrics = httpx.get(f"{server.url}/metrics").text
    statuses = set(re.findall(r'route="(?:/v1/embeddings|/rerank)",status="(\d+)"', metrics))
    assert statuses <= {"499", "413", "200"}
    assert "gte_held_bytes 0\n" in metrics


def test_the_log_has_no_traceback_of_clients_that_hang_up() -> None:
    with gte_serve() as server:
        for sent in UNFINISHED.values():
            for leave in (close, reset):
                connection = raw_connection(server.url)
                connection.sendall(sent)
                time.sleep(0.2)
                leave(connection)
        with raw_connection(server.url) as connection:  # in the middle of an answer
            body = json.dumps({"model": "gte-mini", "input": ["red"] * 2000}).encode("ascii")
            connection.sendall(post_head("/v1/embeddings", len(body)) + body)
            assert connection.recv(9) == b"HTTP/1.1 "
        server.process.terminate()
        assert server.process.wait(120) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


def test_a_client_that_hangs_up_while_it_sends_is_counted_as_gone(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini")) as url:
        connection = raw_connection(url)
        connection.sendall(UNFINISHED["a part of a body"])
        connection.close()
        deadline = time.monotonic() + 60
        while 'route="/v1/embeddings",status="499"} 1\n' not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline
        with contextlib.suppress(httpx.HTTPError):
            assert httpx.get(f"{url}/health").status_code == 200
