"""`gte drift`: says whether the vectors of a table, such as a store's export, are those of a model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from gte_sdk.cli.model_options import model_options, open_model
from gte_sdk.cli.terminal import plural, printable, printable_path, terminal_bar
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import TEXT_KINDS, TextKind, embed_batch
from gte_sdk.errors import InputError
from gte_sdk.tables.drift import SAMPLE_ROWS, Drift, check_drift
from gte_sdk.tables.text_batches import MISSING, TableOptions, TextTable, rows_of, value_of
from gte_sdk.tables.text_tables import FORMATS, Format, format_of, open_text_table

_FINGERPRINT = "gte_sdk.fingerprint"
# The summary names this many rows that differ.
_SHOWN_ROWS = 5


@click.command()
@click.argument("source", metavar="TABLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--column", metavar="NAME",
    help="The column of the texts, or a field of it (payload.text); by default 'text', or the only column.",
)  # fmt: skip
@click.option(
    "--vector-column", default="embedding", show_default=True, metavar="NAME",
    help="The column of the vectors, or a field of it.",
)  # fmt: skip
@click.option(
    "--vectors", "vectors_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy file with a vector for each row of TABLE, in place of a column.",
)  # fmt: skip
@click.option("--input-format", type=click.Choice(FORMATS), help="The format of TABLE, if its suffix does not name it.")
@click.option(
    "--kind", type=click.Choice(TEXT_KINDS), default="document", show_default=True,
    help="Which of the model's prompts the texts were embedded with.",
)  # fmt: skip
@click.option(
    "--sample", "sample_rows", type=click.IntRange(min=1), default=SAMPLE_ROWS, show_default=True, metavar="N",
    help="How many rows to embed again, drawn from all.",
)  # fmt: skip
@click.option(
    "--dim", type=click.IntRange(min=1), metavar="N", help="The dimensions that the vectors were shortened to, if so."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@model_options
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.pass_context
def drift(
    context: click.Context,
    source: Path,
    column: str | None,
    vector_column: str,
    vectors_file: Path | None,
    input_format: Format | None,
    kind: TextKind,
    sample_rows: int,
    dim: int | None,
    as_json: bool,
    model: str,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Say whether stored vectors are those of a model.

    TABLE is what a store of vectors exports: Parquet, JSONL, a JSON array or CSV with a column of texts and one of
    vectors, as lists of numbers, as text ("[0.1, 0.2]") or as bytes of float32. A sample of the rows is embedded again
    and compared. If a vector is not the model's own, the exit code is 1.

    `gte embed TABLE --replace --output NEW` then embeds all rows again, and continues after an interruption.

    \b
    Examples:
      gte drift export.parquet --column text --vector-column vector
      gte drift points.jsonl --column payload.text --vector-column vector --model thenlper/gte-small
      gte drift texts.jsonl --vectors vectors.npy --json
    """
    with source.open("rb") as file:
        options = TableOptions(column, on_null="skip")
        table = open_text_table(file, str(source), input_format or format_of(source), options)
        embedder = open_model(model, device, threads, dim=dim)
        noted: list[str] = []
        with terminal_bar("reading", table.row_count, "rows", quiet) as bar:
            pairs = _beside(table, vectors_file) if vectors_file else _pairs(table, vector_column, str(source), noted)
            found = check_drift(
                _counted(pairs, bar), lambda texts: embed_batch(embedder, texts, kind).vectors, sample_rows
            )
    if as_json:
        facts = {"model": model, "fingerprint": embedder.fingerprint, "noted_fingerprint": noted[0] if noted else None}
        click.echo(json.dumps({**facts, "model_dim": embedder.dim, "is_drift": not found.is_none(), **found._asdict()}))
    else:
        _print(source, model, embedder, found, noted[0] if noted else None)
        if not found.is_none():
            named = f"--column {table.column} --kind {kind} --model {model}"
            old = "" if vectors_file else f" --vector-column {vector_column} --replace"
            click.echo(f"to embed all rows again: gte embed {printable_path(source)} {printable(named + old)} -o NEW")
    context.exit(0 if found.is_none() else 1)


def _pairs(table: TextTable, vector_column: str, name: str, noted: list[str]) -> Iterator[tuple[str, Any]]:
    """Yields texts and vectors, and puts the fingerprint that a Parquet file notes of itself into `noted`."""
    for batch in table.batches:
        rows = batch.rows
        if batch.record_batch is not None:
            metadata = batch.record_batch.schema.metadata or {}
            if not noted and _FINGERPRINT.encode() in metadata:
                noted.append(metadata[_FINGERPRINT.encode()].decode("utf-8", "replace"))
            names = batch.record_batch.schema.names
            top = vector_column if vector_column in names else vector_column.split(".")[0]
            if top not in names:
                raise InputError(
                    f"{name}: no column {vector_column!r}; the columns are {', '.join(names):.1000}",
                    remedy="vector column",
                )
            rows = batch.record_batch.select([top]).to_pylist()
        assert rows is not None
        for text, row in zip(batch.texts, rows, strict=True):
            vector = value_of(row, vector_column)
            if vector is MISSING:
                raise InputError(f"{name}, {rows_of(batch)}: a row has no {vector_column!r}", remedy="vector column")
            yield text, vector


def _beside(table: TextTable, vectors_file: Path) -> Iterator[tuple[str, Any]]:
    """Yields texts with the rows of a .npy file, which must be as many."""
    try:
        vectors_ND = np.load(vectors_file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{vectors_file}: not a readable .npy file: {error}") from error
    if vectors_ND.ndim != 2:
        raise InputError(
            f"{vectors_file} holds an array of shape {vectors_ND.shape}; a vector for each row is (n, dim)"
        )
    row = 0
    for batch in table.batches:
        if batch.skipped or row + len(batch.texts) > len(vectors_ND):
            break
        for text in batch.texts:
            yield text, vectors_ND[row]
            row += 1
    else:
        if row == len(vectors_ND):
            return
    raise InputError(f"{vectors_file} has {len(vectors_ND):,} vectors, which are not one for each row with a text")


def _counted(pairs: Iterator[tuple[str, Any]], bar: Any) -> Iterator[tuple[str, Any]]:
    for pair in pairs:
        yield pair
        bar.update(1)


def _print(source: Path, model: str, embedder: Embedder, found: Drift, noted: str | None) -> None:
    click.echo(f"{printable_path(source)}: {plural(found.row_count, 'row')}, {found.dim} dimensions")
    click.echo(f"model: {model}, {embedder.dim} dimensions, {embedder.fingerprint}")
    if noted is not None:
        click.echo("fingerprint in the file: " + ("the same" if noted == embedder.fingerprint else printable(noted)))
    click.echo(
        f"cosine of {plural(found.sampled, 'sampled row')} with the model's own vectors: "
        f"mean {found.mean_cosine:.4f}, least {found.least_cosine:.4f}"
    )
    if found.is_none():
        click.echo("these are the model's vectors")
        return
    if found.dim != embedder.dim:
        click.echo(f"these are not the model's vectors: it makes {embedder.dim} dimensions")
    elif found.same:
        rows = ", ".join(f"{row:,}" for row in found.unlike[:_SHOWN_ROWS])
        more = ", ..." if len(found.unlike) > _SHOWN_ROWS else ""
        click.echo(
            f"{len(found.unlike):,} of {found.sampled:,} are not the model's own (rows {rows}{more}): their texts have "
            "changed, or they are of another model"
        )
    else:
        click.echo("these are not the model's vectors: another model, prompt or variant made them")
