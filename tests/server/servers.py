"""Live servers for the tests: `gte serve` as a process, and the application in a thread with short time limits."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import uvicorn

from gte_sdk import Embedder
from gte_sdk.server import Settings, create_app
from gte_sdk.server.http.connection import protocol_of
from gte_sdk.server.http.listening import bind


class ServerProcess(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    port: int


@contextlib.contextmanager
def gte_serve(
    *arguments: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = ("-m", "gte_sdk.cli")
) -> Iterator[ServerProcess]:
    """`gte serve` on a free port of this machine; killed at the end if the test has not stopped it. `program` is what
    Python runs in place of the command line."""
    command = [sys.executable, *program, "serve", "--port", "0", *arguments]
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "serving" in line)
            url = line.split()[-1]
            yield ServerProcess(process, url, int(url.rsplit(":", 1)[1]))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(60)


@contextlib.contextmanager
def served(embedder: Embedder, settings: Settings) -> Iterator[str]:
    """The application under uvicorn in a thread, as `gte serve` runs it; yields its address."""
    listener = bind("127.0.0.1", 0)
    app = create_app(embedder, settings)
    config = uvicorn.Config(
        app, http=protocol_of(settings), ws="none", log_level="critical", timeout_keep_alive=settings.idle_seconds
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=60) as client:
            assert client.get(f"{url}/health").status_code == 200
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def raw_connection(url: str, seconds: float = 60) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=seconds)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and JSON of what a server says before it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):  # what was sent while it closed is answered by a reset
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post_head(path: str, length: int, lines: Sequence[str] = ()) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*head, *lines, "", ""]).encode("ascii")


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error, whose shape is checked."""
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["message"]
    return answer.status_code, error["code"], error["param"]


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def listens(url: str) -> bool:
    try:
        httpx.get(f"{url}/health")
    except httpx.ConnectError:
        return False
    except httpx.TransportError:  # closed before it was read: the server is about to go
        return True
    return True
