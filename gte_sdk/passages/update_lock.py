"""Lets one process at a time update a passage index, with a lock file beside it. A lock ends with its process."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gte_sdk.atomic_file import beside

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def lock_path_of(path: Path) -> Path:
    """Returns the path of the lock file. It exists while the index is updated."""
    return beside(Path(os.path.realpath(path)), ".lock", prefix=".")


@contextlib.contextmanager
def exclusive(path: Path, say_waiting: Callable[[], None]) -> Iterator[None]:
    """Runs the block while no other process or thread runs one for the same index.

    `say_waiting` is called once if the block has to wait. A folder that cannot be written to needs no lock, because
    nothing can be updated there.
    """
    lock_path = lock_path_of(path)
    while True:
        try:
            file = lock_path.open("ab")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            yield
            return
        with file:
            if not _lock(file, wait=False):
                say_waiting()
                _lock(file, wait=True)
            if not _is_named(file, lock_path):  # whoever held it has removed it
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows removes no open file
                    lock_path.unlink()
            return


def _lock(file: IO[bytes], wait: bool) -> bool:
    if sys.platform == "win32":
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # LK_LOCK gives up after ten seconds
                if not wait:
                    return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_named(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
