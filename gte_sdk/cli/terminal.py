"""What a command prints besides its result, on standard error: notices, a progress bar, a summary."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

# The first notices show what kind of thing is going on; a thousand would hide the result.
MAX_NOTICES = 10
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Notices:
    """Prints the first MAX_NOTICES distinct notices and counts the rest."""

    def __init__(self, quiet: bool) -> None:
        self.count = 0
        self._quiet = quiet
        self._said: set[str] = set()

    def __call__(self, message: str) -> None:
        if message in self._said:  # a watch comes by the same file again and again
            return
        self._said.add(message)
        self.count += 1
        if not self._quiet and self.count <= MAX_NOTICES:
            click.echo(f"gte: {printable(message)}", err=True)

    def close(self) -> None:
        if not self._quiet and self.count > MAX_NOTICES:
            click.echo(f"gte: and {self.count - MAX_NOTICES} more", err=True)


def terminal_bar(description: str, total: int | None, unit: str, quiet: bool) -> Any:
    """Returns a tqdm bar on standard error with the rate; it is hidden unless that is a terminal."""
    return tqdm(
        desc=description, total=total, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, leave=False,
        disable=quiet or not sys.stderr.isatty(),
    )  # fmt: skip


@contextlib.contextmanager
def files_bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields a progress function for `update_index` that draws a bar."""
    with terminal_bar("embedding", None, "files", quiet) as bar:

        def progress(done: int, total: int) -> None:
            if bar.total != total:
                bar.total = total
                bar.refresh()
            bar.update(done - bar.n)

        yield progress


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def say_kept(text_count: int, path: Path) -> None:
    """Says what a `gte embed` that ended early kept, and how to continue."""
    kept = f"{plural(text_count, 'text')} {'is' if text_count == 1 else 'are'} kept in {printable_path(path)}"
    click.echo(f"gte: {kept}; the same command with --resume continues from there", err=True)


def kept_before(text_count: int) -> str:
    """Returns what the summary of `gte embed` says about texts of an earlier run."""
    return f", {text_count:,} of them kept from before" if text_count else ""


def printable(text: str) -> str:
    """Replaces control characters in a line, so that no file content can control the terminal."""
    return _CONTROL_CHARACTERS.sub("\ufffd", text.expandtabs(4))


def printable_lines(text: str) -> str:
    """Replaces control characters in a message of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable_path(path: Path | str) -> str:
    """Returns a path without control characters that every encoding can print."""
    return printable(click.format_filename(path))
