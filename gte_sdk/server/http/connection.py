"""One connection: what of a request is read before anything else knows of it, in how many bytes and how much time.

Uvicorn waits for ever on a client that sends its header byte by byte or never reads, and keeps every header line and
every pipelined request that it is sent. Its protocol class is extended by limits on each, and reads a request that asks
for another protocol.
"""

import asyncio
import functools
import time
from email.utils import formatdate
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gte_sdk.server.http.refusal import error_json
from gte_sdk.server.settings import Settings

MAX_HEADER_BYTES = 65_536
"""Of a request's header, of what follows the body, and of anything that is neither header nor body."""
MAX_HEADER_LINES = 128
MAX_PIPELINED = 16
"""Requests that a client may send on one connection before it has the answer to the first."""
# A client that reads slower than 64 KiB (what is buffered) in this time uses up Settings.write_seconds.
_BUFFER_SECONDS = 1.0


def protocol_of(settings: Settings) -> type[asyncio.Protocol]:
    """Uvicorn's protocol class with the limits of the settings."""
    base: Any = HttpToolsProtocol  # not typed as asyncio calls it

    class BoundedProtocol(base):  # type: ignore[misc]
        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None
        _paused_at = 0.0
        _write_seconds_left = settings.write_seconds
        _header_bytes = 0
        _header_lines = 0
        _unread_bytes = 0
        """Received since the parser last saw a whole header line, a chunk, or a part of a body."""
        _too_much = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.parser = RequestParser(self)
            self._unanswered: list[Any] = []
            if len(self.connections) > settings.max_connections:
                message = "too many connections are open; try again later"
                self._refuse(503, "Service Unavailable", message, "too_many_connections", "retry-after: 1\r\n")
                return
            self._header_timer = self.loop.call_later(settings.header_seconds, self._header_late)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._between_requests() and self._header_timer is None:
                self._header_timer = self.loop.call_later(settings.header_seconds, self._header_late)
            self._unread_bytes += len(data)
            super().data_received(data)
            if not self._between_requests():
                _cancel(self._header_timer)
                self._header_timer = None
            if self._unread_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self._too_much = True
                self.send_400_response("")

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._header_timer)
            _cancel(self._write_timer)
            for cycle in self._unanswered:  # uvicorn tells the last of them only, and the others would go on to write
                cycle.disconnected = True
                cycle.message_event.set()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._paused_at = self.loop.time()
            self._write_timer = self.loop.call_later(self._write_seconds_left, self.transport.abort)

        def resume_writing(self) -> None:
            _cancel(self._write_timer)
            left = self._write_seconds_left - (self.loop.time() - self._paused_at) + _BUFFER_SECONDS
            self._write_seconds_left = min(settings.write_seconds, left)
            super().resume_writing()

        def on_message_begin(self) -> None:
            self._header_bytes = self._header_lines = 0
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            self._unread_bytes = 0
            self._header_lines += 1
            self._header_bytes += len(name) + len(value)
            if self._header_bytes > MAX_HEADER_BYTES or self._header_lines > MAX_HEADER_LINES:
                self._too_much = True
                raise ValueError("the header is too large")
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._unread_bytes = 0
            if self.parser.should_upgrade():
                return  # the parser reads this request once more
            if len(self.pipeline) >= MAX_PIPELINED:
                raise ValueError("too many requests are pipelined")
            self.server_state.default_headers = [(b"date", _http_date(int(time.time())))]
            super().on_headers_complete()
            self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
            self._unanswered.append(self.cycle)

        def on_chunk_header(self) -> None:
            self._unread_bytes = 0

        def on_body(self, body: bytes) -> None:
            self._unread_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            if not self.parser.should_upgrade():
                super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            """Uvicorn's answer to what its parser does not read."""
            if self.cycle is not None and (self.pipeline or self.cycle.response_started):
                self.transport.close()  # an answer now would be taken for that to an earlier request
            elif self._too_much:
                message = f"the header exceeds {MAX_HEADER_BYTES} bytes or {MAX_HEADER_LINES} lines"
                self._refuse(431, "Request Header Fields Too Large", message, "header_too_large")
            else:
                self._refuse(400, "Bad Request", "what was sent is not an HTTP/1.1 request", "invalid_http")

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _header_late(self) -> None:
            self._header_timer = None
            if self._between_requests() and not self.transport.is_closing():
                message = f"the header did not arrive within {settings.header_seconds:g} seconds"
                self._refuse(408, "Request Timeout", message, "header_timeout")

        def _refuse(self, status: int, phrase: str, message: str, code: str, header: str = "") -> None:
            """Answers before there is a request, then closes."""
            body = error_json(status, message, code)
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}{header}connection: close\r\n\r\n".encode("ascii") + body)
            self.transport.close()

    return BoundedProtocol


class RequestParser(httptools.HttpRequestParser):
    """Reads a request that asks for another protocol (Upgrade: h2c, websocket) as one that does not.

    A server may ignore Upgrade (RFC 9110, section 7.8). httptools instead leaves everything after the header to the
    other protocol, so the header is read once more without it, and then the body.
    """

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        # As uvicorn has it: a request that follows one with "Connection: close" is ignored, not an error.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # uvicorn gives bytes
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            protocol = self._protocol
            method = self.get_method()
            if method == b"CONNECT":  # is nothing but a wish for another protocol
                raise httptools.HttpParserError("CONNECT is not supported") from None
            lines = [method + b" " + protocol.url + b" HTTP/" + self.get_http_version().encode("ascii")]
            lines += [name + b": " + value for name, value in protocol.headers if name != b"upgrade"]
            protocol.parser = RequestParser(protocol)
            protocol.parser.feed_data(b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :])


@functools.lru_cache(maxsize=1)
def _http_date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode("ascii")


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
