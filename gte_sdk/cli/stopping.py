"""Ends a command that Ctrl-C or a kill does not end by itself.

Python runs the handler of a signal between two of its own steps, so a long call of a library would keep the process for
as long as it takes. A thread is told of each signal as it arrives: it ends the process at the second one, or where the
clean-up after the first takes long. What a command writes appears whole or not at all, however it ends (atomic_file).
"""

import os
import signal
import socket
import threading
import time

SECONDS_TO_STOP = 10.0
# `timeout` and some shells send one signal twice: what comes within this time is no second one.
SAME_SIGNAL_SECONDS = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


def end_at_second_signal() -> None:
    """Watches the signals that have a handler, until `leave_to_another` is called. For the main thread."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver,), daemon=True, name="gte signals").start()


def leave_to_another() -> None:
    """Ends the watch, for a server with an end of its own."""
    signal.set_wakeup_fd(-1)


def _watch(receiver: socket.socket) -> None:
    first: float | None = None
    code = 0
    while True:
        receiver.settimeout(None if first is None else max(first + SECONDS_TO_STOP - time.monotonic(), 0.001))
        try:
            numbers = receiver.recv(64)
        except TimeoutError:
            os._exit(code)
        for number in numbers:
            if number not in _ENDING:
                continue
            if first is None:
                first, code = time.monotonic(), 128 + number
            elif time.monotonic() - first > SAME_SIGNAL_SECONDS:
                os._exit(128 + number)
