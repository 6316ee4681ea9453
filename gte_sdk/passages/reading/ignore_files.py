"""What `.gitignore`, `.ignore`, `.git/info/exclude` and git's global excludes leave out of a folder.

pathspec reads their patterns as git does. Of all that match a path, the last one of the innermost file decides, and
`.ignore` goes before `.gitignore`. A folder that is left out is not entered. Git need not manage the folder; files of
folders above it are obeyed inside a working tree only. Whatever they contain, matching takes a bounded time.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

NAMES = (".gitignore", ".ignore")
MAX_BYTES = 64 * 2**10
# Stars without a slash between them: a regular expression tries all ways to part a name of 255 characters between them.
_MAX_STARS = 3


class IgnoreFile(NamedTuple):
    source: Path
    folder: Path
    """The folder that its patterns are relative to."""
    spec: Any


Notice = Callable[[Path, str], None]
"""Is called with an ignore file, or a part of it, that is not obeyed, and why."""


def outer_ignore_files(folder: Path, notice: Notice) -> list[IgnoreFile]:
    """Returns the files outside of a folder (absolute, links resolved) that speak about what is in it, weakest first.

    If they leave the folder itself out, they say nothing about it: whoever names a folder wants it.
    """
    found = list(_read(_global_excludes(), folder, notice))
    above = [folder, *folder.parents]
    top = next((number for number, outer in enumerate(above) if (outer / ".git").exists()), None)
    if top is not None:
        found.extend(_read(above[top] / ".git" / "info" / "exclude", above[top], notice))
        for outer in reversed(above[1 : top + 1]):
            for name in NAMES:
                found.extend(_read(outer / name, outer, notice))
        for path in reversed(above[:top]):
            if ignored_by(found, path, is_folder=True):
                return []
    return found


def ignore_files_in(folder: Path, names: list[str], notice: Notice) -> list[IgnoreFile]:
    """Returns those of a folder whose names were just listed."""
    return [file for name in NAMES if name in names for file in _read(folder / name, folder, notice)]


def ignored_by(files: list[IgnoreFile], path: Path, is_folder: bool) -> Path | None:
    """Returns the file that leaves an absolute path out, or None."""
    for file in reversed(files):
        below = path.relative_to(file.folder).as_posix()
        result = file.spec.check_file(f"{below}/" if is_folder else below)
        if result.include is not None:
            return file.source if result.include else None
    return None


def _read(path: Path, folder: Path, notice: Notice) -> Iterator[IgnoreFile]:
    if not path.is_file():  # most are not there; and to open a pipe would wait for its writer
        return
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        notice(path, f"{error.strerror or error}; not obeyed")
        return
    if len(content) > MAX_BYTES:
        notice(path, f"more than {MAX_BYTES // 2**10} KiB; not obeyed")
        return
    try:
        from pathspec import GitIgnoreSpec
    except ImportError:
        notice(path, "not obeyed without pathspec: pip install 'gte-sdk[cli]'")
        return
    patterns: list[Any] = []
    for line in content.decode("utf-8-sig", "surrogateescape").splitlines():
        if any(len(re.findall(r"\*+", part)) > _MAX_STARS for part in line.split("/")) and not line.startswith("#"):
            notice(path, f"the pattern {line[:80]!r} has more than {_MAX_STARS} stars; not obeyed")
            continue
        try:
            patterns += GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:  # git says nothing about a pattern that matches nothing
            continue
    spec = GitIgnoreSpec(patterns)
    yield IgnoreFile(path, folder, spec)


def _global_excludes() -> Path:
    """Returns where git looks for excludes of all folders: core.excludesFile, or `git/ignore` in the configuration."""
    home = Path.home()
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"
    excludes = configuration / "ignore"
    for path in (configuration / "config", home / ".gitconfig"):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_BYTES)
        except OSError:
            continue
        section = ""
        for line in text.splitlines():
            if heading := re.match(r"\s*\[([^\]]*)\]", line):
                section = heading[1].strip().lower()
            elif section == "core" and (value := re.match(r"\s*excludesfile\s*=\s*(.*)", line, re.IGNORECASE)):
                excludes = Path(value[1].strip().strip('"')).expanduser()
    return home / excludes
