"""What a long embedding has done so far: its vectors, batch after batch, in a file beside the output.

The output itself cannot be gone on with (a Parquet file has no end yet), so a resumed run writes it anew from the
start, takes the vectors of the first batches from here, and embeds the rest: every row once, the same bytes as of an
undisturbed run. The price is the vectors a second time on the disk until the end.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError

FORMAT = "gte-embed-journal 1"
ENDING = ".unfinished"
# Rows, SHA-256 of the texts, whether one of them was cut, CRC-32 of the vectors; then the vectors, float32.
_RECORD = struct.Struct("<Q32s?I")


class Kept(NamedTuple):
    vectors: NDArray[np.float32]
    """(n, dim)."""
    was_cut: bool


class VectorJournal:
    """Gives the kept batches in the order in which they were embedded, then takes new ones. Use it in a with-block."""

    def __init__(self, output: Path, dim: int, identity: Mapping[str, str], *, resume: bool, overwrite: bool) -> None:
        """`identity` says what made the vectors: a journal of another one is refused.

        Raises InputError for the journal of an earlier run, unless resume, to go on with it, or overwrite is given.
        """
        self.path = output.with_name(output.name + ENDING)
        self.row_count = 0
        """Rows given and taken so far."""
        self._dim = dim
        self._header = json.dumps({"format": FORMAT, "dim": dim, **identity}).encode() + b"\n"
        self._file: IO[bytes] | None = None
        self._reading = False
        if self.path.exists():
            if resume:
                self._open()
            elif overwrite:
                self.path.unlink()
            else:
                raise InputError(
                    f"{self.path} is of a run that did not end; give --resume to go on with it, or --overwrite to "
                    "start again"
                )

    def __enter__(self) -> "VectorJournal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, texts: Sequence[str]) -> Kept | None:
        """The vectors of the next batch where an earlier run embedded it; None from the first batch that it did not.

        Raises InputError where that batch had other texts.
        """
        if not self._reading or self._file is None:
            return None
        start = self._file.tell()
        head = self._file.read(_RECORD.size)
        if len(head) == _RECORD.size:
            count, digest, was_cut, checksum = _RECORD.unpack(head)
            content = self._file.read(count * self._dim * 4) if count < 2**32 else b""
            if len(content) == count * self._dim * 4 and zlib.crc32(content) == checksum:
                if (count, digest) != (len(texts), _digest(texts)):
                    first, last = self.row_count + 1, self.row_count + len(texts)
                    raise InputError(
                        f"rows {first} to {last} are not those that {self.path} was made from; give --overwrite "
                        "without --resume to start again"
                    )
                self.row_count += count
                return Kept(np.frombuffer(content, "<f4").reshape(count, self._dim), was_cut)
        # The run was killed while it wrote this batch; it is embedded again.
        self._file.seek(start)
        self._file.truncate()
        self._reading = False
        return None

    def append(self, texts: Sequence[str], vectors_ND: NDArray[np.float32], was_cut: bool) -> None:
        if self._file is None:
            self._file = self.path.open("xb")
            self._file.write(self._header)
        content = np.ascontiguousarray(vectors_ND, dtype="<f4").tobytes()
        self._file.write(_RECORD.pack(len(texts), _digest(texts), was_cut, zlib.crc32(content)) + content)
        self._file.flush()
        self.row_count += len(texts)

    def delete(self) -> None:
        """What it kept is in the output now."""
        if self._file is not None:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._file = self.path.open("r+b")
        header = self._file.readline(1 << 16)
        if header == self._header:
            self._reading = True
            return
        self._file.close()
        try:
            found = json.loads(header)
            known = isinstance(found, dict) and found.get("format") == FORMAT
        except ValueError:
            known = False
        if not known:
            raise InputError(f"{self.path} is not of an unfinished run of this gte-sdk; remove it to start again")
        wanted = json.loads(self._header)
        other = next(name for name in wanted if found.get(name) != wanted[name])
        raise InputError(
            f"{self.path} has {other} {found.get(other)}, this run {wanted[other]}; run it as before, or give "
            "--overwrite without --resume to start again"
        )


def _digest(texts: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
