"""The MCP server: the tools over a workspace, on standard streams or as an ASGI application for streamable HTTP.

Nothing here waits on the event loop: indexing and searching run in the workspace's threads. A call waits for changed
files to be indexed for at most WAIT_SECONDS, with progress notifications, and is then answered from what is there.
"""

import asyncio
import io
import json
import os
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import IO, TYPE_CHECKING, Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

import gte_sdk
from gte_sdk.agents.requests import TOOLS, ToolRequest, parse_request
from gte_sdk.agents.tools import INSTRUCTIONS, tool_list
from gte_sdk.agents.workspace import Workspace
from gte_sdk.errors import GteError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

WAIT_SECONDS = 10.0
"""How long a call waits for an update of the index."""
MAX_MESSAGE_BYTES = 2**20
"""Of one message on standard input, which is one line, and of one request over HTTP."""
_PROGRESS_SECONDS = 0.5
# Where programs write the id of a message, before or after what may be long.
_ID_AT_START = re.compile(rb'\{"jsonrpc": ?"2.0", ?"id": ?(\d{1,18}|"[\w-]{1,64}"),')
_ID_AT_END = re.compile(rb'"id": ?(\d{1,18}|"[\w-]{1,64}")(?:, ?"jsonrpc": ?"2.0")?\}\s*$')
_ID_BYTES = 256
_TOO_LONG = "(a message that is too long)"
_HANDSHAKE = re.compile(rb'"method": ?"initialize"')
_HEAD_BYTES = 65_536
# Newer protocols have this in every request, and no handshake.
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN_PROTOCOL_VERSIONS[-1],
    "io.modelcontextprotocol/clientCapabilities": {},
}

Describe = Callable[[GteError | OSError], str]
Report = Callable[[float, float | None, str | None], Awaitable[None]]


def create_mcp_server(workspace: Workspace, describe: Describe = str) -> Server[Any]:
    """Returns the MCP server of a workspace. `describe` words an error for the agent."""
    tools = tool_list()

    async def list_tools(
        context: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        if params.name == _TOO_LONG:
            raise MCPError(INVALID_REQUEST, f"the message has more than {MAX_MESSAGE_BYTES} bytes; send less")
        if params.name not in TOOLS:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:80]!r}; there are {', '.join(TOOLS)}")
        try:
            request = parse_request(params.name, params.arguments or {})
            answer = await answered(workspace, request, context.session.report_progress)
        except (GteError, OSError) as error:
            return CallToolResult(content=[TextContent(type="text", text=describe(error))], is_error=True)
        text = json.dumps(answer, ensure_ascii=False)
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=answer)

    return Server(
        "gte", version=gte_sdk.__version__, title="gte: search of your own files", instructions=INSTRUCTIONS,
        on_list_tools=list_tools, on_call_tool=call_tool,
    )  # fmt: skip


async def answered(workspace: Workspace, request: ToolRequest, report: Report) -> dict[str, Any]:
    """Returns the answer to a request, after the changed files are indexed or WAIT_SECONDS have passed."""
    update = workspace.refresh()
    if update is not None:
        await _updated(workspace, update, report)
    return await asyncio.wrap_future(workspace.run(request))


async def _updated(workspace: Workspace, update: "Future[None]", report: Report) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS
    done = asyncio.Event()
    update.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set) if not loop.is_closed() else None)
    shown = -1
    while not done.is_set() and loop.time() < deadline:
        try:
            await asyncio.wait_for(done.wait(), _PROGRESS_SECONDS)
        except asyncio.TimeoutError:
            progress = workspace.progress
            if progress is not None and progress.done > shown:  # by the protocol, progress increases
                shown = progress.done
                counted = f"indexing: {shown:,} of {progress.total:,} files" if progress.total else "looking for files"
                await report(shown, progress.total or None, counted)
    if update.done():
        update.result()


async def serve_standard_streams(server: Server[Any]) -> None:
    """Serves one client on standard input and output until its end. Whatever else is printed goes to standard error."""
    # Programs that are started meanwhile, such as the readers of documents, must not read the client's messages.
    wire = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    with os.fdopen(wire, "rb", closefd=False) as messages:
        lines: Any = _BoundedLines(messages)
        async with stdio_server(stdin=anyio.wrap_file(lines)) as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())


def http_application(server: Server[Any], host: str) -> "ASGIApp":
    """Returns the server as an ASGI application with the path /mcp. It keeps no sessions."""
    app: ASGIApp = server.streamable_http_app(host=host, stateless_http=True, max_request_body_size=MAX_MESSAGE_BYTES)
    return app


class _BoundedLines(io.TextIOBase):
    """Lines of a binary file as text. For one that is too long, a request with its id that is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._has_handshake = False

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        line = self._file.readline(MAX_MESSAGE_BYTES + 1)
        self._has_handshake = self._has_handshake or _HANDSHAKE.search(line, 0, _HEAD_BYTES) is not None
        if len(line) <= MAX_MESSAGE_BYTES:
            return line.decode("utf-8", "replace")
        head = end = line
        while line and not line.endswith(b"\n"):
            line = self._file.readline(MAX_MESSAGE_BYTES)
            end = (end + line)[-_ID_BYTES:]
        identifier = _ID_AT_START.match(head) or _ID_AT_END.search(end)
        replacement = {
            "jsonrpc": "2.0",
            "id": json.loads(identifier[1]) if identifier else None,
            "method": "tools/call",
            "params": {"name": _TOO_LONG, **({} if self._has_handshake else {"_meta": _ENVELOPE})},
        }
        return json.dumps(replacement) + "\n"
