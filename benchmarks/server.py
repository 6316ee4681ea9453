"""Throughput of `gte serve` under concurrent clients that send one text at a time, with and without micro-batching.

The third server is what a program usually has: a route that calls `Embedder.embed` for each request in a thread pool.
The fourth is fastembed behind FastAPI on the same int8 file, where both are installed. Each is a process of its own,
in turns, and answers base64; the clients share this machine.

    python benchmarks/server.py --clients 64 --seconds 8 --rounds 3
"""

import argparse
import base64
import json
import os
import platform
import random
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8").split()
GTE = [sys.executable, "-m", "gte_sdk.cli", "serve", "--port", "0"]
SERVERS = {
    "micro-batching": GTE,
    "no micro-batching": [*GTE, "--no-micro-batching"],
    "one call per request": [sys.executable, __file__, "--serve", "gte_sdk"],
    "fastembed and FastAPI": [sys.executable, __file__, "--serve", "fastembed"],
}
WARM_UP_SECONDS = 1.0
REQUEST_POOL = 1000


class Round(NamedTuple):
    requests_per_second: float
    median_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    """Processor time of the server for each request; other programs on the machine hardly move it."""
    peak_mb: float
    """The most resident memory so far."""
    growth_mb: float
    """Of resident memory, from the warm-up's end to the round's."""


def main() -> None:
    options = _options()
    if options.serve:
        serve_gte() if options.serve == "gte_sdk" else serve_fastembed()
        return
    words = (options.words[0], options.words[1])
    servers = {name: SERVERS[name] for name in options.servers}
    if find_spec("fastembed") is None or find_spec("fastapi") is None:
        servers.pop("fastembed and FastAPI", None)
        print("fastembed and FastAPI: not installed, left out", file=sys.stderr)
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    for number in range(options.rounds):
        for name in random.Random(number).sample(list(servers), len(servers)):
            with running(servers[name]) as (port, process_id):
                load(port, options.clients, WARM_UP_SECONDS, words)
                cpu, resident = cpu_seconds(process_id), resident_mb(process_id, "VmRSS")
                latencies, errors = load(port, options.clients, options.seconds, words)
                cpu_ms = 1000 * (cpu_seconds(process_id) - cpu) / len(latencies)
                growth = resident_mb(process_id, "VmRSS") - resident
                memory = (resident_mb(process_id, "VmHWM"), growth)
                rounds[name].append(_round(latencies, errors, options.seconds, cpu_ms, *memory))
            print(f"round {number + 1}, {name}: {rounds[name][-1].requests_per_second:.0f} requests/s", file=sys.stderr)
    results = {
        name: Round(*(statistics.median(column) for column in zip(*of, strict=True))) for name, of in rounds.items()
    }
    print(
        f"{options.clients} clients, texts of {words[0]} to {words[1]} words, {options.seconds:g} s, median of "
        f"{options.rounds}"
    )
    titles = f"{'requests/s':>12}{'median ms':>12}{'p99 ms':>10}{'errors':>8}{'CPU ms':>8}{'MB':>8}{'+MB':>8}"
    print(f"{'server':24}{titles}")
    for name, result in results.items():
        figures = f"{result[0]:>12.0f}{result[1]:>12.1f}{result[2]:>10.1f}{result[3]:>8.0f}{result[4]:>8.2f}"
        print(f"{name:24}{figures}{result[5]:>8.0f}{result[6]:>8.1f}")
    first, *others = servers
    rate = results[first].requests_per_second
    ratios = {f"{first} / {name}": rate / results[name].requests_per_second for name in others}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    print(json.dumps({"results": {k: v._asdict() for k, v in results.items()}, "ratios": ratios, **machine}))


def load(port: int, clients: int, seconds: float, words: tuple[int, int]) -> tuple[list[float], int]:
    """Latencies in seconds of all requests that were answered in time, and how many of the answers were no 200.

    One thread with ready-made requests and plain sockets, so that it takes little of the processors that it shares.
    """
    choice = random.Random(clients)
    pool = [request_bytes(" ".join(choice.choices(WORDS, k=choice.randint(*words)))) for _ in range(REQUEST_POOL)]
    latencies: list[float] = []
    errors = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, Client(connection, pool))
        everybody: list[Client] = [key.data for key in selector.get_map().values()]
        end = time.perf_counter() + seconds
        for client in everybody:
            client.send()
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(end - now):
                status = key.data.receive()
                if status is None:
                    continue
                latencies.append(time.perf_counter() - key.data.sent)
                errors += status != 200
                key.data.send()
        for client in everybody:
            client.connection.close()
    return latencies, errors


class Client:
    """One open connection that sends its next request as soon as the last one is answered."""

    def __init__(self, connection: socket.socket, pool: list[bytes]) -> None:
        self.connection = connection
        self.sent = 0.0
        self._pool = pool
        self._answer = b""

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.connection.sendall(random.choice(self._pool))

    def receive(self) -> int | None:
        """The status of an answer that is whole, None for a part of one."""
        chunk = self.connection.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed a connection")
        self._answer += chunk
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = int(re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
        if len(body) < length:
            return None
        self._answer = b""
        return int(head[9:12])


def request_bytes(text: str) -> bytes:
    body = json.dumps({"model": "gte-mini", "input": text, "encoding_format": "base64"}).encode("ascii")
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode("ascii") + body


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """A server process while it runs: its port and process id."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            yield int(line.rsplit(":", 1)[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def cpu_seconds(process_id: int) -> float:
    """User and system time of a process so far, from /proc (Linux)."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process_id: int, which: str) -> float:
    """Resident memory from /proc (Linux): "VmRSS" is what it is, "VmHWM" the most that it has been."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(which))) / 1024


def serve_gte() -> None:
    """The usual server: a route in a thread pool that calls the embedder on the texts of its request."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from gte_sdk import Embedder

    embedder = Embedder()

    async def embeddings(request: Request) -> JSONResponse:
        content: dict[str, Any] = await request.json()
        return JSONResponse(_base64_rows(await run_in_threadpool(lambda: list(embedder.embed([content["input"]])))))

    _serve(Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])]))


def serve_fastembed() -> None:
    from fastapi import FastAPI

    sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that gte_sdk is the one that is installed

    from benchmarks.embedding_rivals import INT8, open_fastembed
    from gte_sdk.model_files.directory import bundled_model_path

    embed = open_fastembed(bundled_model_path("gte-mini"), INT8, batch_size=256)

    def embeddings(content: dict[str, Any]) -> dict[str, Any]:
        return _base64_rows([row.astype(np.float32) for row in embed([content["input"]])])

    app = FastAPI()
    app.add_api_route("/v1/embeddings", embeddings, methods=["POST"])
    _serve(app)


def _base64_rows(rows: Iterable[Any]) -> dict[str, Any]:
    return {"data": [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(rows)]}


def _serve(app: Any) -> None:
    import uvicorn

    from gte_sdk.server.http.listening import bind

    listener = bind("127.0.0.1", 0)
    listener.listen()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _round(latencies: list[float], errors: int, seconds: float, cpu_ms: float, peak: float, growth: float) -> Round:
    median, p99 = np.percentile(np.array(latencies) * 1000, [50, 99]).tolist()
    return Round(len(latencies) / seconds, median, p99, errors, cpu_ms, peak, growth)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--words", type=int, nargs=2, default=(5, 40), help="the least and the most words of a text")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    parser.add_argument("--serve", choices=("gte_sdk", "fastembed"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
