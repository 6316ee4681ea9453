"""One server for many processes: the Unix socket, the note by which it is found, and searches of passage indexes."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import gte_sdk
from gte_sdk import Embedder
from gte_sdk.agents import sharing
from gte_sdk.errors import InputError
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.updating import update_index
from gte_sdk.server import Settings as ServerSettings
from gte_sdk.server.http.listening import unix_socket

from .servers import ServerProcess, gte_serve, refused

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

TEXTS = {
    "roof.md": "# Roof\n\nThe north side leaks where the chimney meets the tiles.\n",
    "cats.md": "# Cats\n\nA kitten sleeps for most of the day.\n",
    "net.py": "def bind():\n    raise OSError(EADDRINUSE)\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "notes.index"
    settings = Settings("gte-mini", embedder.fingerprint, embedder.dim, (str(folder),))
    with PassageStore(path, settings) as store:
        update_index(store, embedder, print, lambda done, total: None)
    return path


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def environment(user: Path) -> dict[str, str]:
    return dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), str(user))


@pytest.fixture(scope="module")
def server(user: Path, index: Path, environment: dict[str, str]) -> Iterator[ServerProcess]:
    arguments = ["--socket", str(user / "gte.sock"), "--index", f"notes={index}"]
    with gte_serve(*arguments, environment=environment) as started:
        yield started


@pytest.fixture
def at_home(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user))


def gte(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gte_sdk.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=600
    )


def test_an_index_is_searched_by_its_name(server: ServerProcess, folder: Path) -> None:
    def search(**fields: Any) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/search", json=fields)

    answer = search(index="notes", query="water comes in through the top of the house", k=1).json()
    assert (answer["object"], answer["index"]) == ("list", "notes")
    (best,) = answer["data"]
    assert (best["path"], best["line"], best["breadcrumb"]) == (str(folder / "roof.md"), 1, "")
    assert "chimney" in best["text"]
    assert search(index="notes", query="EADDRINUSE").json()["data"][0]["path"] == str(folder / "net.py")
    assert refused(search(index="others", query="red")) == (404, "index_not_found", None)
    assert refused(search(query="red")) == (404, "index_not_found", None)
    for wrong in ({"k": 0}, {"k": 10**9}, {"query": 5}, {"query": ""}, {"mode": "none"}, {"limit": 2}):
        assert refused(search(**{"index": "notes", "query": "red", **wrong})) == (422, "invalid_value", None)
    assert refused(search(index="notes", query="x" * 200_000)) == (413, "body_too_large", None)
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert document["components"]["schemas"]["SearchRequest"]["properties"]["index"]["enum"] == ["notes"]
    assert 'route="/v1/search",status="200"' in httpx.get(f"{server.url}/metrics").text


def test_without_an_index_there_is_no_such_route(url: str) -> None:
    assert httpx.post(f"{url}/v1/search", json={}).status_code == 404
    assert "/v1/search" not in httpx.get(f"{url}/openapi.json").json()["paths"]


def test_an_index_of_another_model_is_refused(index: Path, embedder: Embedder, tmp_path: Path) -> None:
    settings = Settings("other", "sha256:other", embedder.dim, (str(tmp_path),))
    with PassageStore(tmp_path / "other.index", settings):
        pass
    from gte_sdk.server import create_app  # the application itself, without a process

    transport = httpx.ASGITransport(create_app(embedder, ServerSettings("m"), {"o": tmp_path / "other.index"}))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/search", json={"index": "o", "query": "red"})

    assert refused(asyncio.run(ask()))[:2] == (409, "other_model")


def test_the_socket_is_for_its_user_alone(server: ServerProcess, user: Path) -> None:
    path = user / "gte.sock"
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    note = user / "gte-sdk" / "server.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    body = {"version": gte_sdk.__version__, "tool": "index_status"}
    assert refused(httpx.post(f"{server.url}/v1/tools", json=body)) == (404, "not_found", None)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as client:
        assert client.get("http://localhost/health").json()["status"] == "ok"
        assert refused(client.post("http://localhost/v1/tools", json=body)) == (409, "other_client", None)


@pytest.mark.usefixtures("at_home", "server")
def test_a_question_is_embedded_by_the_server_with_the_same_bits(embedder: Embedder) -> None:
    vector_D = sharing.embedded_by_server(embedder.fingerprint, embedder.dim, "where is the leak?")
    assert vector_D is not None
    np.testing.assert_array_equal(vector_D, embedder.embed_query("where is the leak?"))
    assert sharing.embedded_by_server("sha256:other", embedder.dim, "a text") is None
    assert sharing.embedded_by_server(embedder.fingerprint, 7, "a text") is None


@pytest.mark.usefixtures("at_home", "server")
def test_tools_of_agents_are_answered_for_any_folder(embedder: Embedder, folder: Path, index: Path) -> None:
    folders = {
        "index": None, "folders": [str(folder)], "globs": [], "excludes": [], "types": [], "ignore_files": True,
        "model": "gte-mini",
    }  # fmt: skip
    for target in (folders, {**folders, "folders": [], "index": str(index)}):
        found = sharing.answered_by_server(embedder.fingerprint, target, "search", {"query": "young cat", "k": 1})
        assert found is not None
        assert found["passages"][0]["path"] == str(folder / "cats.md")
        read = sharing.answered_by_server(embedder.fingerprint, target, "read_passage", {"path": "roof.md"})
        assert read is not None
        assert read["text"] == TEXTS["roof.md"].rstrip("\n")
        with pytest.raises(InputError, match="is no file of this index"):
            sharing.answered_by_server(embedder.fingerprint, target, "read_passage", {"path": "/etc/passwd"})
    assert sharing.answered_by_server("sha256:other", folders, "index_status", {}) is None
    relative = {**folders, "folders": ["relative"]}
    assert sharing.answered_by_server(embedder.fingerprint, relative, "index_status", {}) is None


@pytest.mark.usefixtures("at_home", "server")
def test_a_note_that_others_could_have_written_is_not_believed(
    embedder: Embedder, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = user / "gte-sdk" / "server.json"
    assert sharing.find_server(embedder.fingerprint) is not None
    for path, mode in ((note, 0o644), (note.parent, 0o755), (user / "gte.sock", 0o666)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        assert sharing.find_server(embedder.fingerprint) is None, path
        path.chmod(before)
    content = note.read_bytes()
    for wrong in (
        b"",
        b"[]",
        b"{}",
        b"[" * 60_000,
        content.replace(b'"0.', b'"9.'),
        content.replace(b"gte.sock", b"no"),
    ):
        note.write_bytes(wrong)
        assert sharing.find_server(embedder.fingerprint) is None
    note.write_bytes(content)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert sharing.find_server(embedder.fingerprint) is None
    monkeypatch.undo()


def test_gte_search_asks_the_server_and_finds_the_same(
    server: ServerProcess, index: Path, environment: dict[str, str]
) -> None:
    def embedded() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("gte_texts_total ")))

    before = embedded()
    alone = gte(environment, "search", "young cat", index, "--json", "--no-server")
    assert (alone.returncode, embedded()) == (0, before)
    shared = gte(environment, "search", "young cat", index, "--json")
    assert (shared.stdout, shared.stderr) == (alone.stdout, alone.stderr)
    assert embedded() == before + 1
    for options in (["--mode", "words"], ["--threads", "1"], ["--model", "gte-mini"], ["--prompt", "query=find: "]):
        assert gte(environment, "search", "EADDRINUSE", index, *options).returncode == 0
    assert embedded() == before + 1


def test_gte_mcp_asks_the_server(server: ServerProcess, folder: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("mcp", reason="the official MCP package is not installed")
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters

    def calls() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith('gte_requests_total{route="/v1/tools"')]
        return sum(float(line.split()[1]) for line in counted)

    async def run(*options: str) -> list[str]:
        command = ["-m", "gte_sdk.cli", "mcp", str(folder), *options]
        parameters = StdioServerParameters(
            command=sys.executable, args=command, env={**os.environ, **environment}, cwd=None
        )
        async with Client(parameters, read_timeout_seconds=300) as client:
            found = await client.call_tool("search", {"query": "young cat", "k": 1})
            wrong = await client.call_tool("search", {"query": "young cat", "k": 0})
            return [str(found.structured_content["passages"][0]["path"]), wrong.content[0].text]

    expected = [str(folder / "cats.md"), "k=0; it must be at least 1 and at most 50"]
    before = calls()
    assert asyncio.run(run()) == expected
    assert calls() == before + 1  # what is wrong is refused before
    assert asyncio.run(run("--no-server")) == expected
    assert calls() == before + 1


def test_a_socket_is_replaced_only_if_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "gte.sock"
    with unix_socket(path), pytest.raises(InputError, match="another server listens at"), unix_socket(path):
        pass
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with unix_socket(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is no socket; name another path"), unix_socket(path):
        pass
    assert path.read_text(encoding="utf-8") == "mine"
    with pytest.raises(InputError, match="does not exist; create it first"), unix_socket(tmp_path / "no" / "gte.sock"):
        pass
    with pytest.raises(OSError, match="cannot listen at"), unix_socket(tmp_path / ("x" * 120)):
        pass


def test_at_its_end_a_server_takes_socket_and_note_with_it(tmp_path: Path, embedder: Embedder) -> None:
    environment = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), str(tmp_path))
    path, note = tmp_path / "gte.sock", tmp_path / "gte-sdk" / "server.json"
    with gte_serve("--socket", str(path), environment=environment) as server:
        assert json.loads(note.read_text(encoding="utf-8"))["models"] == {embedder.fingerprint: "gte-mini"}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert not path.exists()
    assert not note.exists()
    with gte_serve("--socket", str(path), "--prompt", "query=find: ", environment=environment):
        assert not note.exists()  # its vectors are no vectors of the model as others know it


def test_a_key_is_asked_for_everywhere_but_at_the_socket(index: Path, tmp_path: Path) -> None:
    environment = {**dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), str(tmp_path)), "GTE_API_KEY": "key"}
    path = tmp_path / "gte.sock"
    with gte_serve("--socket", str(path), "--index", str(index), environment=environment) as server:
        body = {"index": "notes", "query": "cat"}
        assert httpx.post(f"{server.url}/v1/search", json=body).status_code == 401
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as client:
            assert client.post("http://localhost/v1/search", json=body).status_code == 200


def test_a_unix_socket_of_a_proxy_is_no_way_around_the_key(embedder: Embedder, folder: Path, tmp_path: Path) -> None:
    """Another ASGI server may listen at a socket, too, for a proxy whose clients are anybody."""
    from gte_sdk.server import create_app

    def statuses(settings: ServerSettings) -> list[int]:
        app: Any = create_app(embedder, settings, cache=tmp_path)

        async def from_socket(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "server": (str(tmp_path / "proxy.sock"), None)}, receive, send)

        async def ask() -> list[int]:
            transport = httpx.ASGITransport(from_socket)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                paths = ("/v1/embeddings", sharing.TOOLS_PATH)
                return [(await client.post(path, json={"input": "a", "model": "m"})).status_code for path in paths]

        return asyncio.run(ask())

    assert statuses(ServerSettings("m", api_key="key")) == [401, 401]
    assert statuses(ServerSettings("m")) == [200, 404]
    assert statuses(ServerSettings("m", api_key="key", trusts_unix_socket=True)) == [200, 409]
