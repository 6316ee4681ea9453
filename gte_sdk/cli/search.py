"""`gte search`: finds the passages that answer a question, in files or in a passage index."""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
from click.core import ParameterSource

from gte_sdk.agents.sharing import embedded_by_server, find_server
from gte_sdk.cli.answers import print_json, print_passage
from gte_sdk.cli.folder_options import described, list_left_out, say_left_out, wanted_options
from gte_sdk.cli.index import keep_current, open_embedder
from gte_sdk.cli.model_options import (
    facts_to_keep,
    model_options,
    no_server_option,
    open_model,
    say_cut,
    use_kept_facts,
)
from gte_sdk.cli.terminal import Notices, files_bar, plural, printable, printable_path
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.passages.database import is_passage_store
from gte_sdk.passages.searching import Found, PassageSearch
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.text_files import EVERYTHING, Wanted
from gte_sdk.passages.updating import update_index
from gte_sdk.tables.text_lines import MAX_ROW_BYTES, too_long

FROM_STANDARD_INPUT = "-"
# A watch looks for changed files this often, in seconds.
_WATCH_INTERVAL = 2.0

MODES = ("hybrid", "meaning", "words")

Find = Callable[[str], list[Found]]


class _Limits(NamedTuple):
    """Which passages to find."""

    k: int
    mode: str
    min_score: float | None
    wanted: Wanted = EVERYTHING


@click.command()
@click.argument("question")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-k", "count", type=click.IntRange(min=1), default=5, show_default=True, help="How many passages to show."
)
@wanted_options
@click.option(
    "--lines", type=click.IntRange(min=0), default=4, show_default=True, metavar="N",
    help="How many lines of each passage to show.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(MODES), default="hybrid", show_default=True,
    help="Search by meaning, by words, or by both.",
)  # fmt: skip
@click.option(
    "--min-score", type=click.FloatRange(-1, 1), metavar="SCORE", help="Leave out passages with a lower score."
)
@click.option(
    "--watch", is_flag=True,
    help="With an index: update it, keep running, and answer again when the answer changes, until Ctrl-C.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on each line, with the whole passage.")
