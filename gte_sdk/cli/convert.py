"""`gte convert`: a model with float32 weights as a model directory of int8 weights, without PyTorch."""

from pathlib import Path

import click

import gte_sdk
from gte_sdk.atomic_file import check_directory, replace_directory
from gte_sdk.cli.model_options import fact_options, model_facts
from gte_sdk.cli.terminal import printable, printable_path
from gte_sdk.model_files.directory import ModelDir, read_model_dir
from gte_sdk.model_files.locate import locate_model
from gte_sdk.runtime.int8.convert import write_int8_directory
from gte_sdk.runtime.int8.progress import progress_line
from gte_sdk.runtime.text_tokenizer import load_text_tokenizer
from gte_sdk.threads import available_threads


@click.command()
@click.argument("model")
@click.option("--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The directory to write.")
@click.option("--variant", type=click.Choice(["int8"]), default="int8", show_default=True, help="What to convert to.")
@click.option("--revision", metavar="REVISION", help="The branch, tag or commit of a Hub model.")
@fact_options
@click.option("--overwrite", is_flag=True, help="Replace DIR if it exists.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="The number of threads; by default as many as this process may use.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print errors only, no summary.")
def convert(
    model: str, output: Path, variant: str, revision: str | None, overwrite: bool, threads: int | None, quiet: bool
) -> None:
    """Write a model as a directory of int8 weights, with its tokenizer, hashes, golden vectors, parity and card.

    MODEL is a model directory with float32 weights, or a Hub name. The native engine must be able to run it. The
    weights are those that variant="int8" makes when the model opens, so the vectors are the same. Nothing is written
    if they lose too much.

    \b
    Examples:
      gte convert thenlper/gte-small --output gte-small-int8
      gte verify gte-small-int8
    """
    check_directory(output, overwrite)
    source = locate_model(model, variant, revision, None, model_facts())
    cosine = write_converted(read_model_dir(source, model_facts()), output, overwrite, threads)
    if not quiet:
        mean, least = cosine["mean"], cosine["minimum"]
        click.echo(f"gte: {printable_path(output)}: cosine to float32 {mean:.4f}, least {least:.4f}", err=True)


def write_converted(
    description: ModelDir, output: Path, overwrite: bool, threads: int | None = None
) -> dict[str, float]:
    """Writes the directory whole or not at all. Returns the cosines to float32: "mean" and "minimum"."""
    tokenizer = load_text_tokenizer(description).tokenizer
    what = f"gte: converting {printable(description.name)} to int8"
    with replace_directory(output, overwrite) as folder, progress_line(what) as progress:
        report = write_int8_directory(
            description, folder, tokenizer, threads or available_threads(), gte_sdk.__version__, progress
        )
    cosine: dict[str, float] = report["precisions"]["int8"]["cosine"]
    return cosine
