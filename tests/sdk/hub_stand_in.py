"""A Hub on the loopback interface that serves one real directory under one name, as the Hub's HTTP API does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(name: str, directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the endpoint's address and the list of requests that it has seen."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            requests.append(f"{self.command} {self.path}")
            path = unquote(urlsplit(self.path).path)
            api = f"/api/models/{name}"
            if path.startswith(f"{api}/tree/"):
                self.send(200, json.dumps(tree(directory)).encode(), {}, with_body)
            elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                self.send(200, json.dumps(model_info(name, directory)).encode(), {}, with_body)
            elif path.startswith((f"/{name}/resolve/main/", f"/{name}/resolve/{COMMIT}/")):
                file = directory / path.split("/", 5)[5]
                if file.is_file():
                    content = file.read_bytes()
                    headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                    self.send(200, content, headers, with_body)
                else:
                    self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
            else:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)

        def send(self, status: int, content: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keeps the test's output quiet; the requests are recorded above."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
        server.shutdown()


def files_of(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.rglob("*") if entry.is_file())


def model_info(name: str, directory: Path) -> dict[str, Any]:
    siblings = [{"rfilename": file.relative_to(directory).as_posix()} for file in files_of(directory)]
    return {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}


def tree(directory: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": file.relative_to(directory).as_posix(),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in files_of(directory)
    ]
