"""The routes that search passage indexes: those that the server was started with, and over the socket the user's own.

`POST /v1/search` searches an index by its name. `POST /v1/tools` answers the tools of agents for any folders or index,
and only over the Unix socket: who can open that may read these files anyway. Each index is opened at its first call,
updated and searched in threads of its own, and leaves the memory when it is idle.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response

import gte_sdk
from gte_sdk.agents.requests import TOOLS, parse_request
from gte_sdk.agents.waiting import answered
from gte_sdk.agents.workspace import Workspace
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import GteError, InputError, ModelMismatchError
from gte_sdk.passages.store import PassageStore
from gte_sdk.passages.store import Settings as PassageSettings
from gte_sdk.server.http.body import read_body
from gte_sdk.server.http.gate import HOLD, is_from_user
from gte_sdk.server.http.refusal import Refusal, invalid
from gte_sdk.server.requests import parse_json
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request

MOST_WORKSPACES = 64
"""Indexes of which something is open. The one that was not asked for longest is closed for another."""
MOST_CALLS = 256
"""Calls in progress; further ones get a 429."""
MOST_BODY_BYTES = 2**17
_LISTS = ("folders", "globs", "excludes", "types")
_OTHERS = {"version": str, "fingerprint": str, "model": str, "tool": str, "arguments": dict, "ignore_files": bool}
_MOST_ENTRIES = 1000


class Target(NamedTuple):
    """What a call searches."""

    fingerprint: str | None
    """Of the model; None for that of the index."""
    index_path: str | None
    """A passage index that somebody keeps; None for the folders."""
    folders: tuple[str, ...]
    """Absolute paths."""
    globs: tuple[str, ...]
    excludes: tuple[str, ...]
    types: tuple[str, ...]
    ignore_files: bool
    model: str
    """The name that an index of the folders keeps."""


class _Open:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.calls = 0


class Searches:
    """All indexes of one server, with its models."""

    def __init__(
        self, embedders: Sequence[Embedder], settings: Settings, indexes: Mapping[str, Path], cache: Path | None
    ) -> None:
        self.calls = 0
        self._embedders = {embedder.fingerprint: embedder for embedder in embedders}
        self._settings = settings
        self._indexes = {name: str(path.resolve()) for name, path in indexes.items()}
        self._cache = cache
        self._open: dict[Target, _Open] = {}  # the one that was asked for last at the end

    async def search(self, request: "Request") -> Response:
        """POST /v1/search"""
        content = await self._content(request)
        name = content.pop("index", None)
        if not isinstance(name, str) or name not in self._indexes:
            known = ", ".join(self._indexes)
            raise Refusal(404, f"this server has no index {name!r:.80}; it has {known}", code="index_not_found")
        target = Target(None, self._indexes[name], (), (), (), (), True, "")
        answer = await self._answer(target, "search", content)
        return _json({"object": "list", "index": name, "data": answer["passages"]})

    async def tools(self, request: "Request") -> Response:
        """POST /v1/tools"""
        if not is_from_user(request.scope, self._settings):
            raise Refusal(404, "POST /v1/tools is answered on the Unix socket only", code="not_found")
        content = await self._content(request)
        target = _target_of(content)
        if content["version"] != gte_sdk.__version__ or content["fingerprint"] not in self._embedders:
            raise Refusal(409, "this server has another version or model", code="other_model")
        return _json(await self._answer(target, content["tool"], content["arguments"]))

    async def close(self) -> None:
        """Ends every update after its batch, and closes all indexes."""
        loop = asyncio.get_running_loop()
        closing = [loop.run_in_executor(None, each.workspace.close) for each in self._open.values()]
        await asyncio.gather(*closing)

    async def _content(self, request: "Request") -> dict[str, Any]:
        hold = request.scope[HOLD]
        body = await read_body(request, self._settings, hold)
        if len(body) > MOST_BODY_BYTES:
            raise Refusal(413, f"the body exceeds {MOST_BODY_BYTES} bytes", code="body_too_large")
        return parse_json(body, self._settings)

    async def _answer(self, target: Target, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.calls >= MOST_CALLS:
            message = f"{self.calls} searches are in progress; try again later"
            raise Refusal(429, message, code="queue_full", headers={"Retry-After": "1"})
        self.calls += 1
        try:
            parsed = parse_request(tool, arguments)
            opened = await self._opened(target)
            opened.calls += 1
            try:
                return await answered(opened.workspace, parsed)
            finally:
                opened.calls -= 1
        except ModelMismatchError as error:
            raise Refusal(409, str(error), code="other_model") from error
        except InputError as error:
            raise invalid(str(error), None) from error
        except (GteError, OSError) as error:
            raise Refusal(500, str(error), code="index_unusable") from error
        finally:
            self.calls -= 1

    async def _opened(self, target: Target) -> _Open:
        opened = self._open.pop(target, None)
        if opened is None:
            if len(self._open) >= MOST_WORKSPACES:
                idle = next((key for key, each in self._open.items() if not each.calls), None)
                if idle is None:
                    raise Refusal(429, "too many indexes are in use", code="queue_full", headers={"Retry-After": "1"})
                asyncio.get_running_loop().run_in_executor(None, self._open.pop(idle).workspace.close)
            opened = _Open(self._workspace_of(target))
        self._open[target] = opened
        return opened

    def _workspace_of(self, target: Target) -> Workspace:
        _, index, folders, globs, excludes, types, ignore_files, model = target
        fingerprint = target.fingerprint
        if index is not None:
            with PassageStore(Path(index)) as store:
                settings = store.settings
            fingerprint = settings.fingerprint
        else:
            settings = PassageSettings(model, "", 0, folders, globs, excludes, types, ignore_files)
        embedder = self._embedders.get(fingerprint or "")
        if embedder is None:
            raise ModelMismatchError(f"the index is of {fingerprint}, which this server does not have")
        cache = self._cache if index is None else None
        return Workspace(settings, lambda: embedder, Path(index) if index is not None else None, cache)


def _target_of(content: Mapping[str, Any]) -> Target:
    """Checks a body of /v1/tools. Only our own clients write one, so that one message for all is enough."""
    lists = [content.get(name) for name in _LISTS]
    index = content.get("index")
    fits = (
        set(content) <= {*_LISTS, *_OTHERS, "index"}
        and all(isinstance(content.get(name), kind) for name, kind in _OTHERS.items())
        and all(isinstance(each, list) and len(each) <= _MOST_ENTRIES for each in lists)
        and all(isinstance(text, str) and "\0" not in text for each in lists for text in each or ())
        and (index is None or (isinstance(index, str) and "\0" not in index))
        and content["tool"] in TOOLS
        and all(Path(path).is_absolute() for path in [*(lists[0] or ()), *([index] if index else [])])
    )
    if not fits:
        raise Refusal(409, "this is no call of a tool by a client of the same version", code="other_client")
    folders, globs, excludes, types = (tuple(each or ()) for each in lists)
    return Target(
        content["fingerprint"], index, folders, globs, excludes, types, content["ignore_files"], content["model"]
    )


def _json(answer: Mapping[str, Any]) -> Response:
    return Response(json.dumps(answer).encode("ascii"), media_type="application/json")
