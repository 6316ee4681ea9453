"""What every request passes before its route: who may ask, how much may be read, and the count of what was answered.

A plain ASGI wrapper, because Starlette's middleware classes cost more than the routes themselves.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gte_sdk.server.cors import headers_for, is_preflight, preflight_headers
from gte_sdk.server.metrics import Metrics
from gte_sdk.server.refusal import Refusal, error_json
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a browser loads before its user has typed a key, and what a load balancer asks.
OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/health", "/openapi.json"})
# A client that is still sending is read on for so long, so that it sees the refusal instead of a broken pipe.
_DRAIN_SECONDS = 1.0


def gate(app: "ASGIApp", settings: Settings, metrics: Metrics, routes: frozenset[str]) -> "ASGIApp":
    """The application behind the checks of host and key. `routes` are the paths that metrics tell apart."""

    async def passed(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
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

        metrics.requests_in_progress += 1
        try:
            preflight = bool(settings.cors_origins) and is_preflight(scope["method"], headers)
            refusal = _refused(scope["path"], headers, settings, needs_key=not preflight)
            if refusal is None and preflight:
                await noted_send({"type": "http.response.start", "status": 204, "headers": preflight_headers(headers)})
                await noted_send({"type": "http.response.body"})
            elif refusal is None:
                await app(scope, noted_receive, noted_send)
            else:
                await send_refusal(refusal, noted_send)
        finally:
            metrics.requests_in_progress -= 1
            path = scope["path"] if scope["path"] in routes else "other"
            metrics.count_request(path, status, time.perf_counter() - started)

    return passed


def _refused(path: str, headers: dict[bytes, bytes], settings: Settings, needs_key: bool) -> Refusal | None:
    if settings.api_key is None:
        # A page of another site whose name was pointed at this machine must not be able to read along.
        if settings.loopback_only and not names_this_machine(headers.get(b"host", b"")):
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


async def read_body(request: "Request", settings: Settings, metrics: Metrics, hold: Callable[[int], None]) -> bytes:
    """The body, within the limits of size and time. `hold` is told of every byte that is kept.

    Raises Refusal 415 for another content type, 413 for too many bytes, 408 for too slow ones, 429 where the bodies
    of all requests together are too large.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        message = f"the content type is {content_type[:80]!r}; send application/json"
        raise Refusal(415, message, code="unsupported_content_type")
    chunks: list[bytes] = []
    length = request.headers.get("content-length", "")
    try:
        if length.isdecimal() and int(length[:20]) > settings.max_body_bytes:
            raise _too_large(settings)
        await asyncio.wait_for(_read_chunks(request, chunks, settings, metrics, hold), settings.body_seconds)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {settings.body_seconds:g} seconds"
        raise Refusal(408, message, code="body_timeout") from None
    except Refusal:
        await _drain(request)
        raise
    return b"".join(chunks)


async def _read_chunks(
    request: "Request", chunks: list[bytes], settings: Settings, metrics: Metrics, hold: Callable[[int], None]
) -> None:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > settings.max_body_bytes:
            raise _too_large(settings)
        if metrics.held_bytes + len(chunk) > settings.max_held_bytes:
            message = f"requests of {metrics.held_bytes} bytes are in progress; try again later"
            raise Refusal(429, message, code="bodies_full", headers={"Retry-After": "1"})
        hold(len(chunk))
        chunks.append(chunk)


async def _drain(request: "Request") -> None:
    async def read_on() -> None:
        while True:
            message = await request.receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read_on(), _DRAIN_SECONDS)


def _too_large(settings: Settings) -> Refusal:
    message = f"the body exceeds {settings.max_body_bytes} bytes; send fewer or shorter texts at a time"
    return Refusal(413, message, code="body_too_large")


async def send_refusal(refusal: Refusal, send: "Send") -> None:
    body = error_json(refusal.status, refusal.message, refusal.code, refusal.param)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
