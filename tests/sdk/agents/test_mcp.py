"""`gte mcp` as its users have it: the official client over standard streams and over HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..tiny_models import write_tiny_model
from .folders import write_folder

pytest.importorskip("mcp", reason="the official MCP package is not installed")

import mcp_types
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

SECONDS = 300.0  # on a machine that does other things


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "folder")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    places = dict.fromkeys(("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LOCALAPPDATA", "HOME"), str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    return {**os.environ, **places}


def started(environment: dict[str, str], *arguments: str | Path) -> StdioServerParameters:
    command = ["-m", "gte_sdk.cli", "mcp", *map(str, arguments)]
    return StdioServerParameters(command=sys.executable, args=command, env=environment)


@contextlib.asynccontextmanager
async def client_of(server: Any, mode: str = "auto") -> AsyncIterator[Client]:
    async with Client(server, mode=mode, read_timeout_seconds=SECONDS) as client:
        yield client


async def called(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer, which the client has checked against the tool's schema; its text is the same as JSON."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, mcp_types.CallToolResult)
    (content,) = result.content
    assert isinstance(content, mcp_types.TextContent)
    assert not result.is_error, content.text
    assert json.loads(content.text) == result.structured_content
    answer: dict[str, Any] = result.structured_content
    return answer


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, mcp_types.CallToolResult)
    assert result.is_error
    assert result.structured_content is None
    (content,) = result.content
    assert isinstance(content, mcp_types.TextContent)
    text: str = content.text
    return text


async def check_tools(client: Client, folder: Path) -> None:
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == ["search", "read_passage", "similar", "index_status"]
    assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
    found = await called(client, "search", query="blue", k=1, mode="meaning")
    assert found["index"] == {"state": "ready"}
    (best,) = found["passages"]
    assert (best["path"], best["line"], best["breadcrumb"]) == (str(folder / "colours.md"), 5, "red")
    assert best["text"] == "## blue\n\nblue\nblue fast"
    assert -1 <= best["score"] <= 1.0001
    assert (await called(client, "read_passage", path=best["path"], line=7))["text"] == "blue\nblue fast"
    assert (await called(client, "similar", path=best["path"], line=5, k=1))["passages"][0]["path"] != ""
    assert (await called(client, "index_status"))["files"] == 3


async def check_refusals(client: Client) -> None:
    """Every wrong call is one error, and the next call is answered."""
    assert "at least 1 and at most 50" in await refused(client, "search", query="red", k=0)
    assert "at least 1 and at most 50" in await refused(client, "search", query="red", k=10**9)
    assert await refused(client, "search", query=5) == "query is a int; give a text"
    assert await refused(client, "search") == "query is missing"
    assert "give at most 8,192" in await refused(client, "search", query="x" * 500_000)
    for path in ("../../../../etc/passwd", "/etc/passwd", ".secret", "a\0b", "x" * 4000):
        assert "no file" in await refused(client, "read_passage", path=path)
    assert "'depth' is not an argument" in await refused(client, "index_status", depth=9)
    with pytest.raises(MCPError, match="there is no tool 'shell'; there are search"):
        await client.call_tool("shell", {"command": "ls"})
    assert (await called(client, "index_status"))["state"] == "ready"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_over_standard_streams(
    model: Path, folder: Path, environment: dict[str, str], mode: str
) -> None:
    async def run() -> None:
        async with client_of(started(environment, folder, "--model", model), mode) as client:
            assert client.server_info.name == "gte"
            await check_tools(client, folder)
            await check_refusals(client)
            with pytest.raises(MCPError, match="the message has more than 1048576 bytes; send less"):
                await client.call_tool("search", {"query": "x" * 3_000_000})
            await check_tools(client, folder)

    asyncio.run(run())


def test_many_calls_at_once_are_all_answered(model: Path, folder: Path, environment: dict[str, str]) -> None:
    async def run() -> None:
        async with client_of(started(environment, folder, "--model", model)) as client:
            queries = ["red", "blue", "green", "slow"] * 8
            calls = [called(client, "search", query=query, mode="meaning") for query in queries]
            answers = await asyncio.gather(*calls)
            for query, found in zip(queries, answers, strict=True):
                assert found["passages"] == (await called(client, "search", query=query, mode="meaning"))["passages"]

    asyncio.run(run())


def test_an_index_is_served_too(model: Path, folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    index = tmp_path / "notes.index"
    command = [sys.executable, "-m", "gte_sdk.cli", "index", str(folder), "-o", str(index), "--model", str(model)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=SECONDS)

    async def run() -> None:
        async with client_of(started(environment, index)) as client:
            await check_tools(client, folder)

    asyncio.run(run())


def test_standard_output_is_the_protocol_and_the_end_of_input_ends_it(
    model: Path, folder: Path, environment: dict[str, str]
) -> None:
    (folder / "document.html").write_text("<p>red</p>", encoding="utf-8")  # is read by a process of its own
    call = {"name": "search", "arguments": {"query": "red"}}
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    command = [sys.executable, "-m", "gte_sdk.cli", "mcp", str(folder), "--model", str(model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for message in (
            {"id": 1, "method": "initialize", "params": client},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": call},
        ):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            process.stdin.flush()
            if "id" in message:
                answers.append(json.loads(process.stdout.readline()))
        rest, said = process.communicate(timeout=SECONDS)
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["passages"]
    assert (rest, process.returncode) == (b"", 0)
    assert said == b""


@contextlib.contextmanager
def http_server(environment: dict[str, str], *arguments: str | Path) -> Iterator[str]:
    command = [sys.executable, "-m", "gte_sdk.cli", "mcp", "--http", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "serving" in line)
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) in (0, 1, 143)  # 1: as Windows ends a process


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_over_http(model: Path, folder: Path, environment: dict[str, str], mode: str) -> None:
    async def run(url: str) -> None:
        async with client_of(url, mode) as first, client_of(url, mode) as second:
            for client in (first, second):
                await check_tools(client, folder)
                await check_refusals(client)

    with http_server(environment, folder, "--model", model) as url:
        asyncio.run(run(url))


def test_over_http_a_key_is_asked_for(model: Path, folder: Path, environment: dict[str, str]) -> None:
    httpx = pytest.importorskip("httpx2")

    async def status(url: str, **headers: str) -> int:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            return int((await client.post(url, json=message, headers=headers)).status_code)

    async def run(url: str) -> None:
        assert await status(url) == 401
        assert await status(url, authorization="Bearer other") == 401
        headers = {"authorization": "Bearer key"}
        async with (
            httpx.AsyncClient(timeout=SECONDS, headers=headers) as http,
            client_of(streamable_http_client(url, http_client=http)) as client,
        ):
            await check_tools(client, folder)

    with http_server({**environment, "GTE_API_KEY": "key"}, folder, "--model", model) as url:
        asyncio.run(run(url))


def test_over_http_another_host_name_is_refused(model: Path, folder: Path, environment: dict[str, str]) -> None:
    httpx = pytest.importorskip("httpx2")
    with http_server(environment, folder, "--model", model) as url:
        answer = httpx.post(url, json={}, headers={"host": "attacker.example"}, timeout=SECONDS)
        assert answer.status_code == 403


def test_options_that_do_not_fit_are_errors(model: Path, folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "gte_sdk.cli", "mcp", str(folder), "--port", "9"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "--port needs --http" in finished.stderr
