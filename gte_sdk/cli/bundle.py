"""`gte bundle` and `gte verify`: a model in one file, for machines without a network, and a check of every file."""

import json
from pathlib import Path

import click
import numpy as np

from gte_sdk.atomic_file import check_target, replace_whole
from gte_sdk.cli.terminal import counted
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.bundle import LIST_NAME, BundlePath, write_bundle
from gte_sdk.model_files.directory import (
    GRAPH_FILES,
    GTE_JSON,
    TOKENIZER_JSON,
    FileRecord,
    ModelDir,
    available_variants,
    checked_file,
    read_model_dir,
)
from gte_sdk.model_files.locate import locate_model
from gte_sdk.model_files.published import CONFIG_JSON, hub_name_of

# What a directory of the Hub holds beside the weights of other frameworks.
_MODEL_SUFFIXES = (".json", ".txt", ".md", ".onnx", ".model")
_LEGAL_NAMES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


@click.command()
@click.argument("model")
@click.argument("output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice(list(GRAPH_FILES)),
    help="Include only this graph of the model. Can be repeated. By default all graphs are included.",
)  # fmt: skip
@click.option("--revision", metavar="REVISION", help="The branch, tag or commit of a Hub model.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only, no summary.")
def bundle(
    model: str, output: Path, variants: tuple[str, ...], revision: str | None, overwrite: bool, quiet: bool
) -> None:
    """Put a model into one FILE, with a SHA-256 of everything in it.

    MODEL is a bundled name, a model directory, or a Hub name. `Embedder("FILE")` and --model FILE open FILE directly,
    without unpacking it. FILE is a ZIP file that any ZIP tool unpacks. The same model always gives the same bytes.

    \b
    Examples:
      gte bundle gte-mini gte-mini.gte
      gte bundle exports/my-model app.gte --variant int8
      gte verify app.gte
    """
    check_target(output, overwrite)
    source = locate_model(model, variants[0] if variants else "auto", revision, None)
    description = read_model_dir(source)
    files = _files_to_bundle(description, variants)
    with replace_whole(output, overwrite) as file:
        write_bundle(file, files, hub_name_of(source))
        size = file.tell()
    if not quiet:
        click.echo(f"gte: {click.format_filename(output)}: {counted(len(files), 'file')}, {size:,} bytes", err=True)


@click.command()
@click.argument("model", metavar="MODEL")
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
    description = read_model_dir(locate_model(model, "auto", None, True))
    names = _verify_files(description)
    embedder = Embedder(model, offline=True)
    length = float(np.linalg.norm(embedder.embed("A text of the self test.")))
    if not abs(length - 1) <= 1e-4:  # NaN too
        raise ModelFormatError(f"{description.path} gives vectors of length {length:.6f} instead of 1")
    if as_json:
        result = {
            "model": str(description.path), "name": description.name, "fingerprint": embedder.fingerprint,
            "dim": embedder.dim, "variants": sorted(available_variants(description)), "files": names,
        }  # fmt: skip
        click.echo(json.dumps(result))
    if not quiet:
        click.echo(f"gte: {description.path}: {counted(len(names), 'file')} whole; it embeds", err=True)


def _files_to_bundle(description: ModelDir, variants: tuple[str, ...]) -> dict[str, Path]:
    """The files by their names inside; those that are recorded in gte.json are checked."""
    folder = description.path
    if not isinstance(folder, Path):
        raise InputError(f"{folder} is already a bundle; copy it")
    graphs = available_variants(description)
    if missing := [variant for variant in variants if variant not in graphs]:
        raise InputError(f"--variant {missing[0]}: {folder} holds {sorted(graphs)}")
    if not graphs:
        raise ModelFormatError(f"{folder} holds no ONNX graph; export the checkpoint with: python export/to_onnx.py")
    left_out = {
        name for variant, names in GRAPH_FILES.items() if variants and variant not in variants for name in names
    }
    if description.files:
        names = [name for name in description.files if name not in left_out]
        files: dict[str, Path] = {}
        for name in names:
            path = checked_file(description, name)
            assert isinstance(path, Path)
            files[name] = path
        return {**files, GTE_JSON: folder / GTE_JSON}
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in left_out or not path.is_file() or name.startswith(".") or "/." in name:
            continue
        if path.name.endswith((".onnx_data", ".onnx.data")):
            raise InputError(f"{path}: a graph with data outside its file cannot be bundled; export it as one file")
        if path.suffix in _MODEL_SUFFIXES or path.name.startswith(_LEGAL_NAMES):
            files[name] = path
    if missing_files := [name for name in (CONFIG_JSON, TOKENIZER_JSON) if name not in files]:
        raise ModelFormatError(f"{folder / missing_files[0]} is missing; export or download the model again")
    return files


def _verify_files(description: ModelDir) -> list[str]:
    """The names of the files that have their recorded hashes; raises ModelFormatError for the first that has not."""
    folder = description.path
    if isinstance(folder, BundlePath):
        for name, member in folder.members.items():
            (folder / name).read_bytes()
            if name in description.files and description.files[name] != FileRecord(member.sha256, member.bytes):
                raise ModelFormatError(f"{folder}/{name} is not the file that {GTE_JSON} records; bundle it again")
        return [name for name in folder.members if name != LIST_NAME]
    if not description.files:
        raise ModelFormatError(f"{folder} has no {GTE_JSON} with hashes to compare with; export it, or bundle it")
    for name in description.files:
        checked_file(description, name)
    return list(description.files)
