"""Damaged requests to a live server: each is answered or refused, none is a fault of the server, and nothing stays.

A few in `make test`, two thousand of each kind by `make fuzz` (GTE_FUZZ_CASES).
"""

import contextlib
import json
import os
import re
import socket
from random import Random

import httpx
import pytest
from mutations import mutate_bytes, mutate_json

from .servers import metric, post_head, raw_connection, wait_for

CASES = int(os.environ.get("GTE_FUZZ_CASES", "60"))
BODIES = {
    "/v1/embeddings": {
        "model": "gte-mini", "input": ["red", "green"], "encoding_format": "float", "dimensions": 384, "user": "me",
    },
    "/rerank": {"model": "gte-mini", "query": "red", "documents": ["green", {"text": "blue"}], "top_n": 1},
}  # fmt: skip


def check_nothing_stayed(url: str) -> None:
    """No request was a fault of the server, and none is still held."""
    wait_for(lambda: metric(url, "gte_requests_in_progress") == 1)  # this question itself
    assert metric(url, "gte_held_bytes") == 0
    assert metric(url, "gte_queued_texts") == 0
    statuses = re.findall(r'^gte_requests_total{.*status="(\d+)"}', httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert not [status for status in statuses if status.startswith("5")]


@pytest.mark.parametrize("path", BODIES)
def test_damaged_json_is_answered_or_refused(url: str, path: str) -> None:
    with httpx.Client(timeout=120) as client:
        for seed in range(CASES):
            body = json.dumps(mutate_json(Random(seed), BODIES[path])).encode("utf-8", "surrogatepass")
            answer = client.post(f"{url}{path}", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 200 or 400 <= answer.status_code < 500, f"seed {seed}: {answer.text[:500]}"
            answer.json()
    check_nothing_stayed(url)


@pytest.mark.parametrize("path", BODIES)
def test_damaged_http_ends_in_an_answer_or_a_closed_connection(url: str, path: str) -> None:
    body = json.dumps(BODIES[path]).encode("utf-8")
    whole = post_head(path, len(body), ["Connection: close"]) + body
    for seed in range(CASES):
        with raw_connection(url) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(mutate_bytes(Random(seed), whole))
            connection.shutdown(socket.SHUT_WR)  # nothing more comes, so that a request without its end is no wait
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            status = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
            assert not received or status, f"seed {seed}: {received[:500]!r}"
            assert status is None or int(status[1]) < 500, f"seed {seed}: {received[:500]!r}"
    check_nothing_stayed(url)
