"""Uvicorn as this server runs it: headers must arrive in time, answers be read in time, connections are counted.

Uvicorn itself waits for ever on a client that sends its header byte by byte or never reads, so its protocol class is
extended by timers. SIGTERM and Ctrl-C stop it gracefully: nothing new is accepted, what was accepted is answered.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from gte_sdk.server.refusal import error_json
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_HEADER_BYTES = 65_536


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError naming the address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen at {host} port {port}: {error.strerror}") from error
    return listener


def run(
    app: "ASGIApp", listener: socket.socket, settings: Settings, started: Callable[[], None], access_log: bool
) -> None:
    """Serves until SIGTERM (returns) or Ctrl-C (raises KeyboardInterrupt), each after what was accepted is answered."""
    config = uvicorn.Config(
        app,
        http=protocol_of(settings),
        ws="none",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.stop_seconds,
        server_header=False,
        proxy_headers=False,
    )

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    # Uvicorn raises the signal that stopped it once more at the end, under the handler that it found.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        AnnouncingServer(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)


def protocol_of(settings: Settings) -> type[asyncio.Protocol]:
    """Uvicorn's protocol class with the time limits and the bound on connections of the settings."""
    base: Any = AutoHTTPProtocol

    class TimedProtocol(base):  # type: ignore[misc]
        """Uvicorn's protocol with a time limit on headers and on unread answers."""

        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None
        _header_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                self._refuse(
                    503, "Service Unavailable", "too many connections are open; try again later", "too_many_connections"
                )
                return
            self._header_timer = self.loop.call_later(settings.header_seconds, self._header_late)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._between_requests() and self._header_timer is None:
                self._header_timer = self.loop.call_later(settings.header_seconds, self._header_late)
            self._header_bytes += len(data)
            super().data_received(data)
            if not self._between_requests():
                self._header_bytes = 0
                _cancel(self._header_timer)
                self._header_timer = None
            elif self._header_bytes > MAX_HEADER_BYTES:
                message = f"the header exceeds {MAX_HEADER_BYTES} bytes"
                self._refuse(431, "Request Header Fields Too Large", message, "header_too_large")

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._header_timer)
            _cancel(self._write_timer)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_timer = self.loop.call_later(settings.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            _cancel(self._write_timer)
            super().resume_writing()

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _header_late(self) -> None:
            self._header_timer = None
            if self._between_requests() and not self.transport.is_closing():
                message = f"the header did not arrive within {settings.header_seconds:g} seconds"
                self._refuse(408, "Request Timeout", message, "header_timeout")

        def _refuse(self, status: int, phrase: str, message: str, code: str) -> None:
            """Answers before there is a request, then closes."""
            body = error_json(status, message, code)
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head.encode("ascii") + b"connection: close\r\n\r\n" + body)
            self.transport.close()

    return TimedProtocol


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
