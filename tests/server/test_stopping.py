"""How a server ends: what was accepted is answered, and the end comes in bounded time, whatever the model is doing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from ..ports import free_port
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
seconds = float(sys.argv[2])
run(create_app(Embedder(), settings), listener, settings, lambda: print(url, flush=True), False, (), seconds)
"""


class StuckServer(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    answers: list[httpx.Response]
    """What its client got."""


@contextmanager
def stuck_server(stop_seconds: int, same_signal_seconds: float = 0) -> Iterator[StuckServer]:
    """A server that is working on a request for ever."""
    command = [sys.executable, "-c", STUCK, str(stop_seconds), str(same_signal_seconds)]
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


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    with stuck_server(stop_seconds=1, same_signal_seconds=3600) as (process, url, answers):
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(url))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    assert [answer.status_code for answer in answers] == [503]


WITHOUT_STREAMS = """
import os, sys
how = sys.argv.pop(1)
if how == "closed":
    for descriptor in (0, 1, 2):
        os.close(descriptor)
if how != "nobody reads":  # as under pythonw
    sys.stdin = sys.stdout = sys.stderr = None
from gte_sdk.cli import main
main()
"""


@pytest.mark.parametrize("how", ["none", "closed", "nobody reads"])
def test_a_server_without_standard_streams_answers_and_ends(how: str) -> None:
    port = free_port()
    command = [sys.executable, "-c", WITHOUT_STREAMS, how, "serve", "--port", str(port), "--access-log"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    streams = write_end if how == "nobody reads" else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=streams, stderr=streams) as process:
        os.close(write_end)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: process.poll() is not None or listens(url))
            body = {"model": "gte-mini", "input": "red"}
            assert httpx.post(f"{url}/v1/embeddings", json=body).status_code == 200
            assert httpx.post(f"{url}/v1/embeddings", json={}).status_code == 422
            process.terminate()
            process.wait(60)
        finally:
            process.kill()
