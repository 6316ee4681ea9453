"""The index file: a header, the sections of the index, and a checksum for each megabyte (docs/index-format.md).

A save replaces the file whole (gte_sdk.atomic_file). An open checks every byte before it answers: the sections are then
read in place, from the memory map or from the copy in memory.
"""

import mmap as memory_map
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.atomic_file import replace_whole
from gte_sdk.errors import IndexFormatError
from gte_sdk.threads import available_threads

MAGIC = b"\x89GTEIX\r\n"
VERSION = 1
ROW_TYPES = ("float32", "float16", "int8", "binary")
SECTIONS = ("rows", "scales", "ids", "id_text", "floats", "fingerprint", "checksums")
HEADER_BYTES = 4096
BLOCK_BYTES = 1 << 20
ALIGNMENT = 64
# Magic, version, dim, dtype, kind of ids, rows, next id, file size, block size, count of sections; then offset and size
# of each section.
_FIELDS = struct.Struct("<8sIIIIQqQII")
_SECTION = struct.Struct("<QQ")
_CHECKSUM = struct.Struct("<I")


class IndexContent(NamedTuple):
    """What a file holds, as arrays of bytes and numbers that belong together (n rows)."""

    dim: int
    dtype: str
    fingerprint: str | None
    next_id: int
    rows: NDArray[np.uint8]
    """(n, stored bytes) as `_kernels.encode` makes them."""
    scales: NDArray[np.float32]
    """(n,) for int8 and binary, else (0,)."""
    floats: NDArray[np.uint8] | None
    """(n, 4 * dim) float32 rows for rescoring."""
    ids: NDArray[Any]
    """(n,) int64, or object that holds str."""


def stored_row_bytes(dim: int, dtype: str) -> int:
    """Bytes of one stored row: its values, then zeros up to whole words of 32 bits."""
    bits = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}[dtype]
    return -(-dim * bits // 32) * 4


def write_index(path: Path, content: IndexContent, live: NDArray[np.uint32] | None) -> None:
    """Writes the `live` rows (None: all) to `path`, atomically. OSError where the disk refuses: `path` is as it was."""
    with replace_whole(path) as file:
        _write(file, content, live)


def _write(file: IO[bytes], content: IndexContent, live: NDArray[np.uint32] | None) -> None:
    ids = content.ids if live is None else content.ids[live]
    id_bytes, id_text = _encoded_ids(ids)
    sections: list[Iterable[Any]] = [
        _chunks(content.rows, live),
        _chunks(content.scales, live if len(content.scales) else None),
        [id_bytes],
        [id_text],
        [] if content.floats is None else _chunks(content.floats, live),
        [(content.fingerprint or "").encode()],
    ]
    file.write(bytes(HEADER_BYTES))
    places: list[tuple[int, int]] = []
    for chunks in sections:
        file.write(bytes(-file.tell() % ALIGNMENT))
        start = file.tell()
        for chunk in chunks:
            file.write(chunk)
        places.append((start, file.tell() - start))
    file.flush()
    data_end = file.tell()
    with memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ) as data:
        checksums = _block_checksums(memoryview(data)[HEADER_BYTES:data_end]).astype("<u4").tobytes()
    file.write(checksums + _checksum(checksums))
    places.append((data_end, len(checksums) + _CHECKSUM.size))
    header = _FIELDS.pack(
        MAGIC,
        VERSION,
        content.dim,
        ROW_TYPES.index(content.dtype),
        int(ids.dtype == object),
        len(ids),
        content.next_id,
        file.tell(),
        BLOCK_BYTES,
        len(SECTIONS),
    )
    header += b"".join(_SECTION.pack(*place) for place in places)
    header = header.ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
    file.seek(0)
    file.write(header + _checksum(header))


