"""A model directory in one file: a plain, uncompressed ZIP file whose first member lists the others with their hashes.

Any ZIP tool unpacks it (docs/model-directory.md describes the bytes). It is read from the front, without the ZIP
directory at its end, so a truncated file is noticed, with the member that it ends in. Every member that is read is
compared with its SHA-256. Nothing is unpacked to the disk.
"""

import hashlib
import io
import json
import mmap
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from gte_sdk.errors import InputError, ModelFormatError

FORMAT = "gte-bundle"
FORMAT_VERSION = 1
LIST_NAME = "bundle.json"
# A larger ZIP file needs other headers. No graph is larger: a protobuf has at most 2 GiB.
MAX_BYTES = 2**32 - 1
# What ZIP counts, and the list of so many members.
_MOST_MEMBERS, _MOST_LIST_BYTES = 2**16 - 1, 2**24

# ZIP's own structures: version 2.0, no compression, UTF-8 names, the earliest date that ZIP has.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION, _FLAGS, _TIME, _DATE, _MADE_BY, _MODE = 20, 0x0800, 0, 0x0021, 0x0314, 0o100644 << 16
_BLOCK_BYTES = 1 << 20


class Member(NamedTuple):
    offset: int
    """Of the content in the file."""
    bytes: int
    sha256: str


class Size(NamedTuple):
    st_size: int


@dataclass(frozen=True)
class BundlePath:
    """A path inside a bundle, with the methods of pathlib.Path that reading a model needs."""

    bundle: Path
    members: Mapping[str, Member]
    inside: str = ""
    hub_name: str | None = None
    """The Hub name of the model, if a Hub model was bundled."""

    def __str__(self) -> str:
        return f"{self.bundle}/{self.inside}" if self.inside else str(self.bundle)

    def __truediv__(self, name: str) -> "BundlePath":
        return replace(self, inside=f"{self.inside}/{name}" if self.inside else name)

    @property
    def name(self) -> str:
        return PurePosixPath(self.inside).name if self.inside else self.bundle.stem

    @property
    def sha256(self) -> str:
        """The hash in the bundle's list, which every read is compared with."""
        return self.members[self.inside].sha256

    def exists(self) -> bool:
        return self.is_file() or any(name.startswith(f"{self.inside}/" if self.inside else "") for name in self.members)

    def is_file(self) -> bool:
        return self.inside in self.members

    def stat(self) -> Size:
        return Size(self.members[self.inside].bytes)

    def read_bytes(self) -> bytes:
        """Raises ModelFormatError if the content does not have the recorded hash."""
        return bytes(self.mapped_bytes())

    def mapped_bytes(self) -> memoryview:
        """The content, mapped and not read. Raises ModelFormatError if it does not have the recorded hash."""
        offset, size, sha256 = self.members[self.inside]
        with self.bundle.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[offset : offset + size]
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ModelFormatError(
                f"{self} is damaged: its SHA-256 is not the one in {LIST_NAME}; copy the bundle again"
            )
        return content

    def read_text(self, encoding: str) -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb", mode
        return io.BytesIO(self.read_bytes())


