"""Files that appear whole or not at all.

The bytes go to a temporary file beside the target, are forced to the disk, and take the target's name at the end. After
a kill, a full disk or a power cut, the target is the old file or the new one. A symbolic link is followed, and the
permissions of the old file are kept. A pipe or a character device cannot be replaced, so the finished bytes are copied
into it.

The writer holds a lock on the temporary file. A lock ends with its process, so the next writer of the same target
recognizes and removes what a killed one left behind.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO

from gte_sdk.errors import InputError

if sys.platform != "win32":
    import fcntl

NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What a write says that finds no room on the disk, within the quota or below the largest size of a file."""

# The shortest limit among common file systems (eCryptfs); ext4, APFS and NTFS allow 255.
_MAX_NAME_BYTES = 143
_MAX_ADDED_BYTES = 16
_TOKEN_CHARACTERS = 8
# What a new folder replaces, until it is in its place.
_REPLACED = "old"
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE
_IN_USE = (5, 32, 1224)
_OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


@contextlib.contextmanager
def replace_whole(path: Path, overwrite: bool = True, *, keep_leftovers: bool = False) -> Iterator[IO[bytes]]:
    """Yields a binary file to write and read; it becomes `path` when the block ends without an error, else vanishes.

    overwrite: replace a file that exists. Without it, an existing target is an InputError.
    keep_leftovers: leave the temporary files of killed writers in place (see `leftovers`).

    Raises InputError for a target that cannot be written, OSError where the disk refuses.
    """
    check_target(path, overwrite)
    with _named(path):
        if is_stream(path):
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                with _open_stream(path) as stream:
                    shutil.copyfileobj(file, stream)
            return
        target = Path(os.path.realpath(path))
        if not keep_leftovers:
            remove_leftovers(target)
        opened = _open_temporary(target)
        temporary = Path(opened.name)
        try:
            with opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
                if sys.platform != "win32":  # before the lock ends
                    _rename(temporary, target, overwrite)
            if sys.platform == "win32":  # which cannot rename an open file
                _rename(temporary, target, overwrite)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path`, which takes its name when the block ends without an error, else vanishes.

    Raises InputError as `check_directory` does. Whatever was in the folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_folders(path)
    check_directory(path, overwrite)
    workplace, lock = _open_workplace(path)
    try:
        built, replaced = workplace / "new", workplace / _REPLACED
        built.mkdir()
        yield built
        if path.exists():
            with _explained(path):
                path.rename(replaced)
        try:
            built.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
    finally:
        shutil.rmtree(workplace)
        if lock is not None:
            os.close(lock)


def _open_workplace(path: Path) -> tuple[Path, int | None]:
    """A new folder beside `path`, and the descriptor that locks it."""
    while True:
        workplace = _temporary_path(path, secrets.token_hex(_TOKEN_CHARACTERS // 2))
        workplace.mkdir(mode=0o700)
        if sys.platform == "win32":  # which opens no folder
            return workplace, None
        lock = os.open(workplace, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: its leftovers stay
            fcntl.flock(lock, fcntl.LOCK_EX)
        if workplace.exists():  # else it was taken for a leftover before it was locked
            return workplace, lock
        os.close(lock)


def _clear_left_folders(path: Path) -> None:
    """Removes what killed writers of the folder left; what one had just moved out of the way gets its name back."""
    if sys.platform == "win32":
        return
    for workplace in leftovers(path):
        with contextlib.suppress(OSError):  # somebody writes it, or removed it first
            lock = os.open(workplace, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (workplace / _REPLACED).exists() and not path.exists():
                    (workplace / _REPLACED).rename(path)
                shutil.rmtree(workplace)
            finally:
                os.close(lock)


def check_directory(path: Path, overwrite: bool = False) -> None:
    """Raises InputError if `replace_directory` cannot write `path`: a file, or a folder without `overwrite`."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", remedy="overwrite")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a directory")


def move_whole(source: Path, path: Path) -> None:
    """Gives a finished file the name, owner and permissions of `path` in the same folder, which may exist."""
    target = Path(os.path.realpath(path))
    if target.exists() and sys.platform != "win32":
        with source.open("rb") as file:
            _take_permissions(file, target)
    _rename(source, target, overwrite=True)


def check_target(path: Path, overwrite: bool = True) -> None:
    """Raises InputError if `replace_whole` cannot write `path`."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if path.is_block_device():
        raise InputError(f"{path} is a disk; name a file")
    if is_stream(path):
        return
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", remedy="overwrite")


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a device or an open descriptor: something to write into, not to replace."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file())


def leftovers(path: Path) -> list[Path]:
    """The temporary files of `path`: of writers that were killed, and of those that still write."""
    start = _temporary_path(path, "").name.removesuffix(".part")
    return sorted(path.parent.glob(f"{escape(start)}{'[0-9a-f]' * _TOKEN_CHARACTERS}.part"))


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of writers of `path` that were killed."""
    for leftover in leftovers(path):
        with contextlib.suppress(OSError):  # somebody writes it, or removed it first
            if sys.platform == "win32":  # which does not remove an open file
                leftover.unlink()
                continue
            with leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def beside(path: Path, ending: str, *, prefix: str = "") -> Path:
    """A path in the same folder: the name with a prefix and an ending, the name shortened if it is long."""
    assert len(prefix) + len(ending) <= _MAX_ADDED_BYTES
    name = path.name
    encoded = os.fsencode(name)
    if len(encoded) > _MAX_NAME_BYTES - _MAX_ADDED_BYTES:
        name = f"{encoded[:64].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:16]}"
    return path.with_name(f"{prefix}{name}{ending}")


def _temporary_path(target: Path, token: str) -> Path:
    return beside(target, f".{token}.part", prefix=".")


def _open_temporary(target: Path) -> IO[bytes]:
    """A new, locked file beside the target, with the target's owner and permissions if there is one."""
    while True:
        file = _temporary_path(target, secrets.token_hex(_TOKEN_CHARACTERS // 2)).open("xb+")
        try:
            if sys.platform == "win32":
                return file
            if target.exists():
                _take_permissions(file, target)
            with contextlib.suppress(OSError):  # a file system without locks: its leftovers stay
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # else it was taken for a leftover before it was locked
                return file
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise
        file.close()


def _take_permissions(file: IO[bytes], target: Path) -> None:
    assert sys.platform != "win32"
    status = target.stat()
    with contextlib.suppress(PermissionError):  # only root gives files away
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))


def _rename(source: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        with _explained(target):
            source.replace(target)
    else:
        try:
            os.link(source, target)  # which fails if somebody else took the name meanwhile
        except FileExistsError:
            raise InputError(f"{target} exists", remedy="overwrite") from None
        except OSError:  # a file system without hard links
            check_target(target, overwrite)
            source.replace(target)
    if sys.platform != "win32":
        _sync_folder(target.parent)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Says why Windows refuses to rename over a file, or a folder with a file, that somebody has open."""
    try:
        yield
    except OSError as error:
        if getattr(error, "winerror", None) not in _IN_USE:
            raise
        raise InputError(
            f"{target} is open, and Windows replaces no file that is: close what reads it, such as an Index or model "
            "that has it mapped (Index.open has mmap=False), or write another file"
        ) from error


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Gives the path to the error of a write that found no room, because `write` itself names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _open_stream(path: Path) -> IO[bytes]:
    descriptor = _descriptor(path)
    return path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")


def _descriptor(path: Path) -> int | None:
    """The number of an open descriptor that `path` names; to open it anew would start at the first byte again."""
    match = _OWN_DESCRIPTOR.fullmatch(str(path))
    return int(match[1]) if match else _STANDARD_STREAMS.get(str(path))


def _sync_folder(folder: Path) -> None:
    """The rename itself survives a power cut only when the folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot, and need it less
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
