"""`gte embed`: a table of texts in, a file of vectors out, as a stream."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from gte_sdk.atomic_file import check_target, replace_whole
from gte_sdk.cli.embed_ray import RayOptions, embed_on_ray
from gte_sdk.cli.model_options import embed_batch, model_options
from gte_sdk.cli.terminal import counted, kept_before, progress_bar, say_kept
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import TEXT_KINDS, TextKind
from gte_sdk.errors import InputError
from gte_sdk.tables.journal import VectorJournal
from gte_sdk.tables.text_tables import FORMATS, Format, format_of, read_texts
from gte_sdk.tables.vector_files import VECTOR_FORMATS, VectorFormat, open_writer, vector_format_of

STANDARD_STREAM = "-"


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, allow_dash=True))
@click.option("--column", metavar="NAME", help="The column of the texts; by default 'text', or the only one.")
@click.option(
    "--output", "-o", metavar="FILE", default=STANDARD_STREAM,
    help="Where the vectors go: .npy, .jsonl or .parquet; by default JSONL on standard output.",
)  # fmt: skip
@click.option("--input-format", type=click.Choice(FORMATS), help="What INPUT is, where its suffix does not say it.")
@click.option("--format", "output_format", type=click.Choice(VECTOR_FORMATS), help="What FILE is, likewise.")
@click.option(
    "--kind", type=click.Choice(TEXT_KINDS), default="plain", show_default=True,
    help="Which of the model's prompts to put before each text; many models, gte-mini too, have none.",
)  # fmt: skip
@click.option(
    "--vector-column", default="embedding", show_default=True, metavar="NAME",
    help="What the vectors are called in JSONL and Parquet.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--resume", is_flag=True, help="Go on with what an interrupted run kept beside FILE, where there is such."
)
@model_options
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Who embeds: this process, or the workers of a Ray cluster (RAY_ADDRESS; without it, of this machine).",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N",
    help="With --engine ray: how many workers, each with --threads (by default 1); by default all that fit.",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="No progress bar, no summary; errors only.")
def embed(
    source: str,
    column: str | None,
    output: str,
    input_format: Format | None,
    output_format: VectorFormat | None,
    kind: TextKind,
    vector_column: str,
    overwrite: bool,
    resume: bool,
    model: str,
    device: str,
    threads: int | None,
    engine: str,
    workers: int | None,
    quiet: bool,
) -> None:
    """Turn texts into vectors.

    INPUT holds one text a line (.txt, or - for standard input), or rows with a column of texts: JSONL, CSV, TSV or
    Parquet. Each row gives one vector of unit length, in the same order. JSONL and Parquet keep the other columns.
    The output file appears whole when all is done, or not at all. What is done until a Ctrl-C, a kill or a bad row is
    kept in FILE.unfinished: the same command with --resume goes on from there.

    With --engine ray, INPUT is a Parquet file or a folder of such, and FILE becomes a folder of Parquet files with the
    same rows and vectors. A worker that dies costs the part that it was at; --resume goes on as above.

    \b
    Examples:
      gte embed sentences.txt --output sentences.npy
      gte embed reviews.parquet --column review --output vectors.parquet
      gte embed questions.jsonl --column question --kind query -o vectors.jsonl
      echo "a line of text" | gte embed - > vectors.jsonl
      gte embed reviews.parquet --column review --engine ray --output vectors
    """
    if engine == "ray":
        if source == STANDARD_STREAM or output == STANDARD_STREAM:
            raise click.UsageError("--engine ray takes INPUT and --output as paths that every worker can open")
        if input_format not in (None, "parquet") or output_format not in (None, "parquet"):
            raise click.UsageError("--engine ray reads and writes Parquet; use --engine local for other formats")
        options = RayOptions(model, "cuda" if device == "cuda" else "cpu", threads or 1, workers)
        embed_on_ray(
            Path(source), column, Path(output), kind, vector_column, options,
            overwrite=overwrite, resume=resume, quiet=quiet,
        )  # fmt: skip
        return
    if workers is not None:
        raise click.UsageError("--workers goes with --engine ray; --engine local has --threads")
    if Path(source).is_dir():
        raise click.UsageError(f"{source} is a folder; --engine ray takes one, of Parquet files")
    source_format = input_format or _source_format(source)
    target_format = output_format or _target_format(output)
    if source == STANDARD_STREAM and source_format == "parquet":
        raise click.UsageError("Parquet cannot be read from standard input; give a file")
    if output == STANDARD_STREAM and target_format != "jsonl":
        raise click.UsageError(f"{target_format} cannot be written to standard output; name a file with --output")
    if output == STANDARD_STREAM and resume:
        raise click.UsageError("--resume goes on with a file; name it with --output")
    if output != STANDARD_STREAM:
        check_target(Path(output), overwrite)

    with _open_source(source) as source_file:
        table = read_texts(
            source_file, "standard input" if source == STANDARD_STREAM else source, source_format, column
        )
        embedder = Embedder(model, device=device, threads=threads)
        metadata = {"gte_sdk.model": model, "gte_sdk.fingerprint": embedder.fingerprint, "gte_sdk.kind": kind}
        identity = {
            "fingerprint": embedder.fingerprint, "kind": kind, "variant": embedder.variant, "device": embedder.device,
        }  # fmt: skip
        started = time.perf_counter()
        row_count = embedded_count = 0
        first_cut: str | None = None
        with (
            _open_journal(output, embedder.dim, identity, resume, overwrite, quiet) as journal,
            _open_target(output, overwrite) as target_file,
            open_writer(target_file, target_format, embedder.dim, vector_column, metadata) as write,
            progress_bar("embedding", table.row_count, "texts", quiet) as bar,
        ):
            for batch in table.batches:
                kept = journal.take(batch.texts) if journal else None
                vectors_ND, was_cut = kept or embed_batch(embedder, batch.texts, kind)
                if kept is None:
                    embedded_count += len(batch.texts)
                    if journal:
                        journal.append(batch.texts, vectors_ND, was_cut)
                write(batch, vectors_ND)
                row_count += len(batch.texts)
                bar.update(len(batch.texts))
                if was_cut and first_cut is None:
                    first_cut = f"rows {batch.first_row} to {row_count}"
    if quiet:
        return
    if first_cut:
        limit = f"the {embedder.max_tokens} tokens that the model reads"
        click.echo(f"gte: texts longer than {limit} were cut, the first of them in {first_cut}", err=True)
    seconds = time.perf_counter() - started
    rate = f"{embedded_count / seconds:,.0f} texts/s"
    texts = f"{counted(row_count, 'text')}{kept_before(row_count - embedded_count)}"
    click.echo(f"gte: {texts}, {embedder.dim} dimensions, {seconds:.1f} s ({rate})", err=True)


def _source_format(source: str) -> Format:
    try:
        return "lines" if source == STANDARD_STREAM else format_of(Path(source))
    except InputError as error:
        raise click.UsageError(str(error)) from error


def _target_format(output: str) -> VectorFormat:
    try:
        return "jsonl" if output == STANDARD_STREAM else vector_format_of(Path(output))
    except InputError as error:
        raise click.UsageError(str(error)) from error


@contextlib.contextmanager
def _open_source(source: str) -> Iterator[IO[bytes]]:
    if source == STANDARD_STREAM:
        yield sys.stdin.buffer
    else:
        with Path(source).open("rb") as file:
            yield file


@contextlib.contextmanager
def _open_target(output: str, overwrite: bool) -> Iterator[IO[bytes]]:
    if output == STANDARD_STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with replace_whole(Path(output), overwrite) as file:
            yield file


@contextlib.contextmanager
def _open_journal(
    output: str, dim: int, identity: dict[str, str], resume: bool, overwrite: bool, quiet: bool
) -> Iterator[VectorJournal | None]:
    """Keeps what is done until the output is in its place; says what is kept where that does not happen."""
    if output == STANDARD_STREAM:
        yield None
        return
    with VectorJournal(Path(output), dim, identity, resume=resume, overwrite=overwrite) as journal:
        try:
            yield journal
            journal.delete()
        finally:
            if journal.path.exists() and not quiet:
                say_kept(journal.row_count, journal.path)
