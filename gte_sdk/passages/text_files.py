"""Finds the files of a folder that a person would search, whatever the folder contains.

Any file with text in it is taken: what its name does not tell, its first bytes do. Hidden files, what ignore files
name, folders of packages and builds, and generated files are left out, as in other search tools. A file that a person
names is read whatever its name. Everything that is left out is reported with its reason.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from gte_sdk.passages.reading.decoding import NoTextError, decode, looks_like_text
from gte_sdk.passages.reading.ignore_files import IgnoreFile, ignore_files_in, ignored_by, outer_ignore_files

Kind = Literal["markdown", "restructuredtext", "code", "text"]
Format = Literal["text", "html", "notebook", "pdf", "docx", "pptx", "odt", "epub"]
"""How the text of a file is read: "text" has only to be decoded."""

MAX_FILE_BYTES = 2 * 2**20
"""A larger file in a folder is generated or data more often than something to read."""
MAX_NAMED_FILE_BYTES = 16 * 2**20
"""The limit for a file that is named outright; it bounds the memory that a file can take."""
MAX_DOCUMENT_BYTES = 64 * 2**20
"""The limit for PDF and office documents, most of which is pictures."""

_SUFFIXES: dict[Kind, str] = {
    "markdown": ".md .markdown .mdown .mdx .qmd .rmd",
    "restructuredtext": ".rst .rest",
    "text": ".txt .text .org .adoc .asciidoc .tex .typ .log .json .jsonl .ndjson .csv .tsv .xml .srt .vtt",
    "code": """
        .py .pyi .pyx .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .m .mm .rs .go .java .kt .kts .scala .groovy .clj
        .cs .fs .fsx .vb .swift .dart .js .jsx .mjs .cjs .ts .tsx .mts .cts .vue .svelte .css .scss .less .php .rb
        .pl .pm .lua .r .jl .hs .ml .mli .ex .exs .erl .elm .zig .nim .d .pas .f90 .f95 .asm .s .sh .bash .zsh .fish
        .ps1 .bat .sql .proto .graphql .thrift .cmake .mk .gradle .tf .nix .toml .yaml .yml .ini .cfg .conf .el .lisp
    """,
}
_NAMES: dict[Kind, str] = {
    "text": """
        readme license licence copying notice changelog changes history news authors contributors contributing todo
        install maintainers
    """,
    "code": """
        makefile gnumakefile cmakelists.txt dockerfile containerfile jenkinsfile vagrantfile procfile rakefile gemfile
        justfile build.bazel
    """,
}
_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".html": "html", ".htm": "html", ".xhtml": "html", ".ipynb": "notebook", ".pdf": "pdf", ".docx": "docx",
    ".pptx": "pptx", ".odt": "odt", ".epub": "epub",
}  # fmt: skip
# What a file without such a name begins with.
_FORMAT_OF_HEAD: list[tuple[str, Format]] = [
    (r"%PDF-", "pdf"),
    (r"PK\x03\x04.{26}mimetypeapplication/epub\+zip", "epub"),
    (r"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.opendocument\.text", "odt"),
    (r"(?i)(\xef\xbb\xbf)?\s*(<!doctype html|<html)", "html"),
]
_HEAD_BYTES = 8192
# Never text, so they need not be opened to be told.
_BINARY_NAMES = """
    .png .jpg .jpeg .gif .bmp .ico .webp .tif .tiff .heic .avif .psd .svg .mp3 .wav .flac .ogg .m4a .mp4 .mov .avi
    .mkv .webm .zip .gz .bz2 .xz .zst .7z .rar .tar .tgz .jar .whl .iso .dmg .exe .dll .so .dylib .o .a .lib .pyc .class
    .wasm .ttf .otf .woff .woff2 .db .sqlite .parquet .npy .npz .onnx .safetensors .pt .bin .pack .idx
