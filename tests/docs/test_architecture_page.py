"""docs/architecture.md is true: its map names every module and nothing else, its tables are those that are enforced."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from ..structure import tracked_files
from ..test_architecture import LEAVES, MAY_INCLUDE, ROOMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("gte_sdk", "csrc", "training", "export")
# What is data, or lies in a folder that the map names as a whole.
NOT_MODULES = re.compile(r"__init__\.py|.*\.(toml|json|jsonl|typed)|hook-.*")
WHOLE_FOLDERS = ("gte_sdk/models", "gte_sdk/server/page", "gte_sdk/_pyinstaller", "training/recipes")


def rows_below(heading: str) -> list[tuple[str, str]]:
    """First and second cell of each row of the table that follows a line, or whose head it is."""
    assert PAGE.count(f"\n{heading}\n") == 1, heading
    table = PAGE.split(f"\n{heading}\n")[1].lstrip("\n").split("\n\n")[0]
    rows = re.findall(r"^\|([^|]*)\|([^|]*)\|", table.partition("|---|---|")[2], re.MULTILINE)
    return [(first, second) for first, second in rows]


def spans(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def modules_and_folders() -> dict[str, set[str]]:
    """What the map has to name, by folder."""
    expected = defaultdict(set)
    for path in tracked_files(ROOT):
        if path.parts[0] not in PACKAGES:
            continue
        for folder in path.parents[:-2]:
            if not folder.parent.as_posix().startswith(WHOLE_FOLDERS):
                expected[folder.parent.as_posix()].add(f"{folder.name}/")
        if not NOT_MODULES.fullmatch(path.name) and not path.as_posix().startswith(WHOLE_FOLDERS):
            expected[path.parent.as_posix()].add(path.name)
    return expected


def test_the_map_names_every_module_and_nothing_else() -> None:
    named: dict[str, set[str]] = {}
    for folder in re.findall(r"^### `([\w/]+)/`$", PAGE, re.MULTILINE):
        named[folder] = {name for cell, _ in rows_below(f"### `{folder}/`") for name in spans(cell)} - {"__init__.py"}
    expected = modules_and_folders()
    missing = [f"{folder}/{name}" for folder in expected for name in expected[folder] - named.get(folder, set())]
    gone = [f"{folder}/{name}" for folder in named for name in named[folder] - expected.get(folder, set())]
    assert not missing, f"name these in docs/architecture.md: {missing}"
    assert not gone, f"docs/architecture.md names what is not there: {gone}"


@pytest.mark.parametrize("package", list(ROOMS))
def test_the_page_shows_the_imports_that_are_enforced(package: str) -> None:
    shown: dict[str, set[str]] = {}
    for room, allowed in rows_below(f"| in `{package}/` | may import |"):
        targets = spans(allowed) | (LEAVES if "leaves" in allowed else set())
        if room.strip() == "the commands":
            everything = set(shown) - {"training"}
            shown |= dict.fromkeys(set(ROOMS[package]) - set(shown), everything)
        else:
            shown[spans(room).pop()] = targets - {package} if "(of" in allowed else targets
    assert shown == ROOMS[package]


def test_the_page_shows_the_includes_that_are_enforced() -> None:
    rows = rows_below("| in `csrc/` | may include |")
    assert {spans(folder).pop(): spans(allowed) for folder, allowed in rows} == MAY_INCLUDE


def test_each_change_has_one_file_that_exists() -> None:
    rows = rows_below("| to change or add | edit | and also |")
    assert len(rows) > 20
    for change, place in rows:
        (file,) = (name for name in spans(place) if "/" in name)
        assert any(ROOT.glob(file)), f"{change}: {file}"
