"""A small folder, a tiny model, and workspaces on them, for the tests of agents."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gte_sdk import Embedder
from gte_sdk.agents.requests import parse_request
from gte_sdk.agents.workspace import Workspace
from gte_sdk.passages.store import Settings

COLOURS = "# red\n\nred red red\n\n## blue\n\nblue\nblue fast\n"


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "colours.md").write_text(COLOURS, encoding="utf-8")
    (folder / "code.py").write_text("def green():\n    return green\n", encoding="utf-8")
    (folder / "notes.txt").write_text("slow slow slow\n", encoding="utf-8")
    (folder / ".secret").write_text("red\n", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


@contextlib.contextmanager
def workspace_of(folder: Path, model: Path, cache: Path, index: Path | None = None) -> Iterator[Workspace]:
    settings = Settings(str(model), "", 0, (str(folder.resolve()),))
    workspace = Workspace(settings, lambda: Embedder(model, truncation="ignore"), index, cache)
    try:
        yield workspace
    finally:
        workspace.close()


def answer(workspace: Workspace, tool: str, **arguments: Any) -> dict[str, Any]:
    """The answer after whatever update is due."""
    update = workspace.refresh()
    if update is not None:
        update.result(60)
    return workspace.run(parse_request(tool, arguments)).result(60)