"""
_BINARY_SUFFIXES = frozenset(_BINARY_NAMES.split())
_GENERATED = ("*.min.js", "*.min.css", "*.map", "*.lock", "package-lock.json", "pnpm-lock.yaml", "go.sum")
_KIND_OF_SUFFIX: dict[str, Kind] = {suffix: kind for kind, names in _SUFFIXES.items() for suffix in names.split()}
_KIND_OF_NAME: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

_VENDORED_FOLDERS = (
    "node_modules", "bower_components", "__pycache__", "__pypackages__", "site-packages",
    "build", "_build", "dist", "*.egg-info", "cmake-build-*", "vendor", "third_party",
)  # fmt: skip
# Files that mark the folder they lie in as a virtual environment, a cache or a build.
_VENDORED_MARKERS = ("pyvenv.cfg", "CACHEDIR.TAG", "CMakeCache.txt", "conda-meta")


class Wanted(NamedTuple):
    """Which files of a folder to read. Names and paths below the folder are matched as by `fnmatch`."""

    globs: Sequence[str] = ()
    """Where given, only files that match one of them; hidden ones too."""
    excludes: Sequence[str] = ()
    """Files and folders to leave out."""
    types: Sequence[str] = ()
    """Where given, only files of one of these kinds ("code") or suffixes ("pdf")."""
    ignore_files: bool = True
    """Whether to leave out what ignore files say, and folders of packages and builds."""


class LeftOut(NamedTuple):
    """A file or folder that is not read, or not to its end."""

    path: Path
    reason: str
    """A few words, the same for all files of one cause."""
    detail: str = ""
    """What happened to this file; "" for what is left out of every folder as a matter of course."""


LeaveOut = Callable[[LeftOut], None]


EVERYTHING = Wanted()
_IN_ONE_PIECE = ("text", "html", "notebook")
NEEDS_EXTRA = "needs pip install 'gte-sdk[documents]'"


def kind_of(path: Path) -> Kind | None:
    """Returns how to split a file, from its name alone; None if the name is not known to be text."""
    return _KIND_OF_NAME.get(path.name.lower()) or _KIND_OF_SUFFIX.get(path.suffix.lower())


def format_of(path: Path, head: bytes) -> Format:
    """Returns how to read a file, from its name, or from its first bytes if the name says nothing."""
    if kind_of(path):
        return "text"
    if path.suffix.lower() in _FORMAT_OF_SUFFIX:
        return _FORMAT_OF_SUFFIX[path.suffix.lower()]
    text = head[:_HEAD_BYTES].decode("latin-1")
    return next((format for pattern, format in _FORMAT_OF_HEAD if re.match(pattern, text, re.DOTALL)), "text")


def find_text_files(paths: Iterable[Path], wanted: Wanted = EVERYTHING, *, leave_out: LeaveOut) -> Iterator[Path]:
    """Yields the files at and below `paths` that hold text, folders in the order of names, each file once.

    Args:
        paths: Folders and files. A path that is given is never left out for its name.
        wanted: Which files to take from folders.
        leave_out: Called for each file or folder below `paths` that is not taken, but not for what `wanted` does not
            ask for, and for each of `paths` that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        named = not path.is_dir()
        for file in [path] if named else _files_below(path, wanted, leave_out):
            try:
                status = file.stat()
            except OSError as error:
                leave_out(_unreadable(file, error))
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            left_out = _why_not(file, status, named)
            if left_out:
                leave_out(left_out)
            else:
                yield file


