"""What a run that did not end leaves beside its output: where it lies, and whether this run may go on with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gte_sdk.atomic_file import beside
from gte_sdk.errors import InputError


def unfinished_path(output: Path) -> Path:
    """The file or folder that a run keeps beside its output until it ends."""
    return beside(output, ".unfinished")


def check_choice(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises InputError for an unfinished run at `path`, unless it is said whether to go on or to start again."""
    if not resume and not overwrite:
        raise InputError(f"{path} is of a run that did not end", remedy="unfinished")


def check_same_run(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """Raises InputError if what `path` says of its run (parsed JSON) is not what this run wants."""
    if not isinstance(found, dict) or found.get("format") != wanted["format"]:
        raise InputError(f"{path} is not of an unfinished run of this gte-sdk; remove it to start again")
    if other := next((name for name in wanted if found.get(name) != wanted[name]), None):
        raise InputError(
            f"{path} has {other} {found.get(other)!s:.200}, this run {wanted[other]!s:.200}", remedy="other run"
        )
