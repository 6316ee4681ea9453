"""The user's cache of int8 weights: which folder, under which names, and which hash the files of a model have.

A file's name is the hash of everything that its content depends on, so nothing in the cache is ever out of date. To
open a model again, or ask for its fingerprint, must not cost the hashing of its float32 weights: their SHA-256 is
remembered by path, inode, size and times. Two processes may write the same file at once, because each one appears whole
or not at all. Whatever prevents keeping a file is a warning, and what cannot be read is made anew.
"""

import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gte_sdk.atomic_file import leftovers, remove_leftovers, replace_whole
from gte_sdk.errors import GteError
from gte_sdk.model_files.directory import sha256_of_file
from gte_sdk.model_files.published import ModelPath

# A file that changed this shortly before may change again without another time. File systems count in 2 s or less.
_SETTLED_NS = 3_000_000_000
_WEIGHTS_SUFFIX, _NOTE_SUFFIX = ".safetensors", ".json"


def cache_folder() -> Path | None:
    """gte-sdk/int8 in the folder where this system keeps caches; None for a user without a home."""
    try:
        return _system_folder() / "gte-sdk" / "int8"
    except RuntimeError:
        return None


def indexes_folder() -> Path | None:
    """gte-sdk/passages in the same place, for the passage indexes of `gte mcp`; None for a user without a home."""
    try:
        return _system_folder() / "gte-sdk" / "passages"
    except RuntimeError:
        return None


def _system_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"  # its specification ignores relative paths


def cached_file(ingredients: Mapping[str, Any]) -> Path | None:
    """The place of the weights that are made of `ingredients`, as JSON has them. The file may not exist."""
    folder = cache_folder()
    canonical = json.dumps(ingredients, sort_keys=True).encode()
    return None if folder is None else folder / (hashlib.sha256(canonical).hexdigest() + _WEIGHTS_SUFFIX)


def keep(path: Path | None, write: Callable[[IO[bytes]], None]) -> None:
    """Writes a file of the cache. Warns if that cannot be done: nothing else depends on it."""
    try:
        if path is None:
            raise OSError("this user has no home folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_whole(path) as file:
            write(file)
    except (OSError, GteError) as error:
        warnings.warn(
            f"the int8 weights cannot be kept in the cache ({error}), so the model is quantized each time it opens; "
            "make a directory of int8 weights with: gte convert",
            stacklevel=2,
        )


def remembered_sha256(path: ModelPath) -> str:
    """The SHA-256 of a file, which is read only if it is new or has changed since it was asked for last."""
    return remembered(path, "sha256", lambda: sha256_of_file(path))


def remembered(path: ModelPath, kind: str, compute: Callable[[], str]) -> str:
    """A short text that depends on a file's content only, computed if the file is new or has changed.

    kind: tells texts about the same file apart.
    """
    entry = _entry_of(path, kind)
    if entry is not None:
        with suppress(OSError, ValueError, LookupError, TypeError):
            note = json.loads(entry.read_bytes())
            if note["check"] == _check(note["text"]):
                return str(note["text"])
    text = compute()
    if entry is not None and entry == _entry_of(path, kind):  # else it changes while it is read
        with suppress(OSError, GteError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            with replace_whole(entry) as file:
                file.write(json.dumps({"text": text, "check": _check(text)}).encode())
    return text


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entry_of(path: ModelPath, kind: str) -> Path | None:
    """Where that is remembered for this content of a file; None if the content may still change unnoticed."""
    folder = cache_folder()
    if folder is None or not isinstance(path, Path) or not path.is_file():
        return None
    status = path.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if not 0 <= changed <= time.time_ns() - _SETTLED_NS:
        return None
    identity = [
        kind, os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    ]  # fmt: skip
    return folder / (_check(json.dumps(identity)) + _NOTE_SUFFIX)


def cached_bytes() -> tuple[int, int]:
    """How many models are in the cache, and the bytes of all its files."""
    files = _cached_files()
    sizes = {}
    for file in files:
        with suppress(OSError):  # another process removed it
            sizes[file] = file.stat().st_size
    return sum(file.suffix == _WEIGHTS_SUFFIX for file in sizes), sum(sizes.values())


def clear_cache() -> tuple[int, int]:
    """Removes all that `cached_bytes` counts, and returns that. Models that are open stay open."""
    counted = cached_bytes()
    for file in _cached_files():
        remove_leftovers(file)
        file.unlink(missing_ok=True)
    return counted


def cached_indexes() -> list[Path]:
    """The passage indexes of `gte mcp`, and what belongs to them."""
    folder = indexes_folder()
    return [] if folder is None or not folder.is_dir() else sorted(folder.glob("*.index*"))


def _cached_files() -> list[Path]:
    folder = cache_folder()
    if folder is None or not folder.is_dir():
        return []
    own = [file for file in folder.iterdir() if file.suffix in (_WEIGHTS_SUFFIX, _NOTE_SUFFIX)]
    return sorted({*own, *(rest for file in own for rest in leftovers(file))})
