"""Requests drawn at random: each is answered with a status that is documented, or its connection ends. No traceback.

`make test` sends some hundreds, `make fuzz` some thousands: GTE_FUZZ_CASES. A failure names its seed.
"""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest
from mutations import mutate_bytes, mutate_json

from .servers import ServerProcess, gte_serve, metric, wait_for

WORKERS = 8
CASES = max(30, int(os.environ.get("GTE_FUZZ_CASES", "40")) // 4)  # of each worker
STATUSES = {200, 400, 403, 404, 405, 408, 413, 415, 422, 429, 431, 503}
PATHS = [
    "/v1/embeddings",
    "/v1/embeddings",
    "/v1/embeddings",
    "/rerank",
    "/v1/rerank",
    "/v1/models",
    "/health",
    "/",
    "/x",
]
METHODS = ["POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE", "post", "PRI", ""]
LINES = [
    "Host: 127.0.0.1", "Host: evil.example", "Host:", "Content-Type: application/json", "Content-Type: text/plain",
    "Expect: 100-continue", "Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: h2c",
    "Upgrade: websocket", "HTTP2-Settings: AAMAAABk", "Content-Length: 0", "Content-Length: -1", "TE: trailers",
    "Content-Length: 999999999999",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Encoding: gzip", "Authorization: Bearer \xe9",
    "Origin: null", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: \x80", "X: " + "y" * 9000,
    "Accept-Encoding: gzip", "Range: bytes=0-1", "If-None-Match: *", "Cookie: a=b", ": empty", "no colon", "X\x00: y",
]  # fmt: skip
BODIES: list[Any] = [
    {"model": "gte-nano", "input": "red"},
    {"model": "gte-nano", "input": ["red", "green " * 700], "encoding_format": "base64", "user": "x"},
    {"model": "gte-nano", "input": [[101, 2417, 102], [5]], "dimensions": None},
    {"model": "gte-nano", "input": [5, 6, 7], "input_type": "query"},
    {"model": "gte-nano", "query": "red", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True},
]


def body_of(random: Random) -> bytes:
    value = random.choice(BODIES)
    for _ in range(random.choice([0, 1, 1, 2])):
        value = mutate_json(random, value)
    body = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate_bytes(random, body) if random.random() < 0.3 else body


def request_of(random: Random) -> bytes:
    body = body_of(random)
    lines = [LINES[0], LINES[3]] if random.random() < 0.8 else []
    lines += random.sample(LINES, random.choice([0, 0, 0, 1, 2, 5]))
    if random.random() < 0.2:
        lines.append("Transfer-Encoding: chunked")
        sizes = [random.choice([1, 7, 1000, 70_000]) for _ in range(20)]
        chunks, start = b"", 0
        for size in sizes:
            piece = body[start : start + size]
            start += size
            chunks += b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""
        body = chunks + random.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\na: b\r\n\r\n", b""])
    else:
        lines.append(f"Content-Length: {len(body) + random.choice([0] * 9 + [5, -5])}")
    method, path = random.choice(METHODS[:3] if random.random() < 0.8 else METHODS), random.choice(PATHS)
    version = random.choice(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", ""])
    head = "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("latin-1")
    return mutate_bytes(random, head) + body if random.random() < 0.2 else head + body


def send_case(port: int, seed: int) -> None:
    """Sends what the seed draws, and checks what comes back, or leaves before anything does."""
    random = Random(seed)
    content = b"".join(request_of(random) for _ in range(random.choice([1, 1, 1, 1, 2, 30])))
    if random.random() < 0.1:
        content = mutate_bytes(random, content)
    received = b""
    with (
        contextlib.suppress(OSError),  # the server, or this client's patience, ended the connection
        socket.create_connection(("127.0.0.1", port), timeout=random.choice([0.02, 0.2, 1.5])) as connection,
    ):
        pieces = random.choice([1, 1, 2, 20])
        size = len(content) // pieces + 1
        for start in range(0, len(content), size):
            connection.sendall(content[start : start + size])
        if random.random() < 0.1:
            connection.shutdown(socket.SHUT_WR)
        while random.random() > 0.02 and (chunk := connection.recv(65536)):
            received += chunk
    check(received, seed)


def check(received: bytes, seed: int) -> None:
    """Each answer has a status that is documented; a refusal has OpenAI's shape."""
    for status in re.findall(rb"(?:^|\}|\n)HTTP/1\.1 (\d+)", received):
        assert int(status) in STATUSES | {100}, f"seed {seed}: {received[:500]!r}"
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if re.match(rb"HTTP/1\.1 [45]", head) and length is not None and body and len(body) >= int(length[1]):
        error = json.loads(body[: int(length[1])])["error"]
        assert sorted(error) == ["code", "message", "param", "type"], f"seed {seed}"


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with gte_serve("--model", "gte-nano") as running:
        yield running


def test_random_requests_are_answered_or_refused(server: ServerProcess) -> None:
    failures: list[str] = []

    def worker(number: int) -> None:
        for seed in range(number * CASES, (number + 1) * CASES):
            try:
                send_case(server.port, seed)
            except Exception as error:
                failures.append(f"seed {seed}: {error!r}")

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_for(lambda: metric(server.url, "gte_requests_in_progress") == 1)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "gte_held_bytes 0\n" in metrics
    assert "gte_queued_texts 0\n" in metrics
    answered = {int(status) for status in re.findall(r'gte_requests_total\{.*status="(\d+)"\}', metrics)}
    assert answered <= STATUSES | {499}
    assert {200, 400, 422} <= answered
    server.process.terminate()
    assert server.process.wait(120) == 0
    assert server.process.stderr is not None
    assert server.process.stderr.read() == ""
