"""`gte embed`: a table of texts in, a file of vectors out, as a stream."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from gte_sdk.atomic_file import check_target, is_stream, replace_whole
from gte_sdk.cli.embed_ray import RayOptions, embed_on_ray
from gte_sdk.cli.model_options import model_facts, model_options, open_model
from gte_sdk.cli.remedies import message_with_flag
from gte_sdk.cli.terminal import kept_before, plural, say_kept, terminal_bar
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import TEXT_KINDS, TextKind, conversion, embed_batch
from gte_sdk.embedding.vector_types import VECTOR_DTYPES, row_type
from gte_sdk.errors import InputError
from gte_sdk.tables.journal import VectorJournal
from gte_sdk.tables.text_batches import ON_NULL, OnNull, TableOptions, TextTable, rows_of, without_column
from gte_sdk.tables.text_tables import FORMATS, Format, format_of, open_text_table
from gte_sdk.tables.vector_files import VECTOR_FORMATS, VectorFormat, Write, open_writer, vector_format_of

STANDARD_STREAM = "-"


class Counts(NamedTuple):
    """What the summary says, over all batches."""

    rows: int = 0
    embedded: int = 0
    """Not kept from an earlier run."""
    skipped: int = 0
    empty: int = 0
    first_cut: str = ""
    """The rows of the first batch with a text that was longer than the model reads."""


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--column", metavar="NAME",
    help="The column of the texts, or a field of it (doc.text); by default 'text', or the only column.",
)  # fmt: skip
@click.option(
    "--output", "-o", metavar="FILE", default=STANDARD_STREAM,
    help="Where the vectors go: .npy, .jsonl or .parquet; by default JSONL on standard output.",
)  # fmt: skip
@click.option("--input-format", type=click.Choice(FORMATS), help="The format of INPUT, if its suffix does not name it.")
@click.option(
    "--delimiter", metavar="CHARACTER", help="What separates the columns of CSV, such as ';'; by default a comma."
)
@click.option(
    "--encoding", default="utf-8", show_default=True, metavar="NAME",
    help="The encoding of a text file, such as utf-16 or cp1252.",
)  # fmt: skip
@click.option(
    "--on-null", type=click.Choice(ON_NULL),
    help="What to do with a row whose text is null, missing, or an empty cell of CSV: stop, skip the row, or embed an "
    "empty text. By default null stops the command and an empty cell is an empty text.",
)  # fmt: skip
@click.option(
    "--format", "output_format", type=click.Choice(VECTOR_FORMATS), help="The format of FILE, if its suffix does not."
)
@click.option(
    "--kind", type=click.Choice(TEXT_KINDS), default="plain", show_default=True,
    help="Which of the model's prompts to put before each text; many models, gte-mini too, have none.",
)  # fmt: skip
@click.option(
    "--vector-column", default="embedding", show_default=True, metavar="NAME",
    help="The name of the vectors in JSONL and Parquet.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(list(VECTOR_DTYPES)), default="float32", show_default=True,
    help="The type of the vectors; binary packs a bit for each dimension into bytes.",
)  # fmt: skip
@click.option(
    "--dim", type=click.IntRange(min=1), metavar="N",
    help="Shorten the vectors to N dimensions, for models trained for it.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace vectors that INPUT has in --vector-column, instead of stopping.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run from what it kept beside FILE, if anything.")
@model_options
@click.option(
    "--on", "place", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Where to embed: in this process, or on the workers of a Ray cluster (RAY_ADDRESS, else this machine).",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N",
    help="With --on ray: the number of workers, each with --threads (by default 1); by default as many as fit.",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Print errors only: no progress bar or summary.")
def embed(
    source: str,
    column: str | None,
    output: str,
    input_format: Format | None,
    delimiter: str | None,
    encoding: str,
    on_null: OnNull | None,
    output_format: VectorFormat | None,
    kind: TextKind,
    vector_column: str,
    dtype: str,
    dim: int | None,
    replace: bool,
    overwrite: bool,
    resume: bool,
    model: str,
    device: str,
    threads: int | None,
    place: str,
    workers: int | None,
    quiet: bool,
) -> None:
    """Turn texts into vectors.

    INPUT holds one text on each line (.txt, or - for standard input), or rows with a column of texts: JSONL, a JSON
    array, CSV, TSV or Parquet. Text files may be compressed (.gz, .zst). Each row gives one vector of unit length, in
    the same order. JSONL and Parquet keep the other columns. The output file appears complete or not at all. After
    Ctrl-C, a kill or a bad row, the finished work is kept in FILE.unfinished: the same command with --resume continues
    from there.

    With --on ray, INPUT is a Parquet file or a folder of them, and FILE becomes a folder of Parquet files with the same
    rows and vectors. If a worker dies, only the part that it was working on is lost; --resume works as above.

    \b
    Examples:
      gte embed sentences.txt --output sentences.npy
      gte embed reviews.parquet --column review --output vectors.parquet
      gte embed questions.jsonl --column question --kind query -o vectors.jsonl
      gte embed export.csv.gz --delimiter ";" --encoding cp1252 --on-null skip -o vectors.parquet
      echo "a line of text" | gte embed - > vectors.jsonl
      gte embed reviews.parquet --column review --dtype int8 --dim 256 --output vectors.npy
      gte embed export.parquet --replace --output new.parquet   # the vectors of another model
      gte embed reviews.parquet --column review --on ray --output vectors
    """
    delimiter = "\t" if delimiter == "\\t" else delimiter
    options = TableOptions(column, delimiter, encoding, on_null)
    if place == "ray":
        if source == STANDARD_STREAM or output == STANDARD_STREAM:
            raise click.UsageError("--on ray takes INPUT and --output as paths that every worker can open")
        if input_format not in (None, "parquet") or output_format not in (None, "parquet"):
            raise click.UsageError("--on ray reads and writes Parquet; use --on local for other formats")
        if options != TableOptions(column):
            raise click.UsageError("--delimiter, --encoding and --on-null go with --on local")
        if (dtype, dim, replace) != ("float32", None, False):
            raise click.UsageError("--dtype, --dim and --replace go with --on local")
        ray_options = RayOptions(model, "cuda" if device == "cuda" else "cpu", threads or 1, workers, model_facts())
        embed_on_ray(
            Path(source), column, Path(output), kind, vector_column, ray_options,
            overwrite=overwrite, resume=resume, quiet=quiet,
        )  # fmt: skip
        return
    if workers is not None:
        raise click.UsageError("--workers goes with --on ray; --on local has --threads")
    if Path(source).is_dir():
        raise click.UsageError(f"{source} is a folder; --on ray takes one, of Parquet files")
    to_stream = output == STANDARD_STREAM or is_stream(Path(output))
    source_format = input_format or _source_format(source)
    target_format = output_format or _target_format(output, to_stream)
    if source == STANDARD_STREAM and source_format == "parquet":
        raise click.UsageError("Parquet cannot be read from standard input; give a file")
    if output == STANDARD_STREAM and target_format != "jsonl":
        raise click.UsageError(f"{target_format} cannot be written to standard output; name a file with --output")
    if to_stream and resume:
        raise click.UsageError("--resume continues a file; name it with --output")
    if output != STANDARD_STREAM:
        check_target(Path(output), overwrite)
        if (source_format, target_format) not in (("jsonl", "jsonl"), ("parquet", "parquet")) or on_null == "skip":
            _check_not_the_input(source, output)

    started = time.perf_counter()
    with _open_source(source) as source_file:
        name = "standard input" if source == STANDARD_STREAM else source
        table = open_text_table(source_file, name, source_format, options)
        if replace:
            table = without_column(table, vector_column)
        embedder = open_model(model, device, threads, dim=dim)
        convert = conversion(embedder, dtype)
        metadata = {
            "gte_sdk.model": model, "gte_sdk.fingerprint": embedder.fingerprint, "gte_sdk.kind": kind,
            "gte_sdk.dtype": dtype,
        }  # fmt: skip
        identity = {
            "fingerprint": embedder.fingerprint, "kind": kind, "variant": embedder.variant, "device": embedder.device,
            "prompt": embedder.prompt_for(kind), "max_tokens": str(embedder.max_tokens),
        }  # fmt: skip
        with (
            _open_journal(output, to_stream, embedder.dim, identity, resume, overwrite, quiet) as journal,
            _open_target(output, overwrite) as target_file,
            open_writer(target_file, target_format, row_type(dtype, embedder.dim), vector_column, metadata) as write,
            terminal_bar("embedding", table.row_count, "texts", quiet) as bar,
        ):
            counts = _embed_table(
                table, embedder, kind, journal, lambda batch, vectors: write(batch, convert(vectors)), bar
            )
    if not quiet:
        _summarize(counts, embedder, time.perf_counter() - started)


def _embed_table(
    table: TextTable, embedder: Embedder, kind: TextKind, journal: VectorJournal | None, write: Write, bar: Any
) -> Counts:
    counts = Counts()
    for batch in table.batches:
        kept = journal.take(batch.texts) if journal else None
        embedded = kept or embed_batch(embedder, batch.texts, kind)
        if kept is None and journal:
            journal.append(batch.texts, embedded.vectors, embedded.was_cut)
        write(batch, embedded.vectors)
        counts = Counts(
            rows=counts.rows + len(batch.texts),
            embedded=counts.embedded + (0 if kept else len(batch.texts)),
            skipped=counts.skipped + batch.skipped,
            empty=counts.empty + batch.texts.count(""),
            first_cut=counts.first_cut or (rows_of(batch) if embedded.was_cut else ""),
        )
        bar.update(len(batch.texts) + batch.skipped)
    return counts


def _summarize(counts: Counts, embedder: Embedder, seconds: float) -> None:
    if counts.first_cut:
        limit = f"the {embedder.max_tokens} tokens that the model reads"
        click.echo(f"gte: texts longer than {limit} were cut, the first of them in {counts.first_cut}", err=True)
    if counts.empty:
        click.echo(f"gte: {plural(counts.empty, 'empty text')} embedded", err=True)
    if counts.skipped:
        click.echo(f"gte: {plural(counts.skipped, 'row')} without a text skipped", err=True)
    rate = f"{counts.embedded / seconds:,.0f} texts/s"
    texts = f"{plural(counts.rows, 'text')}{kept_before(counts.rows - counts.embedded)}"
    click.echo(f"gte: {texts}, {embedder.dim} dimensions, {seconds:.1f} s ({rate})", err=True)


def _source_format(source: str) -> Format:
    try:
        return "lines" if source == STANDARD_STREAM else format_of(Path(source))
    except InputError as error:
        raise click.UsageError(message_with_flag(error)) from error


def _target_format(output: str, to_stream: bool) -> VectorFormat:
    if to_stream and not Path(output).suffix:
        return "jsonl"
    try:
        return vector_format_of(Path(output))
    except InputError as error:
        raise click.UsageError(message_with_flag(error)) from error


def _check_not_the_input(source: str, output: str) -> None:
    if source != STANDARD_STREAM and Path(output).is_file() and Path(output).samefile(source):
        raise click.UsageError(f"{output} is INPUT itself, which would be lost; name another file")


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
    output: str, to_stream: bool, dim: int, identity: dict[str, str], resume: bool, overwrite: bool, quiet: bool
) -> Iterator[VectorJournal | None]:
    """Keeps what is done until the output is in its place; says what is kept where that does not happen."""
    if to_stream:
        yield None
        return
    with VectorJournal(Path(output), dim, identity, resume=resume, overwrite=overwrite) as journal:
        try:
            yield journal
            journal.delete()
        finally:
            if journal.path.exists() and not quiet:
                say_kept(journal.row_count, journal.path)
