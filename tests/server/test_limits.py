"""How much may be asked for: sizes, counts, the queue, and what all requests hold together."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .servers import answer_of, gte_serve, metric, post_head, raw_connection, refused, served, wait_for


@pytest.fixture(scope="module")
def strict(embedder: Embedder) -> Iterator[str]:
    """A server whose limits are small."""
    settings = Settings(
        "gte-mini", max_body_bytes=2000, max_held_bytes=3000, max_inputs=3, max_queued_texts=4, max_connections=6,
        truncate=False,
    )  # fmt: skip
    with served(embedder, settings) as address:
        yield address


def test_bodies_that_are_too_large(strict: str, embedder: Embedder) -> None:
    body = json.dumps({"model": "gte-mini", "input": "x" * 2000}).encode("ascii")
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{strict}/v1/embeddings", content=body, headers=headers)
    assert refused(answer) == (413, "body_too_large", None)
    in_pieces = (body[i : i + 500] for i in range(0, len(body), 500))  # chunked: no content-length to see it by
    assert refused(httpx.post(f"{strict}/v1/embeddings", content=in_pieces, headers=headers))[0] == 413
    megabytes = b"x" * 20_000_000
    patient = Settings(
        "gte-mini", max_body_bytes=2000, drain_seconds=60
    )  # a slow machine may need longer than a second
    with served(embedder, patient) as url:
        answer = httpx.post(f"{url}/v1/embeddings", content=megabytes, headers=headers)
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
        wait_for(lambda: metric(url, "gte_queued_texts") == 0)  # although the batches that run do not end
        last = threading.Thread(target=lambda: answers.append(post(1)))
        last.start()
        wait_for(lambda: client.get(f"{url}/health").json()["queued_texts"] == 1)
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


# `gte serve` that may open 64 files, and more if it asks for them.
FEW_FILES = """
import resource
from gte_sdk.cli import main
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_more_connections_than_files_are_allowed_by_default_are_answered() -> None:
    options = ("--max-connections", "200")
    with gte_serve(*options, program=("-c", FEW_FILES)) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(raw_connection(server.url)) for _ in range(150)]
        for connection in waiting:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for connection in waiting:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
