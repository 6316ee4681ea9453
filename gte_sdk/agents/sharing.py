"""Finds a `gte serve --socket` of the same user, and asks it, so that many processes share one model.

The server leaves a note in the user's runtime folder: its version, its socket, its models by fingerprint. Note, folder
and socket are believed only if they belong to this user and nobody else has any right to them. Whatever does not fit or
does not answer counts as no server, and the caller opens the model itself. Standard library only.
"""

import base64
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gte_sdk
from gte_sdk.errors import InputError
from gte_sdk.model_files.user_cache import indexes_folder

TOOLS_PATH = "/v1/tools"
_NOTE = "server.json"
_MOST_NOTE_BYTES = 65_536
# A little longer than a call waits for an update of the index.
_ANSWER_SECONDS = 30.0
_MOST_ANSWER_BYTES = 4 * 2**20


class SharedServer(NamedTuple):
    socket: str
    model: str
    """The name of the model on the server."""


def note_path() -> Path | None:
    """Where a server leaves its note; None on a system or for a user that has no place for it."""
    if sys.platform == "win32":
        return None
    named = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if named.is_absolute():
        return named / "gte-sdk" / _NOTE
    cache = indexes_folder()
    return None if cache is None else cache.parent / "run" / _NOTE


def leave_note(socket_path: Path, models: Mapping[str, str]) -> None:
    """Tells other processes of this user about a server. `models` has names by fingerprint.

    Raises OSError where the folder cannot be written.
    """
    path = note_path()
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)  # else the note would not be believed
    note = {"version": gte_sdk.__version__, "socket": str(socket_path), "models": dict(models)}
    temporary = path.with_name(f".{_NOTE}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(note, file)
    temporary.replace(path)


def remove_note(socket_path: Path) -> None:
    """Takes the note of a server back, unless another server has left its own since."""
    path = note_path()
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        if path is not None and json.loads(path.read_bytes())["socket"] == str(socket_path):
            path.unlink()


def find_server(fingerprint: str) -> SharedServer | None:
    """Returns the running server of this user, if it has this version and this model."""
    path = note_path()
    if path is None or sys.platform == "win32":
        return None
    try:
        if not _is_ours(path.parent, stat.S_ISDIR) or not _is_ours(path, stat.S_ISREG):
            return None
        with path.open("rb") as file:
            note = json.loads(file.read(_MOST_NOTE_BYTES))
        if note["version"] != gte_sdk.__version__ or not _is_ours(Path(note["socket"]), stat.S_ISSOCK):
            return None
        return SharedServer(str(note["socket"]), str(note["models"][fingerprint]))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def embedded_by_server(fingerprint: str, dim: int, text: str) -> NDArray[np.float32] | None:
    """Returns the vector of a question, (dim,), from the running server; None if there is none that fits."""
    server = find_server(fingerprint)
    if server is None:
        return None
    request = {"model": server.model, "input": text, "input_type": "query", "encoding_format": "base64"}
    answer = _post(server, "/v1/embeddings", request)
    with contextlib.suppress(ValueError, TypeError, LookupError):
        vector_D = np.frombuffer(base64.b64decode(answer[1]["data"][0]["embedding"]), "<f4").astype(np.float32)
        if answer[0] == 200 and vector_D.shape == (dim,) and np.isfinite(vector_D).all():
            return vector_D
    return None


def answered_by_server(
    fingerprint: str, target: Mapping[str, Any], tool: str, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what the running server answers to a call of a tool; None if there is no server that fits.

    Args:
        fingerprint: Of the model.
        target: What to search, as `Target` in gte_sdk/server/searches.py has it.
        tool: One of requests.TOOLS.
        arguments: Of the tool, checked.

    Raises:
        InputError: The server refuses what was asked for.
    """
    server = find_server(fingerprint)
    if server is None:
        return None
    request = {"version": gte_sdk.__version__, "fingerprint": fingerprint, **target}
    status, answer = _post(server, TOOLS_PATH, {**request, "tool": tool, "arguments": dict(arguments)})
    if status == 422:
        raise InputError(str(answer["error"]["message"]))
    return answer if status == 200 else None


def _post(server: SharedServer, path: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Returns status and JSON; status 0 if the server does not answer."""
    import http.client  # here, because every command imports this module

    connection = http.client.HTTPConnection("localhost", timeout=_ANSWER_SECONDS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # type: ignore[attr-defined, unused-ignore]
        connection.sock.settimeout(_ANSWER_SECONDS)
        connection.sock.connect(server.socket)
        connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read(_MOST_ANSWER_BYTES))
        return (response.status, answer) if isinstance(answer, dict) else (0, {})
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return 0, {}
    finally:
        connection.close()


def _is_ours(path: Path, is_kind: Any) -> bool:
    assert sys.platform != "win32"
    status = path.lstat()
    return is_kind(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
