"""Prints a passage that was found: a place and an excerpt for people, a JSON object for programs."""

import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from gte_sdk.cli.terminal import printable
from gte_sdk.passages.searching import Found
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.text_files import kind_of

# Room for the lines of 120 characters that many projects allow; longer ones are hard to read on a wide terminal too.
_TEXT_WIDTH = 125
# A shorter line of prose was ended by its writer, a longer one perhaps by the width of the page.
_WRAPPED_LENGTH = 60
# How headings, tables, lists, quotations and code begin in the markups that are read as prose.
_NO_PROSE = ("#", "|", "+", "-", "*", ">", "=", "~", ":", "..", "```")


def print_json(question: str, rank: int, found: Found) -> None:
    passage = found.passage
    answer = {
        "question": question, "rank": rank, "score": round(found.score, 6),
        "path": passage.path, "line": passage.line, "context": passage.context, "text": passage.text,
    }  # fmt: skip
    click.echo(json.dumps(answer, ensure_ascii=False).encode("utf-8"))


def print_passage(found: Found, line_count: int) -> None:
    passage = found.passage
    place = click.style(f"{printable(passage.path)}:{passage.line}", fg="magenta")
    context = f"  {click.style(printable(passage.context), fg='cyan')}" if passage.context else ""
    click.echo(f"{place}  {found.score:.3f}{context}")
    for line in _excerpt(passage, line_count):
        click.echo(f"    {line}")
    if line_count:
        click.echo()


def _excerpt(passage: Passage, line_count: int) -> list[str]:
    """Returns the first lines, without blank ones, wrapped to the terminal; a mark shows that there is more."""
    width = max(20, min(_TEXT_WIDTH, shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns) - 5)
    rows: list[str] = []
    for line in _unwrapped(passage):
        shown = printable(line[: width * (line_count + 1)])  # a minified file is one line of megabytes
        indent = shown[: len(shown) - len(shown.lstrip())][: width // 2]
        rows += textwrap.wrap(shown.strip(), width, initial_indent=indent, subsequent_indent=indent)
        if len(rows) > line_count:
            break
    excerpt = textwrap.dedent("\n".join(rows[:line_count])).split("\n") if line_count else []
    if excerpt and len(rows) > line_count:
        excerpt[-1] += " …"
    return excerpt


def _unwrapped(passage: Passage) -> Iterator[str]:
    """Yields the lines of a passage. Lines of prose that were only wrapped are joined again."""
    is_prose = kind_of(Path(passage.path)) != "code"
    line = previous = ""
    in_fence = False
    for following in passage.text.split("\n"):
        in_fence ^= following.startswith("```")
        may_join = is_prose and not in_fence and len(previous) >= _WRAPPED_LENGTH and not previous.startswith(_NO_PROSE)
        if may_join and following and not following.startswith((" ", "\t", *_NO_PROSE)) and not following[0].isdigit():
            line += " " + following
        else:
            yield line
            line = following
        previous = following
    yield line
