"""`gte models` and `gte download`: lists the models on this machine, and downloads one from the Hub for later."""

import json
from pathlib import Path
from typing import Any

import click

from gte_sdk.cli.model_options import check_embeds, fact_options, model_facts, open_model
from gte_sdk.errors import GteError, HubError
from gte_sdk.model_files.directory import (
    GRAPH_FILES,
    ModelDir,
    available_variants,
    bundled_model_path,
    bundled_models,
    read_model_dir,
)
from gte_sdk.model_files.hub.download import cached_models, fetch_model, is_hub_name


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with the paths.")
def models(as_json: bool) -> None:
    """List the models that work without a network: those in the package and those in the Hub's cache.

    \b
    Examples:
      gte models
      gte models --json | jq -r '.[].name'
    """
    found = [_described(name, "bundled", read_model_dir(bundled_model_path(name))) for name in bundled_models()]
    for name, revision, path in cached_models():
        try:
            description = read_model_dir(path)
        except GteError:  # half downloaded, or of another kind than text embeddings
            continue
        if available_variants(description):
            found.append({**_described(name, "cache", description), "revision": revision})
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max([len("NAME"), *(len(model["name"]) for model in found)])
    click.echo(f"{'NAME':<{width}}  {'FROM':<8} {'DIM':>5} {'TOKENS':>7} {'MB':>7}  VARIANTS")
    for model in found:
        numbers = f"{model['dim'] or '?':>5} {model['max_tokens']:>7} {model['bytes'] / 1e6:>7.1f}"
        click.echo(f"{model['name']:<{width}}  {model['from']:<8} {numbers}  {', '.join(model['variants'])}")


@click.command()
@click.argument("name")
@click.option("--revision", metavar="REVISION", help="The branch, tag or commit. A commit pins the model.")
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice(list(GRAPH_FILES)),
    help="The graph to download. Can be repeated. By default one graph, fp32 if there is one.",
)  # fmt: skip
@fact_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def download(name: str, revision: str | None, variants: tuple[str, ...], as_json: bool) -> None:
    """Download a model from the Hub into its cache, so that it works without a network from then on.

    NAME has the form owner/model. The command prints the model's folder on standard output, once the model has embedded
    a text. Files that are already in the cache are not downloaded again.

    \b
    Examples:
      gte download thenlper/gte-small
      gte download thenlper/gte-small --revision main --variant int8 --variant fp32
    """
    if not is_hub_name(name):
        raise click.UsageError(f"{name!r} is not a Hub name; give owner/model, such as thenlper/gte-small")
    wanted = variants or ("auto",)
    folders = [fetch_model(name, variant, revision, False, model_facts()) for variant in wanted]
    if len(set(folders)) > 1:
        raise HubError(f"{name} changed during the download; pin it with --revision {folders[-1].name}")
    for variant in wanted:
        with open_model(name, "cpu", revision=folders[-1].name, variant=variant, offline=True) as embedder:
            check_embeds(embedder)
    description = read_model_dir(folders[-1], model_facts())
    if as_json:
        click.echo(json.dumps({**_described(name, "cache", description), "revision": folders[-1].name}))
        return
    click.echo(str(folders[-1]))
    pin = "" if revision == folders[-1].name else f"; pin it with --revision {folders[-1].name}"
    click.echo(f"gte: {name}: {', '.join(available_variants(description))}{pin}", err=True)


def _described(name: str, origin: str, description: ModelDir) -> dict[str, Any]:
    folder = description.path
    assert isinstance(folder, Path)
    return {
        "name": name, "from": origin, "dim": description.dim, "max_tokens": description.max_tokens,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "variants": sorted(available_variants(description)), "path": str(folder),
    }  # fmt: skip
