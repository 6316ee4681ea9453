"""No request takes more than 64 MB above the idle server, and what it took is given back; nor do many at once keep any.

`make test` sends 24 hostile requests at once, `make fuzz` 200 (GTE_FUZZ_CASES).
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .servers import ServerProcess, gte_serve, metric, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")

AT_ONCE = 200 if "GTE_FUZZ_CASES" in os.environ else 24
MOST = 8 * 2**20 - 200
JSON = {"content-type": "application/json"}


def body_of(content: bytes) -> bytes:
    return b'{"model": "gte-nano", "input": %s}' % content


def text_of(start: str, unit: str) -> bytes:
    """A body of one text, as large as the server takes."""
    raw = unit.encode("utf-8")
    return body_of(b'"%s%s"' % (start.encode("utf-8"), raw * ((MOST - 100) // len(raw))))


def list_of(unit: bytes, start: bytes = b"[") -> bytes:
    return body_of(start + unit * ((MOST - 100) // len(unit)) + unit.rstrip(b",") + b"]")


# What takes most in little: as one body each.
BODIES = {
    "lists": list_of(b"[],"),
    "objects": list_of(b"{},"),
    "short texts": list_of(b'"ab",'),
    "numbers": list_of(b"300,"),
    "fractions": list_of(b"1.5,"),
    "nesting": b"[" * MOST,
    "nested objects": b'{"a":' * (MOST // 5),
    "quotes": b'"' * MOST,
    "backslashes outside of texts": b"\\" * MOST,
    "no text": b"\xff\x00" * (MOST // 2),
    "as many token ids as may be": body_of(b"[" + b"300," * 2**19 + b"300]"),
    "2,000 lists of token ids": body_of(b"[" + b",".join([b"[" + b"2300," * 260 + b"2300]"] * 2000) + b"]"),
    "words": text_of("", "word "),
    "words beside an emoji": text_of("\U0001f600", "word "),  # 4 bytes for each character
    "escapes beside an emoji": text_of("\U0001f600", '\\nwo\\"rd '),
    "escaped surrogates": text_of("", "\\ud83d\\ude00 "),
    "white space": text_of("", " "),
    "no white space": text_of("", "1,"),
    "Chinese": text_of("", "中文字"),
    "emojis": text_of("", "\U0001f600"),
    "one word": text_of("", "a"),
    "escaped letters": text_of("", "\\u0041"),
    "escaped backslashes": text_of("", "\\\\"),
    "2,000 texts": body_of(b"[" + b",".join([b'"%s"' % (b"a b, c. " * 500)] * 2000) + b"]"),
    "2,000 texts beside emojis": body_of(
        b"[" + b",".join(['"\U0001f600 {}"'.format("a b, c. " * 500).encode()] * 2000) + b"]"
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with gte_serve("--model", "gte-nano") as running:
        httpx.post(f"{running.url}/v1/embeddings", json={"model": "gte-nano", "input": "red"}, timeout=60)
        yield running


def megabytes(server: ServerProcess, name: str) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name))) * 1024 / 1e6


def forget_the_peak(server: ServerProcess) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5", encoding="ascii")


def wait_until_given_back(server: ServerProcess, idle: float, most: float) -> None:
    wait_for(lambda: megabytes(server, "VmRSS") <= idle + most, seconds=120)


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_one_request_takes_little_and_gives_it_back(server: ServerProcess, body: bytes) -> None:
    assert len(body) <= 8 * 2**20
    idle = megabytes(server, "VmRSS")
    forget_the_peak(server)
    answer = httpx.post(f"{server.url}/v1/embeddings", content=body, headers=JSON, timeout=600)
    assert answer.status_code in (200, 400, 422)
    assert megabytes(server, "VmHWM") - idle <= 64
    wait_until_given_back(server, idle, 8)


def test_a_ranking_that_returns_its_documents_takes_little(server: ServerProcess) -> None:
    for text in ("\U0001f600" * (MOST // 4 - 50), "\U0001f600" + "a " * (MOST // 2 - 50)):
        body = b'{"model":"gte-nano","query":"a","return_documents":true,"documents":["%s"]}' % text.encode("utf-8")
        idle = megabytes(server, "VmRSS")
        forget_the_peak(server)
        with httpx.stream("POST", f"{server.url}/rerank", content=body, headers=JSON, timeout=600) as answer:
            assert answer.status_code == 200
            assert sum(map(len, answer.iter_bytes())) >= len(body) - 100
        assert megabytes(server, "VmHWM") - idle <= 64
        wait_until_given_back(server, idle, 8)


@pytest.mark.parametrize("model", ["gte-nano", "gte-mini"])
def test_many_hostile_requests_at_once_are_answered_or_refused(model: str) -> None:
    # With layers, thousands of long texts would take minutes.
    quick = [body for name, body in BODIES.items() if model == "gte-nano" or not name.startswith("2,000")]
    bodies = [body.replace(b"gte-nano", model.encode("ascii"), 1) for body in quick]
    with gte_serve("--model", model) as server:
        red = {"model": model, "input": "red"}
        httpx.post(f"{server.url}/v1/embeddings", json=red, timeout=60)
        idle = megabytes(server, "VmRSS")
        send_at_once(server, bodies)
        wait_until_given_back(server, idle, 20)
        assert metric(server.url, "gte_held_bytes") == 0
        assert httpx.post(f"{server.url}/v1/embeddings", json=red, timeout=60).status_code == 200


def send_at_once(server: ServerProcess, bodies: list[bytes]) -> None:
    statuses: Counter[int | str] = Counter()
    idle = megabytes(server, "VmRSS")
    forget_the_peak(server)

    def ask(number: int) -> None:
        try:
            body = bodies[number % len(bodies)]
            answer = httpx.post(f"{server.url}/v1/embeddings", content=body, headers=JSON, timeout=600)
            statuses[answer.status_code] += 1
            if answer.status_code == 429:
                assert answer.headers["retry-after"] == "1"
        except httpx.TransportError:  # refused and cut off while it was sending
            statuses["cut off"] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 400, 422, 429, "cut off"}
    assert statuses.total() == AT_ONCE
    assert megabytes(server, "VmHWM") - idle <= 400
