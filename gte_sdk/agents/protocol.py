"""The MCP server: the tools over a workspace, on standard streams or as an ASGI application for streamable HTTP.

Nothing here waits on the event loop: indexing and searching run in the workspace's threads. A call waits for changed
files to be indexed for a while, with progress notifications, and is then answered from what is there.
"""

import asyncio
import io
import json
import os
import re
from collections.abc import Callable, Mapping
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
from gte_sdk.agents.requests import TOOLS, parse_request
from gte_sdk.agents.tools import INSTRUCTIONS, tool_list
from gte_sdk.agents.waiting import answered
from gte_sdk.agents.workspace import Workspace
from gte_sdk.errors import GteError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_MESSAGE_BYTES = 2**20
"""Of one message on standard input, which is one line, and of one request over HTTP."""
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
AskServer = Callable[[str, Mapping[str, Any]], "dict[str, Any] | None"]
"""A tool and its arguments to the answer of a server that many processes share; None if none runs."""


def create_mcp_server(
    workspace: Workspace, describe: Describe = str, ask_server: AskServer | None = None
) -> Server[Any]:
    """Returns the MCP server of a workspace.

    Args:
        workspace: Answers the calls.
        describe: Words an error for the agent.
        ask_server: Is asked first, in a thread.
    """
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
        arguments = params.arguments or {}
        try:
            request = parse_request(params.name, arguments)
            answer = None if ask_server is None else await asyncio.to_thread(ask_server, params.name, arguments)
            if answer is None:
                answer = await answered(workspace, request, context.session.report_progress)
        except (GteError, OSError) as error:
            return CallToolResult(content=[TextContent(type="text", text=describe(error))], is_error=True)
        text = json.dumps(answer, ensure_ascii=False)
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=answer)

    return Server(
        "gte", version=gte_sdk.__version__, title="gte: search of your own files", instructions=INSTRUCTIONS,
        on_list_tools=list_tools, on_call_tool=call_tool,
    )  # fmt: skip


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
        self._has_handshake: bool | None = None  # not known before the first message, which decides

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        line = self._file.readline(MAX_MESSAGE_BYTES + 1)
        if self._has_handshake is None:
            self._has_handshake = _HANDSHAKE.search(line, 0, _HEAD_BYTES) is not None
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
