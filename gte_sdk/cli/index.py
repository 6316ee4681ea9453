"""`gte index`: keeps the passages and vectors of folders in a passage index, which `gte search` answers from."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gte_sdk.atomic_file import move_whole
from gte_sdk.cli.folder_options import count_left_out, print_status, say_left_out, wanted_options
from gte_sdk.cli.model_options import (
    complete_model,
    facts_to_keep,
    model_options,
    open_model,
    say_cut,
    use_kept_facts,
)
from gte_sdk.cli.rebuild_with import drop_unless_same, rebuild_path_of, rebuild_with, settings_of
from gte_sdk.cli.terminal import Notices, files_bar, plural, printable_path
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import HubError, InputError
from gte_sdk.model_files.directory import bundled_models
from gte_sdk.passages.database import is_passage_store
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.update_lock import exclusive
from gte_sdk.passages.updating import Changes, update_index

# Checking the files of a large folder takes a while. A watch spends at most this share of its time on it.
_WATCH_SHARE = 0.05


@click.command()
@click.argument("paths", metavar="[FOLDER]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output", "-o", "output", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="The passage index. It is created if it does not exist, else updated.",
)  # fmt: skip
@wanted_options
@click.option("--watch", is_flag=True, help="Keep running and keep the index up to date, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, metavar="SECONDS",
    help="With --watch: how long to wait between two checks of the files.",
)  # fmt: skip
@click.option("--status", is_flag=True, help="Say what is in the index and what an update would do; change nothing.")
@click.option("--rebuild", is_flag=True, help="Build a new index. The old one answers until it is complete.")
@click.option(
    "--rebuild-with", "new_model", metavar="MODEL", shell_complete=complete_model,
    help="Embed the texts of the index again with another model. The old one answers until that is complete.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on standard output after each update.")
@model_options
@click.option("--quiet", "-q", is_flag=True, help="Print errors only: no progress bar, notices or summary.")
@click.pass_context
def index(
    context: click.Context,
    paths: tuple[Path, ...],
    output: Path,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    types: tuple[str, ...],
    no_ignore: bool,
    skipped: bool,
    watch: bool,
    interval: float,
    status: bool,
    rebuild: bool,
    new_model: str | None,
    as_json: bool,
    model: str,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Build or update an index of the files at and below each FOLDER, for `gte search`.

    The first run embeds every passage. Later runs embed only what was added or changed, and remove what was deleted.
    Without a FOLDER, a new index is of the current folder; an old one keeps its folders, patterns and model. Each batch
    is saved as soon as it is done: after Ctrl-C or a kill, the same command continues from there.

    \b
    Examples:
      gte index ~/notes --output notes.index
      gte index --output notes.index                # again, after writing some notes
      gte index --output notes.index --rebuild-with thenlper/gte-small
      gte index src docs --glob "*.py" --glob "*.md" -o project.index --watch
      gte search "how are passages ranked?" notes.index
    """
    if output.exists() and not is_passage_store(output):
        raise InputError(f"{output} exists and is not a passage index; name another file")
    if status:
        print_status(output, as_json, skipped)
        return
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; create it first")
    if new_model is not None:
        others = (paths, globs, excludes, types, no_ignore, skipped, watch, rebuild, as_json)
        if any(others) or context.get_parameter_source("model") is not ParameterSource.DEFAULT:
            raise click.UsageError("--rebuild-with reads no files; give it alone, and update the index afterwards")
        embedder = open_model(new_model, device, threads)
        with _saying_what_is_saved(rebuild_path_of(output), quiet):
            rebuild_with(output, embedder, _stored_name(new_model), facts_to_keep(), quiet)
        return
    model_is_given = context.get_parameter_source("model") is not ParameterSource.DEFAULT
    previous = settings_of(output, must_be_whole=not (rebuild and paths))
    if not paths and previous is None:
        paths = (Path(),)
    if previous is not None and not paths:
        paths = tuple(Path(path) for path in previous.paths)
        globs, excludes, types = globs or previous.globs, excludes or previous.excludes, types or previous.types
        no_ignore = no_ignore or not previous.ignore_files
    if previous is not None and not model_is_given:
        model = previous.model
    named_by = output if previous is not None and not model_is_given else None
    if previous is not None and previous.model == _stored_name(model):
        given = facts_to_keep()
        use_kept_facts(previous.facts)
        if not rebuild and given is not None and facts_to_keep() != previous.facts:
            raise InputError(
                f"{output} was made with {_said(previous.facts)}, and its vectors with it; leave --prompt, --pooling "
                "and --max-tokens out",
                remedy="rebuild",
            )
    embedder = open_embedder(model, device, threads, named_by)
    settings = Settings(
        model=_stored_name(model),
        fingerprint=embedder.fingerprint,
        dim=embedder.dim,
        paths=tuple(str(path.resolve()) for path in paths),
        globs=globs,
        excludes=excludes,
        types=types,
        ignore_files=not no_ignore,
        facts=facts_to_keep(),
    )
    notices = Notices(quiet)
    target = rebuild_path_of(output) if rebuild else output
    with _saying_what_is_saved(target, quiet):
        with _lock_of_rebuild(output, rebuild, notices):
            if rebuild:
                drop_unless_same(target, settings)
            with PassageStore(target, settings) as store:
                store.check_fingerprint(embedder.fingerprint)
                if store.settings[3:8] != settings[3:8]:
                    store.set_sources(settings)
                _update(store, embedder, as_json, quiet, skipped, notices)
            notices.close()
            if rebuild:
                move_whole(target, output)
        if watch:
            with PassageStore(output) as store:
                keep_current(
                    lambda: _update(store, embedder, as_json, quiet, skipped, notices, watching=True), interval
                )


