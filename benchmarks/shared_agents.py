"""What many MCP clients take: memory, time of a call, CPU when idle.

python -m benchmarks.shared_agents FOLDER [--clients 16] [--http | --alone]

Each client starts a `gte mcp` of its own, and these share the model of one `gte serve --socket`. With --http, all ask
one `gte mcp --http`. With --alone there is no server, and each `gte mcp` opens the model itself.

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


async def measure(target: str | StdioServerParameters, client_count: int, server: int | None) -> None:
    """Asks `target` from many clients: a URL of one process, or the command that each client starts."""
    others = children_of(os.getpid())
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(target, read_timeout_seconds=300)) for _ in range(client_count)
        ]
        agents = sorted(children_of(os.getpid()) - others)
        assert len(agents) == (0 if isinstance(target, str) else client_count)
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
        if agents:
            print(f"PSS of {client_count} gte mcp, MB: {before:.0f} before the first call, {after:.0f} after the last")
        if server:
            shared = pss_mb(server)
            print(f"PSS of the server, MB: {shared:.0f}; beside the agents' own: {after - before + shared:.0f}")
        everyone = [*agents, *([server] if server else [])]
        used = [cpu_seconds(process) for process in everyone]
        await asyncio.sleep(IDLE_SECONDS)
        idle = [cpu_seconds(process) - earlier for process, earlier in zip(everyone, used, strict=True)]
        print(f"CPU when idle, % of a core: {100 * max(idle) / IDLE_SECONDS:.2f} at most, of {len(idle)} processes")


def start_server(stack: contextlib.ExitStack, arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The process of a server, and the line in which it says that it serves."""
    command = [sys.executable, "-m", "gte_sdk.cli", *arguments]
    process = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stderr is not None
    return process.pid, next(line for line in process.stderr if "serving" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--http", action="store_true", help="all clients ask one process over HTTP")
    way.add_argument("--alone", action="store_true", help="without a server: every process opens the model")
    options = parser.parse_args()
    folder = str(options.folder.resolve())
    with tempfile.TemporaryDirectory() as user, contextlib.ExitStack() as stack:
        environment = {**os.environ, **dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), user)}
        target: str | StdioServerParameters = StdioServerParameters(
            command=sys.executable, args=["-m", "gte_sdk.cli", "mcp", folder], env=environment
        )
        server = None
        if options.http:
            server, line = start_server(stack, ["mcp", folder, "--http", "--port", "0"], environment)
            target = line.split()[-1]
        elif not options.alone:
            server, _ = start_server(stack, ["serve", "--port", "0", "--socket", f"{user}/gte.sock"], environment)
        asyncio.run(measure(target, options.clients, server))


if __name__ == "__main__":
    main()
