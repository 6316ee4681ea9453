"""`gte bundle` and `gte verify`: a model in one file, for machines without a network, and a check of every file."""

import json
import tempfile
from pathlib import Path

import click

from gte_sdk.atomic_file import check_target, replace_whole
from gte_sdk.cli.convert import write_converted
from gte_sdk.cli.model_options import check_embeds, fact_options, model_facts, open_model
from gte_sdk.cli.terminal import plural, printable, printable_path
from gte_sdk.errors import InputError
from gte_sdk.model_files.bundle import write_bundle
from gte_sdk.model_files.contents import files_to_bundle, has_own_int8, verified_files
from gte_sdk.model_files.directory import GRAPH_FILES, ModelDir, available_variants, read_model_dir
from gte_sdk.model_files.locate import locate_model
from gte_sdk.model_files.published import hub_name_of


@click.command()
@click.argument("model")
@click.argument("output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice(list(GRAPH_FILES)),
    help="Include only this graph of the model. Can be repeated. By default all graphs are included.",
)  # fmt: skip
@click.option("--revision", metavar="REVISION", help="The branch, tag or commit of a Hub model.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@fact_options
@click.option("--quiet", "-q", is_flag=True, help="Print errors only, no summary.")
def bundle(
    model: str, output: Path, variants: tuple[str, ...], revision: str | None, overwrite: bool, quiet: bool
) -> None:
    """Put a model into one FILE, with a SHA-256 of everything in it.

    MODEL is a bundled name, a model directory, or a Hub name. `Embedder("FILE")` and --model FILE open FILE directly,
    without unpacking it. FILE is a ZIP file that any ZIP tool unpacks. The same model always gives the same bytes.
    With --variant int8, a model that has float32 weights only is converted first, as by `gte convert`.

    \b
    Examples:
      gte bundle gte-mini gte-mini.gte
      gte bundle thenlper/gte-small app.gte --variant int8
      gte verify app.gte
    """
    check_target(output, overwrite)
    source = locate_model(model, variants[0] if variants else "auto", revision, None, model_facts())
    description = read_model_dir(source, model_facts())
    with tempfile.TemporaryDirectory(prefix="gte-bundle-") as folder:
        if variants == ("int8",) and not has_own_int8(description):
            description = _converted(description, Path(folder) / "int8")
        files = files_to_bundle(description, variants)
        if output.exists() and any(path.samefile(output) for path in files.values()):
            raise click.UsageError(f"{output} is a file of MODEL, which would be lost; name another file")
        with replace_whole(output, overwrite) as file:
            write_bundle(file, files, hub_name_of(source))
            size = file.tell()
    if not quiet:
        click.echo(f"gte: {printable_path(output)}: {plural(len(files), 'file')}, {size:,} bytes", err=True)


def _converted(description: ModelDir, folder: Path) -> ModelDir:
    """The model in int8; as it is if only its published int8 graph can be bundled, which is said."""
    try:
        write_converted(description, folder, overwrite=False)
    except InputError as error:
        if "int8" not in available_variants(description):
            raise InputError(f"variant='int8'; {error}") from error
        click.echo(f"gte: {printable(str(error))}; its published int8 graph is bundled", err=True)
        return description
    return read_model_dir(folder)


@click.command()
@click.argument("model", metavar="MODEL")
@fact_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only, no summary.")
def verify(model: str, as_json: bool, quiet: bool) -> None:
    """Check every file of a model against its recorded SHA-256, and that the model embeds.

    MODEL is a bundle (app.gte), a model directory with gte.json, or a bundled name. The exit code is 0 if all files
    are intact. Otherwise it is 1, and the message names the file.

    \b
    Examples:
      gte verify app.gte
      gte verify exports/my-model && cp -r exports/my-model /srv/models
    """
    facts = model_facts()
    description = read_model_dir(locate_model(model, "auto", None, True, facts), facts)
    names = verified_files(description)
    embedder = open_model(model, offline=True)
    check_embeds(embedder)
    if as_json:
        result = {
            "model": str(description.path), "name": description.name, "fingerprint": embedder.fingerprint,
            "dim": embedder.dim, "variants": sorted(available_variants(description)), "files": names,
        }  # fmt: skip
        click.echo(json.dumps(result))
    if not quiet:
        click.echo(
            f"gte: {printable_path(str(description.path))}: {plural(len(names), 'file')} whole; it embeds", err=True
        )
