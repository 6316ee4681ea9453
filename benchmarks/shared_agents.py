"""What many `gte mcp` processes take, with and without a `gte serve --socket`: memory, time of a call, CPU when idle.

python -m benchmarks.shared_agents FOLDER [--clients 16] [--alone]

Memory is PSS (/proc/PID/smaps_rollup, Linux): pages that processes share are divided among them. It is read before the
first call and after the last, so that the difference is what searching adds to the Python processes themselves.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters

IDLE_SECONDS = 20.0
ROUNDS = 20


def pss_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 1024


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(parent: int) -> set[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()}


async def search(client: Client, query: str) -> Any:
    result: Any = await client.call_tool("search", {"query": query, "k": 5})
    assert not result.is_error, result.content
    return result.structured_content


async def measure(folder: Path, client_count: int, environment: dict[str, str], server: int | None) -> None:
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "gte_sdk.cli", "mcp", str(folder)], env=environment
    )
    others = children_of(os.getpid())
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(command, read_timeout_seconds=300)) for _ in range(client_count)
        ]
        agents = sorted(children_of(os.getpid()) - others)
        assert len(agents) == client_count
        everyone = [*agents, *([server] if server else [])]
        before = sum(map(pss_mb, agents))
        while (await search(clients[0], "a first question"))["index"]["state"] != "ready":
            pass
        seconds = []
        for turn in range(ROUNDS):
            for number, client in enumerate(clients):
                started = time.perf_counter()
                await search(client, f"question {turn} of agent {number}")
                seconds.append(time.perf_counter() - started)
        seconds.sort()
        print(f"one call at a time, ms: median {1e3 * seconds[len(seconds) // 2]:.1f}, most {1e3 * seconds[-1]:.1f}")
        after = sum(map(pss_mb, agents))
        print(f"PSS of {client_count} gte mcp, MB: {before:.0f} before the first call, {after:.0f} after the last")
        if server:
            shared = pss_mb(server)
            print(f"PSS of gte serve, MB: {shared:.0f}; beside the agents' own: {after - before + shared:.0f}")
        used = [cpu_seconds(process) for process in everyone]
        await asyncio.sleep(IDLE_SECONDS)
        idle = [cpu_seconds(process) - earlier for process, earlier in zip(everyone, used, strict=True)]
        print(f"CPU when idle, % of a core: agents {100 * max(idle[:client_count]) / IDLE_SECONDS:.2f} at most")
        if server:
            print(f"CPU when idle, % of a core: server {100 * idle[-1] / IDLE_SECONDS:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--alone", action="store_true", help="without a server: every process opens the model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as user, contextlib.ExitStack() as stack:
        places = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), user)
        environment = {**os.environ, **places}
        server = None
        if not options.alone:
            command = [sys.executable, "-m", "gte_sdk.cli", "serve", "--port", "0", "--socket", f"{user}/gte.sock"]
            process = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            assert process.stderr is not None
            next(line for line in process.stderr if "serving" in line)
            server = process.pid
        asyncio.run(measure(options.folder.resolve(), options.clients, environment, server))


if __name__ == "__main__":
    main()
