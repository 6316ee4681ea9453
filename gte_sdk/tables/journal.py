"""The finished vectors of a long run, batch by batch, in a file beside the output.

A half-written output cannot be continued: a Parquet file without its end is unreadable. A resumed run therefore writes
the output again from its start, takes the first vectors from this journal, and embeds the rest. The output has every
row once, and the same bytes as that of an uninterrupted run. Until the end, the vectors need twice the disk space.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError
from gte_sdk.tables.unfinished import check_choice, check_same_run, unfinished_path

FORMAT = "gte-embed-journal 1"
_MOST_HEADER_BYTES = 1 << 16
# Rows, SHA-256 of the texts, whether one of them was cut, CRC-32 of the vectors; then the vectors, float32.
_RECORD = struct.Struct("<Q32s?I")


class Kept(NamedTuple):
    vectors: NDArray[np.float32]
    """(n, dim)."""
    was_cut: bool


class VectorJournal:
    """Returns the kept batches in order, then takes new ones. Use it as a context manager."""

    def __init__(self, output: Path, dim: int, identity: Mapping[str, str], *, resume: bool, overwrite: bool) -> None:
        """`identity` says what makes the vectors; the journal of another identity is refused.

        Raises InputError for the journal of an earlier run unless resume (continue it) or overwrite is given.
        """
        self.path = unfinished_path(output)
        self.row_count = 0
        """The number of rows so far."""
        self._dim = dim
        self._header = json.dumps({"format": FORMAT, "dim": dim, **identity}).encode() + b"\n"
        self._file: IO[bytes] | None = None
        self._reading = False
        if self.path.exists():
            check_choice(self.path, resume=resume, overwrite=overwrite)
            if resume:
                self._open()
            else:
                self.path.unlink()

    def __enter__(self) -> "VectorJournal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, texts: Sequence[str]) -> Kept | None:
        """Returns the next batch if an earlier run embedded it, and None from the first batch that it did not.

        Raises InputError if that batch had other texts.
        """
        if not self._reading or self._file is None:
            return None
        start = self._file.tell()
        head = self._file.read(_RECORD.size)
        if len(head) == _RECORD.size:
            count, digest, was_cut, checksum = _RECORD.unpack(head)
            vectors_ND = self._vectors(count, checksum)
            if vectors_ND is not None:
                if (count, digest) != (len(texts), _digest(texts)):
                    first, last = self.row_count + 1, self.row_count + len(texts)
                    raise InputError(
                        f"rows {first} to {last} are not those that {self.path} was made from", remedy="other rows"
                    )
                self.row_count += count
                return Kept(vectors_ND, was_cut)
        # The run was killed while it wrote this batch; it is embedded again.
        self._file.seek(start)
        self._file.truncate()
        self._reading = False
        return None

    def _vectors(self, count: int, checksum: int) -> NDArray[np.float32] | None:
        """Reads the next vectors; None if they are incomplete or damaged."""
        assert self._file is not None
        size = count * self._dim * 4
        if size > os.fstat(self._file.fileno()).st_size:
            return None
        content = self._file.read(size)
        if len(content) < size or zlib.crc32(content) != checksum:
            return None
        vectors_ND = np.frombuffer(content, "<f4").reshape(count, self._dim)
        return vectors_ND if np.isfinite(vectors_ND).all() else None

    def append(self, texts: Sequence[str], vectors_ND: NDArray[np.float32], was_cut: bool) -> None:
        if self._file is None:
            self._file = self.path.open("xb")
            self._file.write(self._header)
        content = np.ascontiguousarray(vectors_ND, dtype="<f4").tobytes()
        self._file.write(_RECORD.pack(len(texts), _digest(texts), was_cut, zlib.crc32(content)) + content)
        self._file.flush()
        self.row_count += len(texts)

    def delete(self) -> None:
        """Deletes the file, once the output contains all of it."""
        if self._file is not None:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._file = self.path.open("r+b")
        header = self._file.readline(_MOST_HEADER_BYTES)
        if header == self._header:
            self._reading = True
            return
        self._file.close()
        try:
            found = json.loads(header)
        except (ValueError, RecursionError):
            found = None
        check_same_run(self.path, found, json.loads(self._header))
        raise InputError(f"{self.path} has another header than this run writes", remedy="other run")


def _digest(texts: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
