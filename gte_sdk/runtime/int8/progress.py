"""One line on standard error about work that takes longer than a second, if somebody is there to read it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SILENT_SECONDS = 1.0


@contextmanager
def progress_line(what: str) -> Iterator[Callable[[float], None]]:
    """Yields a function that takes the share that is done. The line vanishes at the end, and needs a terminal."""
    started = time.monotonic()
    shown = False

    def show(share: float) -> None:
        nonlocal shown
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() - started >= _SILENT_SECONDS:
            shown = True
            print(f"\r{what}: {share:4.0%}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