@no_server_option
@model_options
@click.option("--quiet", "-q", is_flag=True, help="Print results and errors only: no progress bar, notices or summary.")
@click.pass_context
def search(
    context: click.Context,
    question: str,
    paths: tuple[Path, ...],
    count: int,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    types: tuple[str, ...],
    no_ignore: bool,
    skipped: bool,
    lines: int,
    mode: str,
    min_score: float | None,
    watch: bool,
    as_json: bool,
    no_server: bool,
    model: str,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Find the passages of files that answer QUESTION, by meaning and by words.

    The files with text at and below each PATH (by default the current folder) are split into passages of about a
    paragraph: text of any kind, code, HTML, notebooks, PDF, DOCX, PPTX, ODT and EPUB. The best passages are shown, best
    first, as path:line, score and text. The QUESTION "-" reads questions from standard input, one on each line. The
    files are read once.

    By words, an identifier is found whole and in parts, in whatever style it is written. One that stands in a single
    file comes first.

    A PATH can be an index made by `gte index`. It answers at once, because only the question is embedded, by a running
    `gte serve --socket` if it has the same model open. --glob, --exclude and --type choose among its files.

    What .gitignore and .ignore name, and hidden, build and package folders are left out unless you name them. PDF needs
    pip install 'gte-sdk[documents]'.

    \b
    Examples:
      gte search "how do I save an index?" README.md docs/
      gte search "retry with backoff" src -k 10 --glob "*.py" --exclude "test_*"
      gte search "what did we decide?" notes.index
      gte search "what did we decide?" notes.index --glob "2026/*"
      gte search EADDRINUSE src --mode words
      gte search "what is left to do?" notes.index --watch
      gte search - ~/notes                          # asks for questions until Ctrl-D
      gte search - docs --json < questions.txt > answers.jsonl
    """
    if question != FROM_STANDARD_INPUT and not question.strip():
        raise click.UsageError("the QUESTION is empty")

    def answer(text: str, found: list[Found]) -> None:
        if question == FROM_STANDARD_INPUT and not as_json and not sys.stdin.isatty():
            click.echo(f"{click.style(printable(text), bold=True)}\n")
        for rank, passage in enumerate(found, 1):
            if as_json:
                print_json(text, rank, passage)
            else:
                print_passage(passage, lines)

    paths = paths or (Path(),)
    if not any(is_passage_store(path) for path in paths):
        if watch:
            raise click.UsageError("--watch needs an index; make one with: gte index")
        embedder = open_model(model, device, threads)
        settings = Settings(
            model, embedder.fingerprint, embedder.dim, tuple(map(str, paths)), globs, excludes, types, not no_ignore
        )
        with PassageStore(None, settings) as store:
            _read_files(store, embedder, quiet, skipped)
            limits = _Limits(count, mode, min_score)
            find = _search_in_store(lambda: embedder, store, limits, False, quiet, shares=False)
            _answer_all(question, find, answer)
        return
    if len(paths) > 1:
        raise click.UsageError("an index is searched alone; name one index, or files and folders")
    if no_ignore:
        raise click.UsageError("an index has read its files already, with or without --no-ignore; see: gte index")
    if skipped:
        raise click.UsageError("an index has read its files already; see: gte index --output FILE --status --skipped")
    with PassageStore(paths[0]) as store:
        by_index = context.get_parameter_source("model") is ParameterSource.DEFAULT

        @functools.cache
        def open_once() -> Embedder:
            if by_index:
                use_kept_facts(store.settings.facts)
                opened = open_embedder(store.settings.model, device, threads, named_by=store.path)
            else:
                opened = open_model(model, device, threads)
            store.check_fingerprint(opened.fingerprint)
            return opened

        usual = device == "auto" and threads is None and not facts_to_keep() and not store.settings.facts
        shares = by_index and usual and not watch and not no_server
        if not shares or find_server(store.settings.fingerprint) is None:
            open_once()
        if not quiet and not watch and store.meta("complete") != "true":
            shown = printable_path(store.path)
            click.echo(f"gte: {shown} is not finished; to finish it: gte index --output {shown}", err=True)
        if context.get_parameter_source("mode") is ParameterSource.DEFAULT and not watch and not store.has_words():
            mode = "meaning"
            if not quiet:
                shown = printable_path(store.path)
                click.echo(
                    f"gte: {shown} was made without the words of its passages, and is searched by meaning; to add "
                    f"them: gte index --output {shown}",
                    err=True,
                )
        limits = _Limits(count, mode, min_score, Wanted(globs, excludes, types))
        find = _search_in_store(open_once, store, limits, watch, quiet, shares)
        if watch and question != FROM_STANDARD_INPUT:
            _answer_changes(question, find, answer)
        _answer_all(question, find, answer)


def _answer_all(question: str, find: Find, answer: Callable[[str, list[Found]], None]) -> None:
    questions = _questions_from_standard_input() if question == FROM_STANDARD_INPUT else iter([question])
    any_question = False
    for text in questions:
        any_question = True
        answer(text, find(text))
    if not any_question:
        raise click.ClickException("there was no question on standard input")


def _answer_changes(question: str, find: Find, answer: Callable[[str, list[Found]], None]) -> None:
    last: list[Found] | None = None

    def look() -> None:
        nonlocal last
        found = find(question)
        if found != last:
            answer(question, found)
            sys.stdout.flush()
        last = found

    keep_current(look, _WATCH_INTERVAL)


def _search_in_store(
    open_once: Callable[[], Embedder],
    store: PassageStore,
    limits: _Limits,
    watch: bool,
    quiet: bool,
    shares: bool,
) -> Find:
    """shares: whether a running server may embed the questions. The model is opened here if none answers."""
    passage_search = PassageSearch(store)
    notices = Notices(quiet)

    def find(text: str) -> list[Found]:
        if watch:
            with files_bar(quiet) as progress:
                update_index(store, open_once(), notices, progress)
        vector = None
        if limits.mode != "words" and shares:
            vector = embedded_by_server(store.settings.fingerprint, store.settings.dim, text)
        if limits.mode != "words" and vector is None:
            vector = embed_batch(open_once(), [text], "query").vectors[0]
        words = None if limits.mode == "meaning" else text
        least = -math.inf if limits.min_score is None else limits.min_score
        found = passage_search.find(vector, limits.k, words, least, limits.wanted)
        if not watch and not store.counts()[1]:
            raise click.ClickException(f"{store.path} holds no passages")
        if not (found or watch or quiet):
            chosen = " in the files of --glob, --exclude and --type" if limits.wanted != EVERYTHING else ""
            or_more = f" with a score of {limits.min_score} or more" if limits.min_score is not None else ""
            click.echo(f"gte: nothing found{chosen}{or_more}", err=True)
        return [Found(score, passage._replace(path=_shown_path(passage.path))) for score, passage in found]

    return find


def _shown_path(name: str) -> str:
    """Shows a path relative to the current folder if it is inside it."""
    path = Path(name)
    folder = Path.cwd()
    return click.format_filename(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _read_files(store: PassageStore, embedder: Embedder, quiet: bool, skipped: bool) -> None:
    """Indexes the files in memory, by the same update as `gte index`."""
    notices = Notices(quiet)
    started = time.perf_counter()
    with files_bar(quiet) as progress:
        changes = update_index(store, embedder, notices, progress)
    notices.close()
    file_count, passage_count = store.counts()
    file_count -= changes.without_text
    if not passage_count:
        list_left_out(changes.left_out if skipped else ())
        paths = store.settings.paths
        where = ", ".join([*map(printable_path, paths[:3]), *(["..."] if len(paths) > 3 else [])])
        left_out = f"; {described(changes.left_out)}" if changes.left_out else ""
        found = f"{plural(file_count, 'file')} without any text" if file_count else "no text files"
        raise click.ClickException(f"{found} in {where}{left_out}")
    if not quiet:
        click.echo(f"gte: {plural(passage_count, 'passage')} of {plural(file_count, 'file')}", err=True)
        click.echo(f"gte: embedded in {time.perf_counter() - started:.1f} s", err=True)
        say_left_out(changes.left_out, skipped)
        say_cut(changes.was_cut, embedder)


def _questions_from_standard_input() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            click.echo("question> ", nl=False, err=True)
        line = sys.stdin.buffer.readline(MAX_ROW_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_ROW_BYTES:
            raise too_long("standard input", "a question")
        if question := line.decode("utf-8", "replace").strip():
            yield question
