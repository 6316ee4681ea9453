"""Keeps a loaded model while it is used, unloads it after some time without calls, and loads it again at the next call.

A running call holds the model, so it cannot be unloaded during the call. There is no polling: one timer wakes when the
time may be over. A forked child gets new locks, and reloads models whose threads stayed in the parent. A fork waits for
loads that are running: ONNX Runtime opens a session under its own locks, which a child would find locked for ever.
"""

import ctypes
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Generic, TypeVar

Runner = TypeVar("Runner")

# Taken by what loads and by what forks; reentrant, for a load that forks.
_load_or_fork = threading.RLock()


class Loaded(Generic[Runner]):
    """Calls `load` at once, and again when a call comes after the result was unloaded. Safe to share between threads.

    unload_after: unload after this many seconds without a call. None never unloads.
    survives_fork: a forked child may use what the parent loaded.
    """

    def __init__(self, load: Callable[[], Runner], unload_after: float | None, survives_fork: bool) -> None:
        self._load = load
        self._unload_after = unload_after
        self._survives_fork = survives_fork
        self._runner: Runner | None = None
        self._parents_runners: list[Runner] = []
        self._timer: threading.Timer | None = None
        self._start_alone()
        _reset_in_forked_children(self)
        with self.use():
            pass

    @contextmanager
    def use(self) -> Iterator[Runner]:
        """Loads if needed. Threads that come meanwhile wait for the same load."""
        with self._lock:
            runner = self._runner
            if runner is None:
                with _load_or_fork:
                    runner = self._runner = self._load()
            self._calls += 1
        try:
            yield runner
        finally:
            with self._lock:
                self._calls -= 1
                self._last_used = time.monotonic()
                self._set_timer()

    def drop(self) -> None:
        """Frees the memory as soon as the running calls have ended."""
        with self._lock:
            self._runner = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return_free_memory()

    def __del__(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        """Called with the lock held. One timer is enough: it checks how long ago the last call was."""
        if self._unload_after is None or self._timer is not None or self._runner is None:
            return
        rest = self._last_used + self._unload_after - time.monotonic()
        timer = threading.Timer(max(rest, 0.0), _drop_if_idle, (weakref.ref(self),))
        timer.daemon = True
        timer.start()
        self._timer = timer

    def _drop_if_idle(self) -> None:
        assert self._unload_after is not None
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # drop() was faster
            self._timer = None
            if self._calls > 0:
                return  # the end of the call sets another
            if time.monotonic() - self._last_used < self._unload_after:
                self._set_timer()
                return
            self._runner = None
        return_free_memory()

    def _start_alone(self) -> None:
        """Sets the state of a process without other threads: the first process and every forked child."""
        self._lock = threading.Lock()
        self._calls = 0
        self._timer = None
        self._last_used = time.monotonic()
        if not self._survives_fork and self._runner is not None:
            # Never freed: freeing it would wait for threads that the child does not have.
            self._parents_runners.append(self._runner)
            self._runner = None


# What a forked child has to reset.
_everything_loaded: "weakref.WeakSet[Loaded[Any]]" = weakref.WeakSet()


def return_free_memory() -> None:
    """glibc keeps freed blocks of up to 32 MB once the first block of that size was freed."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps nothing
        if trim is not None:
            trim(0)


def _drop_if_idle(loaded: "weakref.ref[Loaded[Runner]]") -> None:
    """The timer calls this, so that the timer keeps no abandoned model alive."""
    alive = loaded()
    if alive is not None:
        alive._drop_if_idle()


def _reset_in_forked_children(loaded: Loaded[Any]) -> None:
    """A lock that another thread holds at the fork would never be released in the child."""
    _everything_loaded.add(loaded)
    _register_at_fork()


@lru_cache(maxsize=1)
def _register_at_fork() -> None:
    def start_alone() -> None:
        _load_or_fork.release()
        for loaded in _everything_loaded:
            loaded._start_alone()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_load_or_fork.acquire, after_in_parent=_load_or_fork.release, after_in_child=start_alone
        )
