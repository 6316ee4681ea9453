"""What every request passes before its route: who may ask, and the count of what was answered.

A plain ASGI wrapper, because Starlette's middleware classes cost more than the routes themselves.
"""

import asyncio
import hmac
import ipaddress
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gte_sdk.server.budget import Hold
from gte_sdk.server.http.cors import headers_for, is_preflight, preflight_headers
from gte_sdk.server.http.refusal import Refusal, error_json
from gte_sdk.server.metrics import Metrics
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a browser loads before its user has typed a key, and what a load balancer asks.
OPEN_PATHS = frozenset(
    {
        "/", "/page.js", "/page.css", "/health", "/openapi.json",
        "/docs", "/docs/swagger.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js",
    }
)  # fmt: skip
# Where a route finds the Hold of its request in the ASGI scope.
HOLD = "gte_sdk.hold"


def gate(app: "ASGIApp", settings: Settings, metrics: Metrics, routes: frozenset[str]) -> "ASGIApp":
    """The application behind the checks of host and key. `routes` are the paths that metrics tell apart."""

    async def passed(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        if scope["path"].endswith("/"):  # a client that joins addresses its own way
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        headers: dict[bytes, bytes] = dict(scope["headers"])
        unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        status = 0

        async def noted_receive() -> "Message":
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def noted_send(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = headers_for(headers, settings.cors_origins)
                if unread:
                    # Whatever else the client sends is not a request, and must not be waited for.
                    added.append((b"connection", b"close"))
                if added:
                    message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        hold = scope[HOLD] = Hold(metrics, settings.max_held_bytes)
        metrics.requests_in_progress += 1
        try:
            preflight = bool(settings.cors_origins) and is_preflight(scope["method"], headers)
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if not hosts and scope["http_version"] == "1.0":  # which has none; no browser speaks it
                hosts = [b"localhost"]
            refusal = None
            if not is_from_user(scope, settings):
                refusal = _refused(scope["path"], headers, hosts, settings, needs_key=not preflight)
            if refusal is None and preflight:
                await noted_send({"type": "http.response.start", "status": 204, "headers": preflight_headers(headers)})
                await noted_send({"type": "http.response.body"})
            elif refusal is None:
                await app(scope, noted_receive, noted_send)
            else:
                await send_refusal(refusal, noted_send)
        except asyncio.CancelledError:  # by a server that was told to stop and has waited long enough
            if status:
                raise
            await send_refusal(Refusal(503, "the server is stopping", code="stopping"), noted_send)
        finally:
            hold.change(0)
            metrics.requests_in_progress -= 1
            path = scope["path"] if scope["path"] in routes else "other"
            metrics.count_request(path, status, time.perf_counter() - started)

    return passed


def is_from_user(scope: "Scope", settings: Settings) -> bool:
    """Whether a request came over a Unix socket that only the user who started the server can open."""
    server = scope.get("server")
    return settings.trusts_unix_socket and server is not None and server[1] is None


def _refused(
    path: str, headers: dict[bytes, bytes], hosts: list[bytes], settings: Settings, needs_key: bool
) -> Refusal | None:
    if settings.api_key is None:
        # A page of another site whose name was pointed at this machine must not be able to read along.
        if settings.loopback_only and not all(map(names_this_machine, hosts or [b""])):
            message = "the Host header does not name this machine; a server behind a proxy needs an API key"
            return Refusal(403, message, code="wrong_host")
        return None
    if path in OPEN_PATHS or not needs_key:
        return None
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), settings.api_key.encode("ascii")):
        return None
    message = "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'"
    return Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def names_this_machine(host_header: bytes) -> bool:
    """Whether a Host header is localhost or a loopback address, with or without a port."""
    try:
        host = urlsplit(b"//" + host_header).hostname or b""
        return host == b"localhost" or ipaddress.ip_address(host.decode("ascii")).is_loopback
    except ValueError:
        return False


async def send_refusal(refusal: Refusal, send: "Send") -> None:
    body = error_json(refusal.status, refusal.message, refusal.code, refusal.param)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
