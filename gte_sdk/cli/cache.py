"""`gte cache`: the int8 weights that were made as models opened, and a way to remove them."""

import json

import click

from gte_sdk.cli.terminal import plural, printable_path
from gte_sdk.model_files.user_cache import cache_folder, cached_bytes, clear_cache


@click.command()
@click.option("--clear", is_flag=True, help="Remove the files. A model is quantized again when it opens next.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def cache(clear: bool, as_json: bool) -> None:
    """Show the folder and size of the cache of int8 weights, or clear it.

    A model that has float32 weights only is quantized the first time that it opens with variant="int8", and the int8
    weights are kept here. Downloaded models are in the Hub's own cache, which `gte doctor` names.

    \b
    Examples:
      gte cache
      gte cache --clear
    """
    folder = cache_folder()
    models, size = clear_cache() if clear else cached_bytes()
    if as_json:
        result = {"folder": None if folder is None else str(folder), "models": models, "bytes": size, "cleared": clear}
        click.echo(json.dumps(result))
        return
    shown = "no folder, because this user has no home" if folder is None else printable_path(folder)
    removed = "removed " if clear else ""
    click.echo(f"{shown}: {removed}{plural(models, 'model')}, {size / 1e6:.1f} MB")
