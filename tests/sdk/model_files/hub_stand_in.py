"""A Hub on the loopback interface that serves real directories as the Hub does: its API, its files, its errors.

As there, a graph is a large file: its address answers with a redirect to another origin, which knows byte ranges, and
its hash is SHA-256; the hash of a small file is git's. A fault is what the next matching requests meet instead.
"""

import hashlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What requests whose "COMMAND /path" contains `request` get."""

    request: str
    kind: str
    """A status ("503"), or for the content: "cut" in half, one byte "flip"ped, "hang" after half of it, "wait"
    before it; the last two until `Hub.released` is set."""
    times: int = 1
    """How many requests meet it."""


@dataclass
class Hub:
    name: str
    commits: dict[str, Path]
    references: dict[str, str]
    """Branches and tags, to commits."""
    endpoint: str = ""
    cdn: str = ""
    requests: list[str] = field(default_factory=list)
    """"COMMAND /path", with " bytes=N-" behind it where a part was asked for."""
    faults: list[Fault] = field(default_factory=list)
    gate: str | None = None
    """Where not None, files are given only to who brings this token."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs or waits."""

    def count(self, text: str) -> int:
        return sum(text in request for request in self.requests)

    def next_fault(self, request: str) -> str:
        for fault in self.faults:
            if fault.times and fault.request in request:
                fault.times -= 1
                return fault.kind
        return ""


@contextmanager
def serve_hub(name: str, directory: Path) -> Iterator[tuple[str, list[str]]]:
    """One directory as one commit: yields the endpoint's address and the list of requests that it has seen."""
    with open_hub(name, {COMMIT: directory}, {"main": COMMIT}) as hub:
        yield hub.endpoint, hub.requests


@contextmanager
def open_hub(name: str, commits: dict[str, Path], references: dict[str, str]) -> Iterator[Hub]:
    hub = Hub(name, commits, references)
    with ExitStack() as stack:
        hub.endpoint = stack.enter_context(serve(handler_of(hub, answer_api)))
        # Another name for the host: huggingface_hub 1 follows a redirect to the same name, whatever the port.
        hub.cdn = stack.enter_context(serve(handler_of(hub, answer_cdn))).replace("127.0.0.1", "localhost")
        stack.callback(hub.released.set)
        yield hub


@contextmanager
def open_proxy(hosts: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A forward proxy; `hosts` says where unknown names lead. Yields its address and the list of what it was asked."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path.replace('=True', '=true')}")
            target = urlsplit(self.path)
            connection = http.client.HTTPConnection(hosts.get(target.netloc, target.netloc), timeout=30)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, target.path + (f"?{target.query}" if target.query else ""), None, headers)
            answer = connection.getresponse()
            self.send_response_only(answer.status)
            for key, value in answer.getheaders():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(answer.read())
            connection.close()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with serve(Proxy) as address:
        yield address, asked


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def handler_of(hub: Hub, answer: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            part = self.headers.get("Range")
            path = unquote(self.path).replace("=True", "=true")  # huggingface_hub 0 writes them in capitals
            request = f"{self.command} {path}" + (f" {part}" if part else "")
            hub.requests.append(request)
            fault = hub.next_fault(request)
            if fault.isdigit():
                send(self, int(fault), {}, b"")
            else:
                answer(hub, self, fault)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet; the requests are recorded above."""

    return Handler


def answer_api(hub: Hub, handler: BaseHTTPRequestHandler, fault: str) -> None:
    path = unquote(urlsplit(handler.path).path)
    token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
    if token == "invalid":
        return send(handler, 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"")
    found = re.fullmatch(rf"/(api/models/)?{re.escape(hub.name)}(?:/(?:revision|resolve|tree)/(.+))?", path)
    if found is None:
        return send(
            handler, 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}, b""
        )
    known = {**hub.references, **{commit: commit for commit in hub.commits}}
    rest = found[2] or "main"
    revision = next((name for name in sorted(known, key=len, reverse=True) if f"{rest}/".startswith(f"{name}/")), None)
    if revision is None:
        return send(handler, 404, {"X-Error-Code": "RevisionNotFound"}, b"")
    commit = known[revision]
    directory = hub.commits[commit]
    if found[1]:
        description = tree(directory) if "/tree/" in path else model_info(hub.name, commit, directory)
        return send(handler, 200, {}, json.dumps(description).encode(), fault, hub)
    headers = {"X-Repo-Commit": commit}
    if hub.gate is not None and token != hub.gate:
        return send(handler, 403 if token else 401, {**headers, "X-Error-Code": "GatedRepo"}, b"")
    file = directory / rest.removeprefix(revision).lstrip("/")
    if not file.is_file():
        return send(handler, 404, {**headers, "X-Error-Code": "EntryNotFound"}, b"")
    content = file.read_bytes()
    if is_large(file):
        digest = hashlib.sha256(content).hexdigest()
        linked = {"Location": f"{hub.cdn}/{digest}", "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return send(handler, 302, {**headers, **linked}, b"")
    return send(handler, 200, {**headers, "ETag": f'"{git_sha1(content)}"'}, content, fault, hub)


def answer_cdn(hub: Hub, handler: BaseHTTPRequestHandler, fault: str) -> None:
    assert "Authorization" not in handler.headers, "a token must not leave the Hub's own origin"
    contents = (
        file.read_bytes() for directory in hub.commits.values() for file in files_of(directory) if is_large(file)
    )
    content = next(each for each in contents if hashlib.sha256(each).hexdigest() == handler.path[1:])
    part = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if part:
        start = int(part[1])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        send(handler, 206, headers, content[start:], fault, hub)
    else:
        send(handler, 200, {}, content, fault, hub)


def send(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, fault: str = "",
    hub: Hub | None = None,
) -> None:  # fmt: skip
    handler.send_response(status)
    for key, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(key, value)
    half = len(content) // 2
    if fault == "wait" and hub is not None:
        hub.released.wait(300)
    if fault == "hang" and hub is not None:
        handler.end_headers()
        handler.wfile.write(content[:half])
        handler.wfile.flush()
        hub.released.wait(300)
        handler.close_connection = True
        return
    handler.end_headers()
    if handler.command == "HEAD":
        return
    if fault == "flip":
        content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    handler.wfile.write(content[:half] if fault == "cut" else content)
    handler.close_connection = fault == "cut"


def is_large(file: Path) -> bool:
    return file.suffix in (".onnx", ".safetensors", ".bin") or "onnx_data" in file.name


def files_of(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.rglob("*") if entry.is_file())


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def model_info(name: str, commit: str, directory: Path) -> dict[str, Any]:
    siblings = []
    for entry in tree(directory):
        lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
        siblings.append({"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"], **lfs})
    return {"_id": "1", "id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}


def tree(directory: Path) -> list[dict[str, Any]]:
    entries = []
    for file in files_of(directory):
        content = file.read_bytes()
        entry: dict[str, Any] = {
            "type": "file", "path": file.relative_to(directory).as_posix(),
            "size": len(content), "oid": git_sha1(content),
        }  # fmt: skip
        if is_large(file):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries
