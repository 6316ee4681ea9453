"""`gte cache`: int8 weights made as models opened, the indexes of `gte mcp`, and a way to remove both."""

import contextlib
import json

import click

from gte_sdk.cli.terminal import plural, printable_path
from gte_sdk.model_files.user_cache import cache_folder, cached_bytes, cached_indexes, clear_cache, indexes_folder


@click.command()
@click.option("--clear", is_flag=True, help="Remove the files. What is needed again is made again.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def cache(clear: bool, as_json: bool) -> None:
    """Show the folders and sizes of the caches, or clear them.

    A model that has float32 weights only is quantized the first time that it opens with variant="int8", and the int8
    weights are kept here. So are the passage indexes of folders that `gte mcp` searches. Downloaded models are in the
    Hub's own cache, which `gte doctor` names.

    \b
    Examples:
      gte cache
      gte cache --clear
    """
    folder = cache_folder()
    models, size = clear_cache() if clear else cached_bytes()
    indexes, index_size = _indexes(clear)
    if as_json:
        result = {"folder": None if folder is None else str(folder), "models": models, "bytes": size, "cleared": clear}
        click.echo(json.dumps({**result, "indexes": indexes, "index_bytes": index_size}))
        return
    shown = "no folder, because this user has no home" if folder is None else printable_path(folder)
    removed = "removed " if clear else ""
    click.echo(f"{shown}: {removed}{plural(models, 'model')}, {size / 1e6:.1f} MB")
    if indexes:
        shown = printable_path(str(indexes_folder()))
        counted = "1 passage index" if indexes == 1 else f"{indexes:,} passage indexes"
        click.echo(f"{shown}: {removed}{counted}, {index_size / 1e6:.1f} MB")


def _indexes(clear: bool) -> tuple[int, int]:
    count = size = 0
    for file in cached_indexes():
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            size += file.stat().st_size
            count += file.suffix == ".index"
            if clear:
                file.unlink()
    return count, size
