"""Finds the files of a folder that a person would search, and reads their text whatever they contain.

Files are chosen by suffix or name, as code hosts do. Guessing from the content would include data, lock files and
generated code. A file that a person names is read whatever its name. `notice` gets a line for each file that is skipped
for an unexpected reason: unreadable, not UTF-8, too large. Folders that every tool skips (.git, node_modules) are
skipped silently.
"""

import codecs
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

Kind = Literal["markdown", "restructuredtext", "code", "text"]
Notice = Callable[[str], None]

MAX_FILE_BYTES = 2 * 2**20
"""A larger file in a folder is generated or data more often than something to read."""
MAX_NAMED_FILE_BYTES = 16 * 2**20
"""The limit for a file that is named outright; it bounds the memory that a file can take."""
MAX_LINES = 250_000
"""More are data. Each takes up to 240 bytes while a file is split."""

_SUFFIXES: dict[Kind, str] = {
    "markdown": ".md .markdown .mdown .mdx .qmd .rmd",
    "restructuredtext": ".rst .rest",
    "text": ".txt .text .org .adoc .asciidoc .tex .typ",
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
_KIND_OF_SUFFIX: dict[str, Kind] = {suffix: kind for kind, names in _SUFFIXES.items() for suffix in names.split()}
_KIND_OF_NAME: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

_SKIPPED_FOLDERS = (
    "node_modules", "bower_components", "__pycache__", "__pypackages__", "site-packages",
    "build", "_build", "dist", "*.egg-info", "cmake-build-*",
)  # fmt: skip
# Files that mark the folder they lie in as a virtual environment, a cache or a build.
_SKIP_MARKERS = ("pyvenv.cfg", "CACHEDIR.TAG", "CMakeCache.txt", "conda-meta")


def kind_of(path: Path) -> Kind | None:
    """Returns how to split a file, from its name alone; None if the name is not known to be text."""
    return _KIND_OF_NAME.get(path.name.lower()) or _KIND_OF_SUFFIX.get(path.suffix.lower())


def find_text_files(
    paths: Iterable[Path], *, globs: Sequence[str] = (), excludes: Sequence[str] = (), notice: Notice
) -> Iterator[Path]:
    """Yields the text files at and below `paths`, folders in the order of names, each file once.

    Hidden files and folders, build and package folders and links to folders are left out below `paths`.

    Args:
        paths: Folders and files. A path that is given is never skipped for its name.
        globs: Where given, the files in folders whose name or path below the folder matches one of them, instead of
            those of a known kind.
        excludes: Files and folders to leave out, matched in the same way.
        notice: Gets one line for each file or folder that could not be read, is too large or is no regular file.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        named = not path.is_dir()
        for file in [path] if named else _files_below(path, globs, excludes, notice):
            try:
                status = file.stat()
            except OSError as error:
                notice(f"{file}: {error.strerror or error}; skipped")
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if not stat.S_ISREG(status.st_mode):
                notice(f"{file}: not a regular file; skipped")
            elif status.st_size > MAX_NAMED_FILE_BYTES:
                notice(f"{file}: {status.st_size / 2**20:.1f} MiB; skipped ({_limit(MAX_NAMED_FILE_BYTES)} at most)")
            elif status.st_size > MAX_FILE_BYTES and not named:
                limit = _limit(MAX_FILE_BYTES)
                notice(f"{file}: {status.st_size / 2**20:.1f} MiB, more than {limit}; skipped (name it to search it)")
            else:
                yield file


def read_text(path: Path, notice: Notice) -> str | None:
    """Returns the text of a file in UTF-8, or UTF-16 with a byte order mark. If it cannot: a notice, and None."""
    content = read_content(path, notice)
    return None if content is None else decode_text(path, content, notice)


def read_content(path: Path, notice: Notice) -> bytes | None:
    """Returns the bytes of a file, at most MAX_NAMED_FILE_BYTES. If it cannot: a notice, and None."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_NAMED_FILE_BYTES + 1)
    except OSError as error:
        notice(f"{path}: {error.strerror or error}; skipped")
        return None
    if len(content) > MAX_NAMED_FILE_BYTES:
        notice(f"{path}: more than {_limit(MAX_NAMED_FILE_BYTES)}; skipped")
        return None
    return content


def decode_text(path: Path, content: bytes, notice: Notice) -> str | None:
    """Returns the text of bytes that were read from `path`, as `read_text` does."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not utf16 and b"\0" in content:
        notice(f"{path}: a binary file; skipped")
        return None
    if max(content.count(b"\n"), content.count(b"\r")) > MAX_LINES:
        notice(f"{path}: more than {MAX_LINES:,} lines; skipped")
        return None
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        notice(f"{path}: not {error.encoding.upper()} at byte {error.start}; skipped (convert it to UTF-8)")
        return None


def _limit(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _files_below(folder: Path, globs: Sequence[str], excludes: Sequence[str], notice: Notice) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        notice(f"{error.filename}: {error.strerror or error}; skipped")

    for root, folder_names, file_names in os.walk(folder, onerror=unreadable):
        below = Path(root).relative_to(folder)
        entered = []
        for name in sorted(folder_names):
            path = Path(root, name)
            if _is_skipped_folder(path) or _matches(below / name, excludes):
                continue
            if path.is_symlink():
                notice(f"{path}: a link to a folder; not followed (name it to search it)")
            else:
                entered.append(name)
        folder_names[:] = entered
        for name in sorted(file_names):
            wanted = _matches(below / name, globs) if globs else kind_of(Path(name)) and not name.startswith(".")
            if wanted and not _matches(below / name, excludes):
                yield Path(root, name)


def _is_skipped_folder(path: Path) -> bool:
    if path.name.startswith(".") or any(fnmatchcase(path.name, pattern) for pattern in _SKIPPED_FOLDERS):
        return True
    return any(os.path.lexists(path / marker) for marker in _SKIP_MARKERS)


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern) for pattern in patterns)
