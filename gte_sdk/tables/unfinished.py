"""What an unfinished run leaves beside its output: where it is, and whether this run may continue it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gte_sdk.atomic_file import beside
from gte_sdk.errors import InputError


def unfinished_path(output: Path) -> Path:
    """The file or folder that a run keeps beside its output until it ends."""
    return beside(output, ".unfinished")


def check_choice(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises InputError for an unfinished run at `path`, unless `resume` or `overwrite` says what to do with it."""
    if not resume and not overwrite:
        raise InputError(f"{path} belongs to an unfinished run", remedy="unfinished")


def check_same_run(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """Raises InputError if what `path` says of its run (parsed JSON) is not what this run wants."""
    if not isinstance(found, dict) or found.get("format") != wanted["format"]:
        raise InputError(f"{path} does not belong to an unfinished run of this gte-sdk; remove it to start over")
    if other := next((name for name in wanted if found.get(name) != wanted[name]), None):
        raise InputError(
            f"{path} has {other} {found.get(other)!s:.200}, this run {wanted[other]!s:.200}", remedy="other run"
        )