def _chunks(rows: NDArray[Any], live: NDArray[np.uint32] | None) -> Iterable[Any]:
    """The bytes of the live rows, a few megabytes at a time: a selection of rows is a copy."""
    step = max(1, (8 << 20) // max(1, rows[:1].nbytes))
    for start in range(0, len(rows) if live is None else len(live), step):
        chunk = rows[start : start + step] if live is None else rows[live[start : start + step]]
        yield np.ascontiguousarray(chunk).view(np.uint8).data


def _encoded_ids(ids: NDArray[Any]) -> tuple[bytes, bytes]:
    """The sections ids and id_text: 64-bit numbers, or where each text begins and the texts."""
    if ids.dtype != object:
        return ids.astype("<i8").tobytes(), b""
    texts = [id.encode() for id in ids]
    offsets = np.zeros(len(texts) + 1, "<u8")
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return offsets.tobytes(), b"".join(texts)


def read_index(path: Path, *, mmap: bool, verify: bool) -> IndexContent:
    """Reads and checks an index file.

    Raises FileNotFoundError, and IndexFormatError for a file that is truncated, damaged, foreign or newer; the message
    has the path and the block. verify=False leaves out the checksums of the blocks, not those of the header.
    """
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
        raise IndexFormatError(f"{path} is not a regular file; name an index that Index.save wrote")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < HEADER_BYTES:
            raise IndexFormatError(f"{path}: {size} bytes are less than a header; the file is truncated or foreign")
        data: NDArray[np.uint8]
        if mmap:
            data = np.frombuffer(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ), np.uint8)
        else:
            data = np.fromfile(file, np.uint8)
    return _Reader(path, data).content(verify)