def read_content(path: Path, leave_out: LeaveOut) -> bytes | None:
    """Returns the bytes of a file, as many as its format may have. If it cannot: None, after a call of `leave_out`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            limit = MAX_NAMED_FILE_BYTES if format_of(path, head) in _IN_ONE_PIECE else MAX_DOCUMENT_BYTES
            content = head + file.read(limit + 1 - len(head))
    except OSError as error:
        leave_out(_unreadable(path, error))
        return None
    if len(content) > limit:
        leave_out(LeftOut(path, "too large", f"more than {_limit(limit)}"))
        return None
    return content


def read_text(path: Path, leave_out: LeaveOut) -> str | None:
    """Returns the text of a file that has only to be decoded. If it cannot: None, after a call of `leave_out`."""
    content = read_content(path, leave_out)
    try:
        return None if content is None else decode(content)
    except NoTextError as error:
        leave_out(LeftOut(path, *error.args))
        return None


def _why_not(path: Path, status: os.stat_result, named: bool) -> LeftOut | None:
    if not stat.S_ISREG(status.st_mode):
        return LeftOut(path, "no regular file", "not a regular file")
    head = b""
    if not kind_of(path) and path.suffix.lower() not in _FORMAT_OF_SUFFIX:
        if path.suffix.lower() in _BINARY_SUFFIXES and not named:
            return LeftOut(path, "binary")
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except OSError as error:
            return _unreadable(path, error)
    format = format_of(path, head)
    if format == "text" and head and not named and not looks_like_text(head):
        return LeftOut(path, "binary")
    if format == "pdf" and find_spec("pypdf") is None:
        return LeftOut(path, NEEDS_EXTRA)
    size = f"{status.st_size / 2**20:.1f} MiB"
    limit = MAX_NAMED_FILE_BYTES if format in _IN_ONE_PIECE else MAX_DOCUMENT_BYTES
    if status.st_size > limit:
        return LeftOut(path, "too large", f"{size}, at most {_limit(limit)} are read")
    if status.st_size > MAX_FILE_BYTES and format in _IN_ONE_PIECE and not named:
        return LeftOut(path, "too large", f"{size}, more than {_limit(MAX_FILE_BYTES)}; name it to search it")
    return None


def _unreadable(path: Path, error: OSError) -> LeftOut:
    return LeftOut(path, "unreadable", str(error.strerror or error))


def _limit(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _files_below(folder: Path, wanted: Wanted, leave_out: LeaveOut) -> Iterator[Path]:
    def notice(ignore_file: Path, why: str) -> None:
        leave_out(LeftOut(ignore_file, "ignore file not obeyed", why))

    top = folder.resolve()
    ignores = {top: outer_ignore_files(top, notice)} if wanted.ignore_files else {}
    for root, folder_names, file_names in os.walk(
        folder, onerror=lambda error: leave_out(_unreadable(Path(error.filename), error))
    ):
        below = Path(root).relative_to(folder)
        here = top / below
        rules = ignores.pop(here, [])
        if wanted.ignore_files:
            rules = rules + ignore_files_in(here, file_names, notice)
        entered = []
        for name in sorted(folder_names):
            path = Path(root, name)
            if matches(below / name, wanted.excludes):
                continue
            left_out = _why_not_folder(path, wanted.ignore_files) or _ignored(path, here, rules, is_folder=True)
            if left_out:
                leave_out(left_out)
            else:
                entered.append(name)
                if rules:
                    ignores[here / name] = rules
        folder_names[:] = entered
        for name in sorted(file_names):
            if not _is_wanted(below / name, wanted) or matches(below / name, wanted.excludes):
                continue
            path = Path(root, name)
            if name.startswith(".") and not wanted.globs:
                leave_out(LeftOut(path, "hidden"))
            elif left_out := _ignored(path, here, rules, is_folder=False):
                leave_out(left_out)
            elif any(fnmatchcase(name.lower(), pattern) for pattern in _GENERATED) and not wanted.globs:
                leave_out(LeftOut(path, "generated"))
            else:
                yield path


def _why_not_folder(path: Path, leaves_vendored_out: bool) -> LeftOut | None:
    if path.name.startswith("."):
        return LeftOut(path, "hidden")
    if path.is_symlink():
        return LeftOut(path, "link", "a link to a folder; not followed (name it to search it)")
    if leaves_vendored_out and (
        matches(Path(path.name), _VENDORED_FOLDERS)
        or any(os.path.lexists(path / marker) for marker in _VENDORED_MARKERS)
    ):
        return LeftOut(path, "package or build")
    return None


def _ignored(path: Path, parent: Path, rules: list[IgnoreFile], is_folder: bool) -> LeftOut | None:
    source = ignored_by(rules, parent / path.name, is_folder)
    return LeftOut(path, f"ignored by {source.name}") if source else None


def _is_wanted(below: Path, wanted: Wanted) -> bool:
    suffix = below.suffix.lower()
    types = {kind_of(below) or _FORMAT_OF_SUFFIX.get(suffix), suffix.removeprefix(".")}
    return (not wanted.globs or matches(below, wanted.globs)) and (
        not wanted.types or not types.isdisjoint(wanted.types)
    )


def is_wanted_below(below: Path, wanted: Wanted) -> bool:
    """Returns whether a file, by its path below a folder, would be read from there, whatever ignore files say."""
    folders = [*below.parents][:-1]  # without "."
    return _is_wanted(below, wanted) and not any(matches(part, wanted.excludes) for part in (below, *folders))


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Returns whether the name or the whole of a relative path matches one of the patterns of `fnmatch`."""
    return any(fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern) for pattern in patterns)
