"""Throughput of `gte serve` under concurrent clients that send one text at a time, with and without micro-batching.

The third server is what a program usually has: a route that calls `Embedder.embed` for each request in a thread pool.
All three run the same model in a process of their own, in turns, and answer base64; the clients share this machine.

    python benchmarks/server.py --clients 64 --seconds 8 --rounds 3
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8").split()
GTE = [sys.executable, "-m", "gte_sdk.cli", "serve", "--port", "0"]
SERVERS = {
    "micro-batching": GTE,
    "no micro-batching": [*GTE, "--no-micro-batching"],
    "one call per request": [sys.executable, __file__, "--call-per-request"],
}
WARM_UP_SECONDS = 1.0


class Round(NamedTuple):
    requests_per_second: float
    median_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    """Processor time of the server for each request; other programs on the machine hardly move it."""
    resident_mb: float


def main() -> None:
    options = _options()
    if options.call_per_request:
        serve_one_call_per_request()
        return
    rounds: dict[str, list[Round]] = {name: [] for name in SERVERS}
    for number in range(options.rounds):
        for name in random.Random(number).sample(list(SERVERS), len(SERVERS)):
            with running(SERVERS[name]) as (port, process_id):
                before = cpu_seconds(process_id)
                latencies, errors, count = asyncio.run(load(port, options.clients, options.seconds))
                cpu_ms = 1000 * (cpu_seconds(process_id) - before) / count
                rounds[name].append(_round(latencies, errors, options.seconds, cpu_ms, resident_mb(process_id)))
            print(f"round {number + 1}, {name}: {rounds[name][-1].requests_per_second:.0f} requests/s", file=sys.stderr)
    results = {
        name: Round(*(statistics.median(column) for column in zip(*of, strict=True))) for name, of in rounds.items()
    }
    print(
        f"{options.clients} clients, one text of 5 to 40 words each, {options.seconds:g} s, median of {options.rounds}"
    )
    print(f"{'server':24}{'requests/s':>12}{'median ms':>12}{'p99 ms':>10}{'errors':>8}{'CPU ms':>8}{'MB':>8}")
    for name, result in results.items():
        print(
            f"{name:24}{result[0]:>12.0f}{result[1]:>12.1f}{result[2]:>10.1f}{result[3]:>8.0f}{result[4]:>8.2f}{result[5]:>8.0f}"
        )
    batching = results["micro-batching"].requests_per_second
    ratios = {f"micro-batching / {name}": batching / results[name].requests_per_second for name in list(SERVERS)[1:]}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    print(json.dumps({"results": {k: v._asdict() for k, v in results.items()}, "ratios": ratios, **machine}))


async def load(port: int, clients: int, seconds: float) -> tuple[list[float], int, int]:
    """Latencies in seconds after the warm-up, how many of those requests were no 200, and how many were sent at all."""
    latencies: list[float] = []
    errors = count = 0
    start = time.perf_counter() + WARM_UP_SECONDS
    end = start + seconds

    async def client(number: int) -> None:
        nonlocal errors, count
        choice = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) < end:
            text = " ".join(choice.choices(WORDS, k=choice.randint(5, 40)))
            status = await ask(reader, writer, text)
            count += 1
            if sent >= start:
                latencies.append(time.perf_counter() - sent)
                errors += status != 200
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies, errors, count


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> int:
    """One request over an open connection; the status of its answer."""
    body = json.dumps({"model": "gte-mini", "input": text, "encoding_format": "base64"}).encode("ascii")
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode("ascii") + body)
    header = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(header[9:12])


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


def resident_mb(process_id: int) -> float:
    """The largest resident size so far, from /proc (Linux)."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def serve_one_call_per_request() -> None:
    """The usual server: a route in a thread pool that calls the embedder on the texts of its request."""
    import base64

    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from gte_sdk import Embedder
    from gte_sdk.server.connection import bind

    embedder = Embedder()

    async def embeddings(request: Request) -> JSONResponse:
        content: dict[str, Any] = await request.json()
        vectors_ND = await run_in_threadpool(embedder.embed, [content["input"]])
        data = [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(vectors_ND)]
        return JSONResponse({"data": data})

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    listener = bind("127.0.0.1", 0)
    listener.listen()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _round(latencies: list[float], errors: int, seconds: float, cpu_ms: float, resident: float) -> Round:
    median, p99 = np.percentile(np.array(latencies) * 1000, [50, 99]).tolist()
    return Round(len(latencies) / seconds, median, p99, errors, cpu_ms, resident)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call-per-request", action="store_true", help="run the third server; used by the benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    main()
