"""How a server ends: what was accepted is answered, and the end comes in bounded time, whatever the model is doing."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from .servers import listens, metric, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

# A server whose model never comes back from a call, in a thread that nobody can interrupt.
STUCK = """
import signal, sys, threading
from gte_sdk import Embedder
from gte_sdk.server import Settings, create_app
from gte_sdk.server.http.listening import bind, run
Embedder.embed_tokens = lambda self, ids: threading.Event().wait()
settings = Settings("gte-mini", stop_seconds=int(sys.argv[1]))
listener = bind("127.0.0.1", 0)
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
run(create_app(Embedder(), settings), listener, settings, lambda: print(url, flush=True), False)
"""


class StuckServer(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    answers: list[httpx.Response]
    """What its client got."""


@contextmanager
def stuck_server(stop_seconds: int) -> Iterator[StuckServer]:
    """A server that is working on a request for ever."""
    command = [sys.executable, "-c", STUCK, str(stop_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        answers: list[httpx.Response] = []
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            client = threading.Thread(target=ask, args=(url, answers))
            client.start()
            wait_for(lambda: metric(url, "gte_requests_in_progress") == 2)
            yield StuckServer(process, url, answers)
        finally:
            process.kill()
            client.join(60)


def ask(url: str, answers: list[httpx.Response]) -> None:
    body: dict[str, Any] = {"model": "gte-mini", "input": "red"}
    try:
        answers.append(httpx.post(f"{url}/v1/embeddings", json=body, timeout=300))
    except httpx.TransportError:
        return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_does_not_come_back_cannot_keep_the_server(number: signal.Signals) -> None:
    with stuck_server(stop_seconds=1) as (process, _, answers):
        process.send_signal(number)
        assert process.wait(120) == 128 + number
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(503, "stopping")]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    with stuck_server(stop_seconds=3600) as (process, url, _):
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(url))  # signals that come together would be one
        process.send_signal(second)
        assert process.wait(120) == 128 + second
