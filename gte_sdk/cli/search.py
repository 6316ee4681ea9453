"""`gte search`: the passages that answer a question, out of files that are read now or of an index that is kept."""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray

from gte_sdk.cli.answers import Hit, print_json, print_passage
from gte_sdk.cli.index import keep_current
from gte_sdk.cli.model_options import model_options
from gte_sdk.cli.terminal import Notices, files_bar, plural, printable, terminal_bar
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.passages.searching import PassageSearch
from gte_sdk.passages.splitting import Passage, split_passages, text_to_embed
from gte_sdk.passages.store import PassageStore, is_passage_store
from gte_sdk.passages.text_files import find_text_files, kind_of, read_text
from gte_sdk.passages.updating import BATCH_PASSAGES, update_index
from gte_sdk.search.top_k import top_k_cosine

FROM_STANDARD_INPUT = "-"
# A watch looks for changed files this often, in seconds.
_WATCH_INTERVAL = 2.0

Find = Callable[[str], list[Hit]]


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
@click.option(
    "--watch", is_flag=True,
    help="With an index: bring it up to date, stay, and answer again when the answer changes, until Ctrl-C.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the whole passage.")
@model_options
@click.option("--quiet", "-q", is_flag=True, help="No progress bar, notices or summary; results and errors only.")
@click.pass_context
def search(
    context: click.Context,
    question: str,
    paths: tuple[Path, ...],
    count: int,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    lines: int,
    watch: bool,
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

    A PATH that is an index, made by `gte index`, answers at once: nothing is read or embedded but the question.

    Hidden, build and package folders (.git, node_modules, virtual environments) are left out unless they are named.

    \b
    Examples:
      gte search "how do I save an index?" README.md docs/
      gte search "retry with backoff" src -k 10 --glob "*.py" --exclude "test_*"
      gte search "what did we decide?" notes.index
      gte search "what is left to do?" notes.index --watch
      gte search - ~/notes                          # asks for questions until Ctrl-D
      gte search - docs --json < questions.txt > answers.jsonl
    """
    if question != FROM_STANDARD_INPUT and not question.strip():
        raise click.UsageError("the QUESTION is empty")

    def answer(text: str, hits: list[Hit]) -> None:
        if question == FROM_STANDARD_INPUT and not as_json and not sys.stdin.isatty():
            click.echo(f"{click.style(printable(text), bold=True)}\n")
        for rank, hit in enumerate(hits, 1):
            if as_json:
                print_json(text, rank, hit)
            else:
                print_passage(hit, lines)

    if not any(is_passage_store(path) for path in paths):
        if watch:
            raise click.UsageError("--watch needs an index; make one with: gte index")
        passages = _read_passages(paths, globs, excludes, quiet)
        embedder = Embedder(model, device=device, threads=threads)
        find = _search_in_memory(embedder, passages, count, quiet)
        _answer_all(question, find, answer)
        return
    if len(paths) > 1 or globs or excludes:
        raise click.UsageError("an index is searched alone, and with the --glob and --exclude that it was made with")
    with PassageStore(paths[0]) as store:
        if context.get_parameter_source("model") is ParameterSource.DEFAULT:
            model = store.settings.model
        embedder = Embedder(model, device=device, threads=threads)
        store.check_fingerprint(embedder.fingerprint)
        if not quiet and not watch and store.meta("complete") != "true":
            click.echo(f"gte: {store.path} is not finished; to finish it: gte index --output {store.path}", err=True)
        find = _search_in_store(embedder, store, count, watch, quiet)
        if watch and question != FROM_STANDARD_INPUT:
            _answer_changes(question, find, answer)
        _answer_all(question, find, answer)


def _answer_all(question: str, find: Find, answer: Callable[[str, list[Hit]], None]) -> None:
    questions = _questions_from_standard_input() if question == FROM_STANDARD_INPUT else iter([question])
    any_question = False
    for text in questions:
        any_question = True
        answer(text, find(text))
    if not any_question:
        raise click.ClickException("there was no question on standard input")


def _answer_changes(question: str, find: Find, answer: Callable[[str, list[Hit]], None]) -> None:
    last: list[Hit] | None = None

    def look() -> None:
        nonlocal last
        hits = find(question)
        if hits != last:
            answer(question, hits)
            sys.stdout.flush()
        last = hits

    keep_current(look, _WATCH_INTERVAL)


def _search_in_store(embedder: Embedder, store: PassageStore, count: int, watch: bool, quiet: bool) -> Find:
    passage_search = PassageSearch(store)
    notices = Notices(quiet)

    def find(text: str) -> list[Hit]:
        if watch:
            with files_bar(quiet) as progress:
                update_index(store, embedder, notices, progress)
        query_vector = embed_batch(embedder, [text], "query").vectors
        found = passage_search.find(query_vector[0], count)
        if not found and not watch:
            raise click.ClickException(f"{store.path} holds no passages")
        return [Hit(score, passage._replace(path=_shown_path(passage.path))) for score, passage in found]

    return find


def _shown_path(name: str) -> str:
    """Relative where the file lies below the current folder."""
    path = Path(name)
    folder = Path.cwd()
    return click.format_filename(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _search_in_memory(embedder: Embedder, passages: list[Passage], count: int, quiet: bool) -> Find:
    vectors_ND = _embed_passages(embedder, passages, quiet)

    def find(text: str) -> list[Hit]:
        query_vector = embed_batch(embedder, [text], "query").vectors
        scores, indices = top_k_cosine(query_vector, vectors_ND, min(count, len(passages)))
        pairs = zip(scores[0].tolist(), indices[0].tolist(), strict=True)
        return [Hit(score, passages[index]) for score, index in pairs]

    return find


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
        found = f"{plural(file_count, 'file')} without any text" if file_count else "no text files"
        raise click.ClickException(f"{found} in {where}{skipped}")
    if not quiet:
        click.echo(f"gte: {plural(len(passages), 'passage')} of {plural(file_count, 'file')}", err=True)
    return passages


def _embed_passages(embedder: Embedder, passages: list[Passage], quiet: bool) -> NDArray[np.float32]:
    texts = [text_to_embed(passage) for passage in passages]
    # Passages of like length share a batch, so that little of it is padding; the longest show first if memory suffices.
    by_length = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    vectors_ND = np.empty((len(passages), embedder.dim), dtype=np.float32)
    any_cut = False
    started = time.perf_counter()
    with terminal_bar("embedding", len(passages), "passages", quiet) as bar:
        for start in range(0, len(passages), BATCH_PASSAGES):
            batch = by_length[start : start + BATCH_PASSAGES]
            embedded = embed_batch(embedder, [texts[index] for index in batch], "document")
            vectors_ND[batch] = embedded.vectors
            any_cut |= embedded.was_cut
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
