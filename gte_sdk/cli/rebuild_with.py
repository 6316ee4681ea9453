"""`gte index --rebuild-with`: gives a passage index another model, from the texts that are in it."""

import os
import time
from pathlib import Path

import click

from gte_sdk.atomic_file import beside, move_whole
from gte_sdk.cli.model_options import say_cut
from gte_sdk.cli.terminal import Notices, files_bar, plural, printable_path
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import IndexFormatError
from gte_sdk.passages.database import is_passage_store
from gte_sdk.passages.reembedding import reembed_index
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.update_lock import exclusive


def rebuild_path_of(output: Path) -> Path:
    """Returns where the new index grows until it takes the place of the old one."""
    return beside(Path(os.path.realpath(output)), ".rebuild")


def rebuild_with(output: Path, embedder: Embedder, model: str, facts: dict[str, object] | None, quiet: bool) -> None:
    """Embeds the texts of the index `output` again with another model, and puts the result in its place."""
    started = time.perf_counter()
    notices = Notices(quiet)
    target = rebuild_path_of(output)
    with exclusive(output, lambda: notices(f"{output}: another process updates it; waiting")):
        with PassageStore(output) as old:
            if (old.settings.fingerprint, old.settings.facts) == (embedder.fingerprint, facts):
                notices(f"{output} is of this model already; nothing was embedded")
                return
            settings = old.settings._replace(
                model=model, fingerprint=embedder.fingerprint, dim=embedder.dim, facts=facts
            )
            drop_unless_same(target, settings)
            with PassageStore(target, settings) as new, files_bar(quiet) as progress:
                if new.settings != settings:
                    new.set_sources(settings)
                counts = reembed_index(old, new, embedder, progress)
                file_count, passage_count = new.counts()
        move_whole(target, output)
    if not quiet:
        size = f"{plural(passage_count, 'passage')} of {plural(file_count, 'file')}"
        click.echo(
            f"gte: {printable_path(output)} has {size} with vectors of {model}; "
            f"{plural(counts.embedded, 'text')} embedded, {time.perf_counter() - started:.1f} s",
            err=True,
        )
        say_cut(counts.was_cut, embedder)


def drop_unless_same(path: Path, settings: Settings) -> None:
    """Keeps what an interrupted rebuild with the same model left, and deletes anything else."""
    if not path.exists():
        return
    left = settings_of(path, must_be_whole=False) if is_passage_store(path) else None
    of_same_model = left is not None and (left.model, left.fingerprint, left.facts) == (
        settings.model, settings.fingerprint, settings.facts,
    )  # fmt: skip
    if not of_same_model:
        path.unlink()


def settings_of(path: Path, must_be_whole: bool = True) -> Settings | None:
    """Returns the settings of an index; None if there is no index, or if it is damaged but will be replaced anyway."""
    if not path.exists():
        return None
    try:
        with PassageStore(path) as store:
            return store.settings
    except IndexFormatError:
        if must_be_whole:
            raise
        return None
