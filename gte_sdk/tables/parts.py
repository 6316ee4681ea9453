"""Embeds a Parquet table in parts, by workers that may die: which parts there are, writing one, moving all into place.

A part is a range of rows of one input file, which determines its name. It has the same bytes whichever worker writes
it, and appears whole or not at all. So a part that exists is done, and there is no log to replay. A manifest records
the input and the model; a run with another input or model is refused. The parts are in OUTPUT.unfinished/parts until
all of them exist. Then that folder becomes OUTPUT.
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gte_sdk.atomic_file import leftovers, replace_whole
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import TextKind, embed_batch
from gte_sdk.embedding.vector_types import row_type
from gte_sdk.errors import InputError
from gte_sdk.model_files.directory import sha256_of_file
from gte_sdk.tables.parquet_texts import import_parquet, read_parquet_texts
from gte_sdk.tables.text_batches import BATCH_ROWS, TableOptions
from gte_sdk.tables.unfinished import check_choice, check_same_run, unfinished_path
from gte_sdk.tables.vector_files import ROW_GROUP_ROWS, open_writer

FORMAT = "gte-embed-parts 1"
MANIFEST_NAME = "manifest.json"
# What a dead worker loses. One row group, so that the parts have the row groups that one file would have.
PART_ROWS = ROW_GROUP_ROWS
assert PART_ROWS % BATCH_ROWS == 0
# A part that ends every worker it is given to must end the run some time; schedulers try for ever.
MAX_DEATHS = 5


class Source(NamedTuple):
    path: str
    size: int
    """Bytes."""
    modified_ns: int
    sha256: str
    row_count: int


class Part(NamedTuple):
    number: int
    """From 0, over all sources."""
    source: Source
    first_row: int
    """From 0, in the source."""
    row_count: int

    @property
    def name(self) -> str:
        """Sorted by name, parts are in the order of the rows."""
        return f"part-{self.number:06d}.parquet"


class PartsWork(NamedTuple):
    """The settings of a run that determine the bytes of its parts."""

    column: str
    vector_column: str
    kind: TextKind
    model: str
    fingerprint: str
    variant: str
    device: str
    dim: int
    prompt: str
    """What stands before each text."""
    max_tokens: int


def read_sources(path: Path, column: str | None) -> tuple[str, list[Source]]:
    """Returns the column of the texts and the Parquet files at `path`: the file, or those in the folder, by name.

    Reads each file once for its SHA-256. Raises InputError if there is none, or if their columns differ.
    """
    _, parquet = import_parquet()
    files = _parquet_files(path) if path.is_dir() else [path]
    sources = []
    first_schema = None
    chosen = ""
    for file_path in files:
        status = file_path.stat()
        with file_path.open("rb") as file:
            table = read_parquet_texts(file, str(file_path), TableOptions(column))
            schema = parquet.read_schema(file_path)
            if first_schema is None:
                first_schema, chosen = schema, table.column
            elif not schema.equals(first_schema):
                raise InputError(f"{file_path} has other columns or types than {files[0]}; embed them one by one")
        digest, row_count = sha256_of_file(file_path), table.row_count or 0
        sources.append(Source(str(file_path.resolve()), status.st_size, status.st_mtime_ns, digest, row_count))
    return chosen, sources


def cut_parts(sources: Sequence[Source]) -> list[Part]:
    """Cuts files into parts: at least one, so that an input without rows gives an output with its columns."""
    parts: list[Part] = []
    for source in sources:
        for first_row in range(0, source.row_count, PART_ROWS):
            parts.append(Part(len(parts), source, first_row, min(PART_ROWS, source.row_count - first_row)))
    return parts or [Part(0, sources[0], 0, 0)]


def open_unfinished(output: Path, work: PartsWork, sources: Sequence[Source], *, resume: bool, overwrite: bool) -> Path:
    """Returns the folder of the parts: a new one, or with `resume` that of an earlier run with the same work."""
    unfinished = unfinished_path(output)
    manifest = {
        "format": FORMAT, **work._asdict(), "part_rows": PART_ROWS,
        "sources": [[Path(source.path).name, source.row_count, source.sha256] for source in sources],
    }  # fmt: skip
    if unfinished.exists():
        check_choice(unfinished, resume=resume, overwrite=overwrite)
        found = _read_manifest(unfinished)
        if resume:
            check_same_run(unfinished, found, manifest)
        else:
            check_same_run(unfinished, found, {"format": FORMAT})
            shutil.rmtree(unfinished)
    folder = unfinished / "parts"
    if not unfinished.exists():
        unfinished.mkdir()
        with replace_whole(unfinished / MANIFEST_NAME, overwrite=False) as file:
            file.write(json.dumps(manifest, indent=1).encode())
    folder.mkdir(exist_ok=True)
    return folder


def is_done(folder: Path, part: Part) -> bool:
    """Returns whether the part exists with all its rows. A damaged part counts as missing."""
    pyarrow, parquet = import_parquet()
    with contextlib.suppress(pyarrow.ArrowException, OSError):
        row_count: int = parquet.read_metadata(folder / part.name).num_rows
        return row_count == part.row_count
    return False


def write_part(folder: Path, part: Part, work: PartsWork, embedder: Embedder) -> bool:
    """Embeds the rows of a part and writes its file. Returns whether a text was longer than the model reads.

    Raises InputError if the input has changed since the run began, a row has no text, or MAX_DEATHS workers have died
    while they wrote the part.
    """
    source = Path(part.source.path)
    if (deaths := len(leftovers(folder / part.name))) >= MAX_DEATHS:
        place = f"{source}, rows {part.first_row + 1} to {part.first_row + part.row_count}"
        raise InputError(f"{place}: {deaths} workers died of them; give workers more memory, or look at the texts")
    status = source.stat()
    if (status.st_size, status.st_mtime_ns) != (part.source.size, part.source.modified_ns):
        raise InputError(f"{source} changed while it was being embedded", remedy="other rows")
    metadata = {
        "gte_sdk.model": work.model, "gte_sdk.fingerprint": work.fingerprint, "gte_sdk.kind": work.kind,
        "gte_sdk.dtype": "float32",
    }  # fmt: skip
    rows = range(part.first_row, part.first_row + part.row_count)
    was_cut = False
    with (
        source.open("rb") as source_file,
        replace_whole(folder / part.name, keep_leftovers=True) as file,
        open_writer(file, "parquet", row_type("float32", work.dim), work.vector_column, metadata) as write,
    ):
        for batch in read_parquet_texts(source_file, str(source), TableOptions(work.column), rows).batches:
            embedded = embed_batch(embedder, batch.texts, work.kind)
            was_cut |= embedded.was_cut
            write(batch, embedded.vectors)
    return was_cut


def check_output_folder(output: Path, overwrite: bool) -> None:
    """Raises InputError if `output` cannot become the folder, especially if it contains files of other programs."""
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; create it first")
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists", remedy="overwrite")
    strange = [path.name for path in output.iterdir() if not path.match("part-*.parquet")] if output.is_dir() else []
    if strange:
        raise InputError(f"{output} holds {strange[0]!r} too, which no gte embed wrote; name another folder")


def put_in_place(folder: Path, output: Path, parts: Sequence[Part], overwrite: bool) -> None:
    """Moves the folder of the parts to `output`. Raises InputError for a part that is missing or incomplete."""
    remove_leftovers(folder, parts)
    if missing := [part.name for part in parts if not is_done(folder, part)]:
        raise InputError(f"{folder / missing[0]} is missing or incomplete", remedy="resume")
    if strange := {path.name for path in folder.iterdir()} - {part.name for part in parts}:
        raise InputError(f"{folder / min(strange)} is no part of this run; remove it", remedy="resume")
    check_output_folder(output, overwrite)
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)
    folder.rename(output)
    shutil.rmtree(folder.parent)


def remove_leftovers(folder: Path, parts: Sequence[Part]) -> None:
    """Removes the temporary files of workers that were killed."""
    for part in parts:
        for path in leftovers(folder / part.name):
            path.unlink(missing_ok=True)


def _parquet_files(folder: Path) -> list[Path]:
    # Readers of Parquet folders agree that such names are not data.
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    if folders := [path for path in paths if path.is_dir()]:
        raise InputError(
            f"{folder} holds the folder {folders[0].name!r}; embed a file or a folder of Parquet files (the columns "
            "that names such as year=2024 stand for are in no file)"
        )
    files = [path for path in paths if path.suffix.lower() in (".parquet", ".pq")]
    if len(files) < len(paths) or not files:
        strange = next((path.name for path in paths if path not in files), None)
        raise InputError(f"{folder} holds {'no Parquet file' if strange is None else repr(strange)}; expected .parquet")
    return files


def _read_manifest(unfinished: Path) -> Any:
    try:
        return json.loads((unfinished / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
