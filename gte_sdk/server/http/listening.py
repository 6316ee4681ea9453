"""Uvicorn as this server runs it: from a listening socket to an end in bounded time, whatever clients and model do.

The first SIGTERM or Ctrl-C closes the door and answers what was accepted, for at most Settings.stop_seconds; a second
one ends at once. Python would otherwise wait for threads in a long native call, however long that takes.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from gte_sdk.errors import InputError
from gte_sdk.passages.update_lock import exclusive
from gte_sdk.server.http.connection import protocol_of
from gte_sdk.server.memory import give_back_large_blocks
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# What the event loop and its threads get to end by themselves, after the requests that were not answered are given up.
_GRACE_SECONDS = 5
# Descriptors for everything but connections: the model's files, the event loop, logs.
_OTHER_DESCRIPTORS = 128


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


def url_of(listener: socket.socket) -> str:
    """The address that a socket is bound to, for a browser."""
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket that only this user can open, for as long as the block runs.

    What a server that was killed left behind is replaced. Raises InputError where somebody listens, or where the path
    is something else than a socket, OSError where it cannot be made.
    """
    if sys.platform == "win32":
        raise InputError("a Unix socket cannot be served on Windows; leave --socket out")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    with exclusive(path, lambda: None):
        if os.path.lexists(path):
            _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
            listener.listen(128)  # from now on, another server sees that somebody listens
        except OSError as error:
            listener.close()
            raise OSError(f"cannot listen at {path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        ours = path.lstat()
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(path.lstat(), ours):
                path.unlink()


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise InputError(f"{path} exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # nobody listens
                path.unlink()
                return
            if error.errno != errno.EAGAIN:  # somebody does, and many wait
                raise
    raise InputError(f"another server listens at {path}; stop it or name another path")


def run(
    app: "ASGIApp",
    listener: socket.socket,
    settings: Settings,
    started: Callable[[], None],
    access_log: bool,
    others: Sequence[socket.socket] = (),
    same_signal_seconds: float = 0.0,
) -> None:
    """Serves until SIGTERM (returns) or Ctrl-C (raises KeyboardInterrupt), each after what was accepted is answered.

    Ends the process itself, with status 128 + signal, at a second signal or where the end would take too long. A signal
    within `same_signal_seconds` of the first is no second one.
    """
    logging.raiseExceptions = False  # where the log goes nowhere, each line of it would be another traceback
    allow_descriptors(settings.max_connections + _OTHER_DESCRIPTORS)
    give_back_large_blocks()
    config = uvicorn.Config(
        app,
        http=protocol_of(settings),
        ws="none",
        use_colors=False,  # a process without standard streams has no terminal to ask
        log_level="info" if access_log else "error",  # what is no HTTP is the client's affair
        access_log=access_log,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.stop_seconds,
        server_header=False,
        date_header=False,  # connection.py dates each answer
        proxy_headers=False,
    )

    class StoppingServer(uvicorn.Server):
        stopped_at = 0.0
        wake: Callable[[], object] = staticmethod(lambda: None)

        async def main_loop(self) -> None:
            """Sleeps until a signal comes. Uvicorn's looks for one ten times a second, also on an idle server."""
            loop, stopped = asyncio.get_running_loop(), asyncio.Event()
            self.wake = lambda: loop.call_soon_threadsafe(stopped.set)
            if not self.should_exit:
                await stopped.wait()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                if time.monotonic() - self.stopped_at > same_signal_seconds:
                    os._exit(128 + sig)
                return
            self.stopped_at = time.monotonic()
            watchdog = threading.Timer(settings.stop_seconds + _GRACE_SECONDS, os._exit, (128 + sig,))
            watchdog.daemon = True
            watchdog.start()
            super().handle_exit(sig, frame)
            self.wake()

    # Uvicorn raises the signal that stopped it once more at the end, under the handler that it found.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        StoppingServer(config).run(sockets=[listener, *others])
    finally:
        signal.signal(signal.SIGTERM, previous)


def allow_descriptors(count: int) -> None:
    """Raises the limit of open files, by default 1,024 on Linux, to `count` or as far as this process may."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
