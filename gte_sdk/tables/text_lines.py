"""Reads the lines of a text file: decompressed, decoded, and none longer than MAX_ROW_BYTES.

The limit bounds memory for every file, even for an endless device. A model reads a few thousand characters of a text,
so a longer line is a mistake or an attack.
"""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from gte_sdk.errors import InputError

# With a few copies, of four bytes a character, it stays below 64 MiB.
MAX_ROW_BYTES = 3 * 2**20
_PIECE_CHARACTERS = 1 << 16
# UTF-8 text begins with neither.
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(file: IO[bytes], name: str, encoding: str, *, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yields numbered lines of a plain, gzip or Zstandard file, without line endings unless `keep_ends` is given.

    Raises InputError with the line number if a line is too long, damaged, or in another encoding.
    """
    codec = _check_encoding(encoding)
    decompressed = _decompressed(file, name)
    lines = _utf8_lines(decompressed, name) if codec == "utf-8" else _other_lines(decompressed, name, encoding)
    for number, line in lines:
        yield number, line if keep_ends else line.removesuffix("\n").removesuffix("\r")


def read_pieces(file: IO[bytes], name: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields the text of such a file in numbered pieces, whatever its lines are: a JSON array is often one line."""
    _check_encoding(encoding)
    text = _text_of(_decompressed(file, name), encoding)
    number = 0
    try:
        while piece := _read(text.read, _PIECE_CHARACTERS, name, number, encoding):
            number += 1
            yield number, piece.removeprefix("\ufeff") if number == 1 else piece
    finally:
        _detach(text)


def too_long(name: str, what: str) -> InputError:
    """Returns the error for a line or row above the limit; `what` names it."""
    return InputError(f"{name}, {what} has more than {MAX_ROW_BYTES // 2**20} MiB; split it into several texts")


def _utf8_lines(file: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    number = 0
    while line := _read(file.readline, MAX_ROW_BYTES + 1, name, number):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise too_long(name, f"line {number}")
        if number == 1:
            if line.startswith(_BYTE_ORDER_MARKS):
                raise InputError(f"{name}: UTF-16, not UTF-8", remedy="encoding utf-16")
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}, line {number}: not UTF-8 at byte {error.start}", remedy="encoding") from error


def _other_lines(file: IO[bytes], name: str, encoding: str) -> Iterator[tuple[int, str]]:
    text = _text_of(file, encoding)
    number = 0
    try:
        while line := _read(text.readline, MAX_ROW_BYTES + 1, name, number, encoding):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise too_long(name, f"line {number}")
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    finally:
        _detach(text)


def _check_encoding(encoding: str) -> str:
    """Returns the usual name of an encoding."""
    try:
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:  # ValueError: a NUL in it
        raise InputError(f"encoding={encoding!r}: {error}; give a name such as utf-16, cp1252 or latin-1") from error


def _text_of(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    try:
        return io.TextIOWrapper(cast(Any, file), encoding, newline="\n")
    except LookupError as error:  # base64 and the like
        raise InputError(f"encoding={encoding!r}: {error}; give a name such as utf-16, cp1252 or latin-1") from error


def _detach(text: io.TextIOWrapper) -> None:
    with contextlib.suppress(ValueError):  # the caller closed the file first
        text.detach()  # which would close the file of the caller


def _read(readline: Any, limit: int, name: str, number: int, encoding: str = "") -> Any:
    try:
        return readline(limit)
    except UnicodeError as error:
        raise InputError(f"{name}, after line {number}: not {encoding}: {error}", remedy="encoding") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: pyarrow's own
        raise InputError(f"{name}, after line {number}: {error}") from error


def _decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    buffered = cast(io.BufferedReader, file if hasattr(file, "peek") else io.BufferedReader(cast(Any, file)))
    try:
        start = buffered.peek(4)[:4]
    except OSError as error:
        raise InputError(f"{name}: {error}") from error
    if start.startswith(_GZIP_MAGIC):
        return cast(IO[bytes], gzip.GzipFile(fileobj=buffered))
    if start == _ZSTD_MAGIC:
        try:
            import pyarrow
        except ImportError as error:
            raise InputError(f"{name}: Zstandard needs pyarrow: pip install 'gte-sdk[cli]'") from error
        return cast(IO[bytes], io.BufferedReader(pyarrow.CompressedInputStream(buffered, "zstd")))
    return buffered