def open_bundle(path: Path) -> BundlePath:
    """Reads the list of a bundle and checks the position of each member. Contents are checked when they are read.

    Raises ModelFormatError with the member for a file that is no bundle, newer, truncated or damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = _LOCAL.size + len(LIST_NAME)
        head = file.read(start)
        fields = _LOCAL.unpack(head[: _LOCAL.size]) if len(head) == start else None
        if fields is None or fields[0] != b"PK\3\4" or head[_LOCAL.size :] != LIST_NAME.encode():
            raise ModelFormatError(f"{path} is not a bundle of gte-sdk: it does not begin with {LIST_NAME}")
        if fields[8] > _MOST_LIST_BYTES:
            raise ModelFormatError(f"{path}/{LIST_NAME} has {fields[8]} bytes, more than any; copy the bundle again")
        content = file.read(fields[8])
        if len(content) != fields[8] or zlib.crc32(content) != fields[6]:
            raise ModelFormatError(f"{path}/{LIST_NAME} is damaged or cut off; copy the bundle again")
        members = {LIST_NAME: Member(start, len(content), hashlib.sha256(content).hexdigest())}
        position = start + len(content)
        files, hub_name = _read_list(path, content)
        for name, (length, sha256) in files.items():
            start = position + _LOCAL.size + len(name.encode())
            position = start + length
            if position > size:
                raise ModelFormatError(f"{path}/{name} is cut off: the file ends after {size} bytes; copy it again")
            _check_local_header(path, file, name, length)
            members[name] = Member(start, length, sha256)
            file.seek(position)
    end = position + sum(_CENTRAL.size + len(name.encode()) for name in members) + _END.size
    if size != end:
        raise ModelFormatError(f"{path} has {size} bytes where {end} belong: its ZIP directory is cut off or longer")
    return BundlePath(path, members, hub_name=hub_name)


def write_bundle(file: IO[bytes], sources: Mapping[str, Path], hub_name: str | None = None) -> None:
    """Writes a bundle to an open binary file.

    sources: the files by their POSIX paths inside the bundle. hub_name: the Hub name of the model, if it has one.
    The same files always give the same bytes, whatever their dates. Raises InputError if the files are too large, or
    if one changes while it is read.
    """
    if len(sources) >= _MOST_MEMBERS:
        raise InputError(
            f"{len(sources)} files are more than the {_MOST_MEMBERS - 1} of a bundle; name a model directory"
        )
    described = {name: _described(sources[name]) for name in sorted(sources)}
    listed = {name: {"bytes": length, "sha256": sha256} for name, (length, _, sha256) in described.items()}
    published = {"hub_name": hub_name} if hub_name else {}
    fields = {"format": FORMAT, "format_version": FORMAT_VERSION, **published, "files": listed}
    content = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    if (total := len(content) + sum(length + 1000 for length, _, _ in described.values())) > MAX_BYTES:
        raise InputError(f"{total} bytes are more than the {MAX_BYTES} of a bundle; choose one variant")
    directory = [(LIST_NAME, zlib.crc32(content), len(content), file.tell())]
    file.write(_local_header(LIST_NAME, zlib.crc32(content), len(content)) + content)
    for name, (length, checksum, sha256) in described.items():
        directory.append((name, checksum, length, file.tell()))
        file.write(_local_header(name, checksum, length))
        digest = hashlib.sha256()
        with sources[name].open("rb") as source:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise InputError(f"{sources[name]} changed while it was bundled; bundle it again")
    file.write(_zip_directory(directory, file.tell()))


def check_bundle(bundle: BundlePath) -> None:
    """Compares every member with its SHA-256, and the ZIP headers with the list, which ZIP tools do not read.

    Raises ModelFormatError with the member that is damaged.
    """
    directory = []
    for name, member in bundle.members.items():
        content = (bundle / name).read_bytes()
        offset = member.offset - _LOCAL.size - len(name.encode())
        directory.append((name, zlib.crc32(content), member.bytes, offset))
    with bundle.bundle.open("rb") as file:
        for name, checksum, length, offset in directory:
            file.seek(offset)
            header = _local_header(name, checksum, length)
            if file.read(len(header)) != header:
                raise ModelFormatError(f"{bundle.bundle}/{name} has a wrong ZIP header; copy the bundle again")
        end = max(member.offset + member.bytes for member in bundle.members.values())
        file.seek(end)
        if file.read() != _zip_directory(directory, end):
            raise ModelFormatError(
                f"{bundle.bundle} has a wrong ZIP directory, so ZIP tools unpack something else; copy the bundle again"
            )


def _zip_directory(entries: Sequence[tuple[str, int, int, int]], start: int) -> bytes:
    """The end of a ZIP file, which begins at `start`: name, CRC-32, bytes and offset of each member."""
    content = bytearray()
    for name, checksum, length, offset in entries:
        encoded = name.encode()
        content += _CENTRAL.pack(
            b"PK\1\2", _MADE_BY, _VERSION, _FLAGS, 0, _TIME, _DATE, checksum, length, length, len(encoded),
            0, 0, 0, 0, _MODE, offset,
        ) + encoded  # fmt: skip
    return bytes(content) + _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(content), start, 0)


def _local_header(name: str, checksum: int, length: int) -> bytes:
    encoded = name.encode()
    fields = (b"PK\3\4", _VERSION, _FLAGS, 0, _TIME, _DATE, checksum, length, length, len(encoded), 0)
    return _LOCAL.pack(*fields) + encoded


def _check_local_header(path: Path, file: IO[bytes], name: str, length: int) -> None:
    encoded = name.encode()
    head = file.read(_LOCAL.size + len(encoded))
    fields = _LOCAL.unpack(head[: _LOCAL.size])
    if head != _local_header(name, fields[6], length):
        raise ModelFormatError(f"{path}/{name} is damaged: its header is not that of {name}; copy the bundle again")


def _described(path: Path) -> tuple[int, int, str]:
    """Bytes, CRC-32 and SHA-256 of a file."""
    length, checksum, digest = 0, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            length += len(block)
            checksum = zlib.crc32(block, checksum)
            digest.update(block)
    return length, checksum, digest.hexdigest()


def _read_list(path: Path, content: bytes) -> tuple[dict[str, tuple[int, str]], str | None]:
    """Bytes and SHA-256 of each member, and the Hub name."""
    try:
        fields = json.loads(content)
        found, version = fields["format"], fields["format_version"]
        files = {name: (int(record["bytes"]), str(record["sha256"])) for name, record in fields["files"].items()}
        sizes_fit = all(len(name.encode()) <= 0xFFFF and length <= MAX_BYTES for name, (length, _) in files.items())
        hub_name = str(fields["hub_name"]) if "hub_name" in fields else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFormatError(f"{path}/{LIST_NAME} is not the list of a bundle: {error!r}") from error
    if (found, version) != (FORMAT, FORMAT_VERSION):
        raise ModelFormatError(
            f"{path} has format {found!r} version {version!r}; this gte-sdk reads {FORMAT!r} version {FORMAT_VERSION}: "
            "upgrade gte-sdk or make the bundle again"
        )
    if not sizes_fit or len(files) >= _MOST_MEMBERS:
        raise ModelFormatError(
            f"{path}/{LIST_NAME} records names, sizes or a number of files that no ZIP file has; copy the bundle again"
        )
    for name, (length, _) in files.items():
        if length < 0 or name == LIST_NAME or not _is_plain(name):
            raise ModelFormatError(f"{path}/{LIST_NAME} records {name!r} with {length} bytes, which cannot be a member")
    return files, hub_name


def _is_plain(name: str) -> bool:
    """Whether a member's name is a path below any folder, on every system and in one spelling only."""
    path = PurePosixPath(name)
    if not path.parts or str(path) != name or path.is_absolute() or PureWindowsPath(name).drive:
        return False
    return ".." not in path.parts and "\\" not in name and "\0" not in name