class _Reader:
    """One pass over the bytes of a file; every refusal names the path."""

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self.path = path
        self.data = data
        self.sections: dict[str, NDArray[np.uint8]] = {}

    def content(self, verify: bool) -> IndexContent:
        header = self.data[:HEADER_BYTES].tobytes()
        magic, version, dim, dtype_code, id_kind, row_count, next_id, size, block_bytes, section_count = (
            _FIELDS.unpack_from(header)
        )
        if magic != MAGIC:
            self.refuse("it does not begin with the mark of an index file; it is foreign, or its header is damaged")
        if version != VERSION:
            self.refuse(f"format version {version}; this gte-sdk reads {VERSION}: upgrade it, or build the index again")
        if header[-_CHECKSUM.size :] != _checksum(header[: -_CHECKSUM.size]):
            self.refuse("the header is damaged (checksum); restore a copy or build the index again")
        if size != len(self.data):
            self.refuse(f"{len(self.data)} bytes, but the header says {size}: the file is truncated or was appended to")
        kinds_known = dtype_code < len(ROW_TYPES) and id_kind < 2
        layout_known = block_bytes == BLOCK_BYTES and section_count == len(SECTIONS)
        if not kinds_known or not layout_known or not 1 <= dim <= _kernels.MAX_DIM or row_count > _kernels.MAX_ROWS:
            self.refuse("the header has values that format version 1 does not know")
        self.find_sections(header)
        if verify:
            self.check_blocks()
        dtype = ROW_TYPES[dtype_code]
        scaled = dtype in ("int8", "binary")
        rows = self.table("rows", row_count, stored_row_bytes(dim, dtype))
        scales = self.table("scales", row_count if scaled else 0, 4).view("<f4").reshape(-1)
        floats = self.table("floats", row_count, 4 * dim) if self.sections["floats"].size else None
        fingerprint = self.text("fingerprint", self.sections["fingerprint"].tobytes()) or None
        ids = self.ids(row_count, id_kind == 1)
        self.check_scales(scales)
        self.check_ids(ids, next_id)
        if verify and dtype == "int8":
            self.check_codes(rows)
        return IndexContent(dim, dtype, fingerprint, next_id, rows, scales, floats, ids)

    def refuse(self, reason: str) -> NoReturn:
        raise IndexFormatError(f"{self.path}: {reason}")

    def find_sections(self, header: bytes) -> None:
        end = HEADER_BYTES
        for number, name in enumerate(SECTIONS):
            offset, size = _SECTION.unpack_from(header, _FIELDS.size + number * _SECTION.size)
            start = end if name == "checksums" else end + -end % ALIGNMENT
            if offset != start or offset + size > len(self.data):
                self.refuse(f"section {name} is said to be at {offset} with {size} bytes; it begins at {start}")
            self.sections[name] = self.data[offset : offset + size]
            end = offset + size
        if end != len(self.data):
            self.refuse(f"{len(self.data) - end} bytes follow the last section")

    def check_blocks(self) -> None:
        stored = self.sections["checksums"].tobytes()
        data_end = len(self.data) - len(stored)
        if len(stored) < _CHECKSUM.size or stored[-_CHECKSUM.size :] != _checksum(stored[: -_CHECKSUM.size]):
            self.refuse("the table of checksums is damaged; restore a copy or build the index again")
        if len(stored) % _CHECKSUM.size:
            self.refuse(f"the table of checksums has {len(stored)} bytes, which are no whole numbers")
        expected = np.frombuffer(stored[: -_CHECKSUM.size], "<u4")
        found = _block_checksums(self.data[HEADER_BYTES:data_end])
        if len(expected) != len(found):
            self.refuse(f"the table of checksums has {len(expected)} blocks, the file {len(found)}")
        damaged = np.flatnonzero(expected != found)
        if damaged.size:
            start = HEADER_BYTES + int(damaged[0]) * BLOCK_BYTES
            end = min(start + BLOCK_BYTES, data_end)
            self.refuse(
                f"block {damaged[0]} (bytes {start} to {end}) is damaged, and {damaged.size - 1} more of {len(found)}; "
                "restore a copy or build the index again"
            )

    def table(self, name: str, row_count: int, row_bytes: int) -> NDArray[np.uint8]:
        section = self.sections[name]
        if section.size != row_count * row_bytes:
            self.refuse(f"section {name} has {section.size} bytes, {row_count} rows need {row_count * row_bytes}")
        return section.reshape(row_count, row_bytes)

    def ids(self, row_count: int, are_texts: bool) -> NDArray[Any]:
        if not are_texts:
            return self.table("ids", row_count, 8).view("<i8").reshape(-1)
        offsets = self.table("ids", row_count + 1, 8).view("<u8").reshape(-1)
        text = self.sections["id_text"].tobytes()
        if offsets[0] != 0 or offsets[-1] != len(text) or (offsets[1:] < offsets[:-1]).any():
            self.refuse("the offsets of the ids do not ascend to the end of their text")
        ids = np.empty(row_count, object)
        starts = offsets.tolist()
        for row in range(row_count):
            ids[row] = self.text("id_text", text[starts[row] : starts[row + 1]])
        return ids

    def check_scales(self, scales: NDArray[np.float32]) -> None:
        wrong = np.flatnonzero(~((scales >= 0) & (scales <= 1)))  # NaN too
        if wrong.size:
            self.refuse(f"the scale of row {wrong[0]} is {scales[wrong[0]]}, not in 0 to 1; build the index again")

    def check_ids(self, ids: NDArray[Any], next_id: int) -> None:
        if ids.dtype == object:
            are_unique, highest = len(set(ids)) == len(ids), -1
        else:
            ascend = bool((ids[1:] > ids[:-1]).all())
            are_unique, highest = ascend or len(np.unique(ids)) == len(ids), int(ids.max(initial=-1))
        if not are_unique:
            self.refuse("an id is there twice; build the index again")
        if next_id <= highest:
            self.refuse(f"the next id is {next_id}, not above the highest, {highest}; build the index again")

    def check_codes(self, rows: NDArray[np.uint8]) -> None:
        step = max(1, (8 << 20) // rows.shape[1])
        for start in range(0, len(rows), step):
            wrong = np.flatnonzero((rows[start : start + step] == 0x80).any(axis=1))
            if wrong.size:
                self.refuse(f"row {start + wrong[0]} holds the code -128, which int8 rows have not; build it again")

    def text(self, name: str, encoded: bytes) -> str:
        try:
            return encoded.decode()
        except UnicodeDecodeError:
            raise IndexFormatError(f"{self.path}: section {name} is not UTF-8") from None


def _block_checksums(data: Any) -> NDArray[np.uint32]:
    return _kernels.block_checksums(data, BLOCK_BYTES, threads=available_threads())


def _checksum(data: bytes) -> bytes:
    return _CHECKSUM.pack(int(_kernels.block_checksums(data, len(data))[0])) if data else bytes(_CHECKSUM.size)
