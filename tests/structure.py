"""Checks how a source tree is built: which folder may import which, entries per folder, lines per file.

A room is a folder directly below a package, or a module beside the folders; the package's own `__init__` has the
package's name. Each function takes a root and paths below it, so that it is tested on a made-up tree as well.
"""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath


def tracked_files(root: Path) -> list[PurePosixPath]:
    """Files that git tracks or would track, such as a new one; not what git ignores, such as the built extension."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted(PurePosixPath(name) for name in listing.split("\0") if name and (root / name).is_file())


def wrong_imports(
    root: Path, files: Iterable[PurePosixPath], package: str, may_import: Mapping[str, Collection[str]]
) -> list[str]:
    """Each import of a package's room that its row does not allow, as `file:line: room imports room`.

    Imports inside functions and under TYPE_CHECKING count as well. Each room must have a row.
    """
    paths = [path for path in files if path.parts[0] == package and path.suffix == ".py"]
    rooms = {_room_of_file(path) for path in paths}
    wrong = [f"{package}: the table has no row for {room}" for room in sorted(rooms - set(may_import))]
    wrong += [f"{package}: {room} has a row and no files" for room in sorted(set(may_import) - rooms)]
    for path in paths:
        room = _room_of_file(path)
        for line, module in _imports(root, path):
            names = module.split(".")
            if names[0] != package:
                continue
            # `from gte_sdk import Embedder` is an import of gte_sdk/__init__.py; `from gte_sdk import search` is not.
            target = names[1] if len(names) > 1 and _exists(root / package / names[1]) else package
            if target != room and target not in may_import.get(room, ()):
                wrong.append(f"{path}:{line}: {room} imports {target}")
    return wrong


def wrong_includes(
    root: Path, files: Iterable[PurePosixPath], source: str, may_include: Mapping[str, Collection[str]]
) -> list[str]:
    """Each `#include "..."` of a folder below `source` that its row does not allow. Paths start at `source`."""
    paths = [path for path in files if path.parts[0] == source and path.suffix in (".cpp", ".hpp")]
    folders = {path.relative_to(source).parent.as_posix() for path in paths}
    wrong = [f"{source}: the table has no row for {folder}" for folder in sorted(folders - set(may_include))]
    wrong += [f"{source}: {folder} has a row and no files" for folder in sorted(set(may_include) - folders)]
    for path in paths:
        folder = path.relative_to(source).parent.as_posix()
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
            if not (match := re.match(r'\s*#\s*include\s+"([^"]+)"', line)):
                continue
            target = PurePosixPath(match[1]).parent.as_posix()
            if not (root / source / match[1]).is_file():
                wrong.append(f'{path}:{number}: "{match[1]}" is not a path below {source}/')
            elif target != folder and target not in may_include.get(folder, ()):
                wrong.append(f"{path}:{number}: {folder} includes {target}")
    return wrong


def circles(may_import: Mapping[str, Collection[str]]) -> list[str]:
    """The rooms of a table that import themselves, directly or through others."""
    reached = {room: set(targets) for room, targets in may_import.items()}
    for _ in reached:
        for targets in reached.values():
            targets.update(*(reached.get(target, ()) for target in list(targets)))
    return sorted(room for room, targets in reached.items() if room in targets)


def crowded_folders(files: Iterable[PurePosixPath], limits: Mapping[str, int | None], otherwise: int) -> list[str]:
    """Folders with more entries, files and folders together, than their limit; None stands for no limit."""
    entries = {entry for path in files for entry in (path, *path.parents)}
    counts = Counter(entry.parent.as_posix() for entry in entries if entry.parent != entry)
    allowed = {folder: limits.get(folder, otherwise) for folder in counts}
    return [
        f"{folder} has {counts[folder]} entries, at most {limit}"
        for folder, limit in sorted(allowed.items())
        if limit is not None and counts[folder] > limit
    ]


def long_files(root: Path, files: Iterable[PurePosixPath], limit: int) -> list[str]:
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in files}
    return [f"{path} has {length} lines, at most {limit}" for path, length in lengths.items() if length > limit]


def _imports(root: Path, path: PurePosixPath) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports: `from a import b` is a.b, `from . import b` too."""
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = path.parent.parts[: len(path.parent.parts) - (node.level - 1)] if node.level else ()
            base = ".".join([*here, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _room_of_file(path: PurePosixPath) -> str:
    """The folder or module below the package. A folder's `__main__.py` is a command, and a room of its own."""
    package, name = path.parts[0], path.parts[1]
    if path.parts[2:] == ("__main__.py",):
        return f"{name}/__main__"
    return package if name == "__init__.py" else name.removesuffix(".py")


def _exists(module: Path) -> bool:
    return module.is_dir() or any(module.with_suffix(suffix).is_file() for suffix in (".py", ".pyi"))
