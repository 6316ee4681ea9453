"""The body of a request, within the limits of size and time."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from gte_sdk.server.budget import Hold
from gte_sdk.server.http.refusal import Refusal
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request


async def read_body(request: "Request", settings: Settings, hold: Hold) -> bytearray:
    """The body. `hold` is told of every byte that is kept.

    Raises Refusal 415 for another content type or a compressed body, 413 for too many bytes, 408 for too slow ones, 429
    where the bodies of all requests together are too large, 499 where the client went away.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        message = f"the content type is {content_type[:80]!r}; send application/json"
        raise Refusal(415, message, code="unsupported_content_type")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        message = f"the content encoding is {encoding[:80]!r}; send the body as it is"
        raise Refusal(415, message, code="unsupported_content_encoding")
    body = bytearray()
    length = request.headers.get("content-length", "")
    try:
        if length.isdecimal() and int(length[:20]) > settings.max_body_bytes:
            raise _too_large(settings)
        await asyncio.wait_for(_read_into(body, request, settings, hold), settings.body_seconds)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {settings.body_seconds:g} seconds"
        raise Refusal(408, message, code="body_timeout") from None
    except ClientDisconnect:
        raise client_gone() from None
    except Refusal:
        body.clear()
        if "expect" not in request.headers:  # who waits to be told to go on sends nothing that is to be read
            await _drain(request, settings.drain_seconds)
        raise
    return body


def client_gone() -> Refusal:
    """What nobody reads but the metrics."""
    return Refusal(499, "the client closed the connection", code="client_gone")


async def _read_into(body: bytearray, request: "Request", settings: Settings, hold: Hold) -> None:
    async for chunk in request.stream():
        if len(body) + len(chunk) > settings.max_body_bytes:
            raise _too_large(settings)
        hold.add(len(chunk))
        body += chunk


async def _drain(request: "Request", seconds: float) -> None:
    """A client that is still sending is read on for a while, so that it sees the refusal, not a broken connection."""

    async def read_on() -> None:
        while True:
            message = await request.receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read_on(), seconds)


def _too_large(settings: Settings) -> Refusal:
    message = f"the body exceeds {settings.max_body_bytes} bytes; send fewer or shorter texts at a time"
    return Refusal(413, message, code="body_too_large")
