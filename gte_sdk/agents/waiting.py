"""Answers from an event loop: a call waits for changed files to be indexed, but not for long."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from gte_sdk.agents.requests import ToolRequest
from gte_sdk.agents.workspace import Workspace

WAIT_SECONDS = 10.0
"""How long a call waits for an update of the index. Then it is answered from what is there."""
_PROGRESS_SECONDS = 0.5

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""Is told of files done, of all files to read (None as long as they are counted), and the same in words."""


async def answered(workspace: Workspace, request: ToolRequest, report: Report | None = None) -> dict[str, Any]:
    """Returns the answer to a request. Raises what the workspace raises."""
    update = workspace.refresh()
    if update is not None:
        await _updated(workspace, update, report)
    return await asyncio.wrap_future(workspace.run(request))


async def _updated(workspace: Workspace, update: "Future[None]", report: Report | None) -> None:
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
            if report is not None and progress is not None and progress.done > shown:  # in MCP, progress increases
                shown = progress.done
                counted = f"indexing: {shown:,} of {progress.total:,} files" if progress.total else "looking for files"
                await report(shown, progress.total or None, counted)
    if update.done():
        update.result()
