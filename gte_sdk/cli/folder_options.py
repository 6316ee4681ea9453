"""What the commands that read folders have in common: which files to take, and what they say about the others."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from gte_sdk.cli.terminal import plural, printable, printable_path
from gte_sdk.passages.store import PassageStore
from gte_sdk.passages.text_files import LeftOut
from gte_sdk.passages.updating import index_status

# The summary names this many suffixes for each reason; --skipped lists every file.
_MOST_KINDS = 6


def wanted_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose files, and --skipped."""
    skipped = click.option("--skipped", is_flag=True, help="List each file and folder left out, with its reason.")
    return choice_options(skipped(command))


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose files."""
    for option in reversed(
        [
            click.option(
                "--glob", "globs", multiple=True, metavar="PATTERN",
                help="Read only files whose name or path in a folder matches.",
            ),
            click.option(
                "--exclude", "excludes", multiple=True, metavar="PATTERN", help="Skip files and folders that match."
            ),
            click.option(
                "--type", "types", multiple=True, metavar="TYPE",
                help="Read only files of this suffix (pdf, py) or kind: code, markdown, restructuredtext, text, html.",
            ),
            click.option(
                "--no-ignore", is_flag=True,
                help="Also read what .gitignore and the like name, and folders of packages and builds.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def say_left_out(files: Sequence[LeftOut], one_by_one: bool) -> None:
    """Says on standard error what was not read: one line, or all of it."""
    if one_by_one:
        list_left_out(files)
    if files:
        click.echo(f"gte: {described(files)}" + ("" if one_by_one else "; --skipped lists them"), err=True)


def list_left_out(files: Sequence[LeftOut]) -> None:
    """Prints a line for each file on standard error."""
    for file in files:
        detail = f" ({printable(file.detail)})" if file.detail else ""
        click.echo(f"gte: left out: {printable_path(file.path)}: {file.reason}{detail}", err=True)


def described(files: Sequence[LeftOut]) -> str:
    """Returns how many files and folders were left out, by reason and kind, the most frequent first."""
    reasons: dict[str, Counter[str]] = {}
    for file in files:
        reasons.setdefault(file.reason, Counter())[_kind(file)] += 1
    by_size = sorted(reasons, key=lambda reason: -reasons[reason].total())
    return f"left out {len(files):,}: " + "; ".join(f"{reason} ({_kinds(reasons[reason])})" for reason in by_size)


def count_left_out(files: Sequence[LeftOut]) -> dict[str, int]:
    """Returns how many files were left out for each reason."""
    return dict(Counter(file.reason for file in files))


def print_status(path: Path, as_json: bool, one_by_one: bool) -> None:
    """Prints what is in an index, and what an update would do, without opening its model."""
    with PassageStore(path) as store:
        status = index_status(store)
        file_count, passage_count = store.counts()
        model, fingerprint, dim, paths = store.settings[:4]
        split_by = store.meta("split_by") or "nothing yet"
    if as_json:
        facts = {"model": model, "fingerprint": fingerprint, "dim": dim, "paths": paths, "split_by": split_by}
        counts = {"files": file_count, "passages": passage_count, "bytes": path.stat().st_size}
        state = {**status._asdict(), "left_out": count_left_out(status.left_out)}
        click.echo(json.dumps({**facts, **counts, **state}))
        return
    size = f"{path.stat().st_size / 2**20:,.1f} MiB"
    click.echo(f"{printable_path(path)}: {plural(passage_count, 'passage')} of {plural(file_count, 'file')}, {size}")
    click.echo(f"model: {printable(model)}, {dim} dimensions, {fingerprint}")
    click.echo(f"split by: gte-sdk {printable(split_by)}")
    click.echo("folders: " + ", ".join(map(printable_path, paths)))
    changes = [f"{getattr(status, name):,} {name}" for name in ("added", "changed", "removed", "unchanged")]
    click.echo("files since the last update: " + ", ".join(changes))
    if not status.is_complete:
        click.echo("the last update was not finished")
    if status.added or status.changed or status.removed or not status.is_complete:
        click.echo(f"to update it: gte index --output {printable_path(path)}")
    say_left_out(status.left_out, one_by_one)


def _kinds(counts: Counter[str]) -> str:
    parts = [plural(count, kind) if kind in ("file", "folder") else f"{count:,} {printable(kind)}"
             for kind, count in counts.most_common(_MOST_KINDS)]  # fmt: skip
    rest = counts.total() - sum(count for _, count in counts.most_common(_MOST_KINDS))
    return ", ".join([*parts, *([f"{rest:,} others"] if rest else [])])


def _kind(file: LeftOut) -> str:
    if file.reason == "link" or file.path.is_dir():
        return "folder"
    return file.path.suffix.lower() or "file"
