"""`gte search`: files in, the passages that answer a question out. Nothing is kept between two calls."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from gte_sdk.cli.model import embed_batch, model_options
from gte_sdk.cli.terminal import Notices, counted, printable, progress_bar
from gte_sdk.embedder import Embedder
from gte_sdk.index import top_k_cosine
from gte_sdk.passages import Passage, split_passages, text_to_embed
from gte_sdk.text_files import find_text_files, kind_of, read_text

FROM_STANDARD_INPUT = "-"
# Enough to fill the model's batches, few enough for a bar that moves.
_BATCH_PASSAGES = 128
# Room for the lines of 120 characters that many projects allow; longer ones are hard to read on a wide terminal too.
_TEXT_WIDTH = 125
# A shorter line of prose was ended by its writer, a longer one perhaps by the width of the page.
_WRAPPED_LENGTH = 60
# How headings, tables, lists, quotations and code begin in the markups that are read as prose.
_NO_PROSE = ("#", "|", "+", "-", "*", ">", "=", "~", ":", "..", "```")


@click.command()
@click.argument("question")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-k", "count", type=click.IntRange(min=1), default=5, show_default=True, help="How many passages to show."
)
@click.option(
    "--glob", "globs", multiple=True, metavar="PATTERN", help="Only files in folders whose name or path matches."
)
@click.option("--exclude", "excludes", multiple=True, metavar="PATTERN", help="Leave out files and folders that match.")
@click.option(
    "--lines", type=click.IntRange(min=0), default=4, show_default=True, metavar="N",
    help="Lines to show of each passage.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the whole passage.")
@model_options
@click.option("--quiet", "-q", is_flag=True, help="No progress bar, notices or summary; results and errors only.")
def search(
    question: str,
    paths: tuple[Path, ...],
    count: int,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    lines: int,
    as_json: bool,
    model: str,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Find the passages of files that answer QUESTION, by meaning.

    Text, Markdown, reStructuredText and code files at and below each PATH are cut into passages of about a paragraph;
    those nearest to the question are shown, best first, as path:line, cosine score and text. QUESTION - reads questions
    from standard input, one a line; the files are read once.

    Hidden, build and package folders (.git, node_modules, virtual environments) are left out unless they are named.

    \b
    Examples:
      gte search "how do I save an index?" README.md docs/
      gte search "retry with backoff" src -k 10 --glob "*.py" --exclude "test_*"
      gte search - ~/notes                          # asks for questions until Ctrl-D
      gte search - docs --json < questions.txt > answers.jsonl
    """
    if question != FROM_STANDARD_INPUT and not question.strip():
        raise click.UsageError("the QUESTION is empty")
    passages = _read_passages(paths, globs, excludes, quiet)
    embedder = Embedder(model, device=device, threads=threads)
    vectors_ND = _embed_passages(embedder, passages, quiet)
    questions = _questions_from_standard_input() if question == FROM_STANDARD_INPUT else iter([question])
    any_question = False
    for text in questions:
        any_question = True
        query_vector, _ = embed_batch(embedder, [text], "query")
        scores, indices = top_k_cosine(query_vector, vectors_ND, min(count, len(passages)))
        if question == FROM_STANDARD_INPUT and not as_json and not sys.stdin.isatty():
            click.echo(f"{click.style(printable(text), bold=True)}\n")
        for rank, (score, index) in enumerate(zip(scores[0].tolist(), indices[0].tolist(), strict=True), 1):
            if as_json:
                _print_json(text, rank, score, passages[index])
            else:
                _print_passage(score, passages[index], lines)
    if not any_question:
        raise click.ClickException("there was no question on standard input")


def _read_passages(
    paths: tuple[Path, ...], globs: tuple[str, ...], excludes: tuple[str, ...], quiet: bool
) -> list[Passage]:
    notices = Notices(quiet)
    passages: list[Passage] = []
    file_count = 0
    for path in find_text_files(paths, globs=globs, excludes=excludes, notice=notices):
        text = read_text(path, notices)
        if text is not None:
            file_count += 1
            passages += split_passages(click.format_filename(path), text, kind_of(path) or "text")
    notices.close()
    if not passages:
        where = ", ".join(click.format_filename(path) for path in islice(paths, 3)) + (
            ", ..." if len(paths) > 3 else ""
        )
        skipped = f"; {notices.count} skipped" if notices.count else ""
        found = f"{counted(file_count, 'file')} without any text" if file_count else "no text files"
        raise click.ClickException(f"{found} in {where}{skipped}")
    if not quiet:
        click.echo(f"gte: {counted(len(passages), 'passage')} of {counted(file_count, 'file')}", err=True)
    return passages


def _embed_passages(embedder: Embedder, passages: list[Passage], quiet: bool) -> NDArray[np.float32]:
    texts = [text_to_embed(passage) for passage in passages]
    # Passages of like length share a batch, so that little of it is padding; the longest show first if memory suffices.
    by_length = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    vectors_ND = np.empty((len(passages), embedder.dim), dtype=np.float32)
    any_cut = False
    started = time.perf_counter()
    with progress_bar("embedding", len(passages), "passages", quiet) as bar:
        for start in range(0, len(passages), _BATCH_PASSAGES):
            batch = by_length[start : start + _BATCH_PASSAGES]
            vectors_ND[batch], was_cut = embed_batch(embedder, [texts[index] for index in batch], "document")
            any_cut = any_cut or was_cut
            bar.update(len(batch))
    if not quiet:
        click.echo(f"gte: embedded in {time.perf_counter() - started:.1f} s", err=True)
        if any_cut:
            limit = f"the {embedder.max_tokens} tokens that the model reads"
            click.echo(f"gte: some passages are longer than {limit}; their ends are not searched", err=True)
    return vectors_ND


def _questions_from_standard_input() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            click.echo("question> ", nl=False, err=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        if question := line.decode("utf-8", "replace").strip():
            yield question


def _print_json(question: str, rank: int, score: float, passage: Passage) -> None:
    answer = {
        "question": question, "rank": rank, "score": round(score, 6),
        "path": passage.path, "line": passage.line, "context": passage.context, "text": passage.text,
    }  # fmt: skip
    click.echo(json.dumps(answer, ensure_ascii=False).encode("utf-8"))


def _print_passage(score: float, passage: Passage, line_count: int) -> None:
    place = click.style(f"{printable(passage.path)}:{passage.line}", fg="magenta")
    context = f"  {click.style(printable(passage.context), fg='cyan')}" if passage.context else ""
    click.echo(f"{place}  {score:.3f}{context}")
    for line in _excerpt(passage, line_count):
        click.echo(f"    {line}")
    if line_count:
        click.echo()


def _excerpt(passage: Passage, line_count: int) -> list[str]:
    """The first lines as they fit the terminal, blank ones left out, with a mark where there is more."""
    width = max(20, min(_TEXT_WIDTH, shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns) - 5)
    rows: list[str] = []
    for line in _unwrapped(passage):
        shown = printable(line)
        indent = shown[: len(shown) - len(shown.lstrip())][: width // 2]
        rows += textwrap.wrap(shown.strip(), width, initial_indent=indent, subsequent_indent=indent)
        if len(rows) > line_count:
            break
    excerpt = textwrap.dedent("\n".join(rows[:line_count])).split("\n") if line_count else []
    if excerpt and len(rows) > line_count:
        excerpt[-1] += " …"
    return excerpt


def _unwrapped(passage: Passage) -> Iterator[str]:
    """The lines of a passage; those of prose that were broken for their length alone are joined again."""
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