@contextlib.contextmanager
def _saying_what_is_saved(target: Path, quiet: bool) -> Iterator[None]:
    """Says after Ctrl-C where the finished work is."""
    try:
        yield
    except KeyboardInterrupt:
        if not quiet:
            click.echo(
                f"gte: {printable_path(target)}: finished work is saved; run the same command again to continue",
                err=True,
            )
        raise


def _stored_name(model: str) -> str:
    """The model's name as an index keeps it: a path that leads to it from any folder."""
    return str(Path(model).resolve()) if Path(model).exists() and model not in bundled_models() else model


def _said(facts: Mapping[str, Any] | None) -> str:
    return "none of these options" if not facts else json.dumps(facts, ensure_ascii=False)


def open_embedder(model: str, device: str, threads: int | None, named_by: Path | None) -> Embedder:
    """Opens a model. A model that an index names is never downloaded: the index may come from anywhere."""
    try:
        return open_model(model, device, threads, offline=True if named_by else None)
    except HubError as error:
        if named_by is None:
            raise
        raise click.ClickException(
            f"{named_by} is of the model {model}, which is not on this machine; give --model {model} to download it"
        ) from error


@contextlib.contextmanager
def _lock_of_rebuild(output: Path, rebuild: bool, notices: Notices) -> Iterator[None]:
    """Makes other updates of the old index wait until the new one has its name."""
    if not rebuild:
        yield
        return
    with exclusive(output, lambda: notices(f"{output}: another process updates it; waiting")):
        yield


def keep_current(look: Callable[[], object], interval: float) -> None:
    """Calls `look` until Ctrl-C, every `interval` seconds, or less often if a call takes long."""
    while True:
        started = time.thread_time()  # not the clock: a look may wait for another process
        look()
        took = time.thread_time() - started
        time.sleep(max(interval, took / _WATCH_SHARE))


def _update(
    store: PassageStore, embedder: Embedder, as_json: bool, quiet: bool, skipped: bool, notices: Notices,
    watching: bool = False,
) -> None:  # fmt: skip
    started = time.perf_counter()
    with files_bar(quiet) as progress:
        changes = update_index(store, embedder, notices, progress)
    if watching and not changes.any():
        return
    seconds = time.perf_counter() - started
    file_count, passage_count = store.counts()
    if as_json:
        summary = {
            **changes._asdict(),
            "left_out": count_left_out(changes.left_out),
            "files": file_count,
            "passages": passage_count,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(summary))
    if not quiet:
        click.echo(
            f"gte: {_described(changes)}; {plural(changes.embedded, 'passage')} embedded, {seconds:.1f} s", err=True
        )
        click.echo(
            f"gte: {printable_path(store.path)} has {plural(passage_count, 'passage')} of {plural(file_count, 'file')}",
            err=True,
        )
        say_left_out(changes.left_out, skipped)
        say_cut(changes.was_cut, embedder)


def _described(changes: Changes) -> str:
    parts = [f"{getattr(changes, name):,} {name}" for name in ("added", "changed", "removed", "unchanged")]
    return "files: " + ", ".join(parts)
