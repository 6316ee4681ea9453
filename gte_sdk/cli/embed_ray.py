"""`gte embed --on ray`: the parts of a Parquet table on the workers of a Ray cluster, or of this machine.

Ray Data schedules the parts, restarts workers that die, and gives their parts to others. A part that is written twice
is the same file (gte_sdk.tables.parts). Only receipts travel through Ray. Workers read and write the files themselves,
so input and output must have the same path on every machine, on a shared file system.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from gte_sdk.cli.remedies import message_with_flag
from gte_sdk.cli.terminal import kept_before, plural, say_kept, terminal_bar
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import TextKind
from gte_sdk.errors import GteError, InputError
from gte_sdk.model_files.locate import storable_name
from gte_sdk.model_files.published import ModelFacts
from gte_sdk.tables.parts import (
    Part,
    PartsWork,
    check_output_folder,
    cut_parts,
    is_done,
    open_unfinished,
    put_in_place,
    read_sources,
    remove_leftovers,
    write_part,
)
from gte_sdk.threads import available_threads

# Receipts are small; Ray would take 30 % of the memory.
OBJECT_STORE_BYTES = 128 * 2**20
# Ray gives itself 30 s, which a busy machine may need for reading its files alone; the next attempt finds them read.
START_ATTEMPTS = 4


class RayOptions(NamedTuple):
    model: str
    device: str
    """"cpu", or "cuda": a GPU for each worker."""
    threads: int
    """The threads of each worker; as many CPUs are reserved for it."""
    workers: int | None
    """None: as many as the cluster has room for."""
    facts: ModelFacts = ModelFacts()
    """What the command's options say of the model."""


def embed_on_ray(
    source: Path,
    column: str | None,
    output: Path,
    kind: TextKind,
    vector_column: str,
    options: RayOptions,
    *,
    overwrite: bool,
    resume: bool,
    quiet: bool,
) -> None:
    """Embeds a Parquet file, or a folder of them, into a folder of Parquet files, and prints a summary."""
    check_output_folder(output, overwrite)
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise InputError(f"{output} holds INPUT, which would be lost; name another folder")
    started = time.perf_counter()
    options = options._replace(model=storable_name(options.model))
    chosen_column, sources = read_sources(source, column)
    parts = cut_parts(sources)
    with _connected_ray() as ray:
        workers = _worker_count(ray, options)
        described = _describe_model(ray, options, kind)
        work = PartsWork(chosen_column, vector_column, kind, options.model, **described)
        folder = open_unfinished(output.absolute(), work, sources, resume=resume, overwrite=overwrite)
        remove_leftovers(folder, parts)
        missing = [part for part in parts if not is_done(folder, part)]
        row_count = sum(part.row_count for part in parts)
        missing_rows = sum(part.row_count for part in missing)
        try:
            with terminal_bar("embedding", row_count, "texts", quiet) as bar:
                bar.update(row_count - missing_rows)
                _write_parts(ray, folder, missing, work, options, workers, bar, quiet)
            put_in_place(folder, output, parts, overwrite)
        finally:
            if folder.exists() and not quiet:
                say_kept(sum(part.row_count for part in parts if is_done(folder, part)), folder.parent)
    if not quiet:
        seconds = time.perf_counter() - started
        texts = f"{plural(row_count, 'text')} in {plural(len(parts), 'file')}{kept_before(row_count - missing_rows)}"
        click.echo(f"gte: {texts}, {work.dim} dimensions, {plural(workers, 'worker')}, {seconds:.1f} s", err=True)


class PartWriter:
    """What a Ray worker runs: one model, and one part after another. Errors of the input are returned as values."""

    def __init__(self, folder: Path, parts: Sequence[Part], work: PartsWork, options: RayOptions) -> None:
        self._folder = folder
        self._parts = parts
        self._work = work
        self._embedder = _open(options, work.device, work.variant)

    def __call__(self, row: dict[str, int]) -> dict[str, Any]:
        """Writes the part at that place in `parts` and returns its receipt."""
        part = self._parts[row["place"]]
        was_cut, error = False, ""
        try:
            if self._embedder.fingerprint != self._work.fingerprint:
                raise InputError(
                    f"{socket.gethostname()} has another model under {self._work.model!r}: fingerprint "
                    f"{self._embedder.fingerprint}, expected {self._work.fingerprint}; give every machine the same"
                )
            was_cut = write_part(self._folder, part, self._work, self._embedder)
        except (GteError, OSError) as reason:
            error = message_with_flag(reason) if isinstance(reason, GteError) else str(reason)
        return {"name": part.name, "row_count": part.row_count, "was_cut": was_cut, "error": error}


def describe_model(options: RayOptions, kind: TextKind) -> dict[str, Any]:
    """Returns the fields of PartsWork about the model, as a worker opens it, or {"error": reason}."""
    try:
        embedder = _open(options, options.device, "auto")
    except (GteError, OSError) as error:
        return {"error": str(error)}
    return {
        "fingerprint": embedder.fingerprint, "variant": embedder.variant, "device": embedder.device,
        "dim": embedder.dim, "prompt": embedder.prompt_for(kind), "max_tokens": embedder.max_tokens,
    }  # fmt: skip


def _open(options: RayOptions, device: str, variant: str) -> Embedder:
    facts = options.facts
    return Embedder(
        options.model, device=device, threads=options.threads, variant=variant, max_tokens=facts.max_tokens,
        pooling=facts.pooling, prompts=facts.prompts,
    )  # fmt: skip


def _write_parts(
    ray: Any, folder: Path, parts: Sequence[Part], work: PartsWork, options: RayOptions, workers: int, bar: Any,
    quiet: bool,
) -> None:  # fmt: skip
    """Runs all parts and waits for them. Raises InputError for the first that fails."""
    if not parts:
        return
    # One block a part: what Ray gives a worker at a time, and does again when the worker dies.
    places = ray.data.from_items([{"place": place} for place in range(len(parts))], override_num_blocks=len(parts))
    receipts = places.map(
        PartWriter,
        fn_constructor_kwargs={"folder": folder, "parts": parts, "work": work, "options": options},
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        **_resources(options),
    )
    cut_was_said = quiet
    try:
        for receipt in receipts.iter_rows():
            if receipt["error"]:
                raise InputError(receipt["error"])
            if receipt["was_cut"] and not cut_was_said:
                cut_was_said = True
                name = receipt["name"]
                click.echo(
                    f"gte: texts longer than the model reads were cut, the first of them seen in {name}", err=True
                )
            bar.update(receipt["row_count"])
    except ray.exceptions.RayError as error:
        raise GteError(f"Ray gave up: {_last_line(error)}; finished parts are kept") from error


def _describe_model(ray: Any, options: RayOptions, kind: TextKind) -> dict[str, Any]:
    described: dict[str, Any] = ray.get(ray.remote(**_resources(options))(describe_model).remote(options, kind))
    if "error" in described:
        raise InputError(f"a worker cannot open the model: {described['error']}")
    return described


def _resources(options: RayOptions) -> dict[str, Any]:
    """Returns what Ray reserves for a worker. Ray sets OMP_NUM_THREADS and the visible GPUs accordingly."""
    return {"num_cpus": options.threads, "num_gpus": 1 if options.device == "cuda" else 0}


def _worker_count(ray: Any, options: RayOptions) -> int:
    """Returns the number of workers. Raises InputError if none could start: Ray would wait forever."""
    cluster = ray.cluster_resources()
    cpus, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    room = min(cpus // options.threads, gpus) if options.device == "cuda" else cpus // options.threads
    if room == 0:
        raise InputError(
            f"the Ray cluster has {plural(cpus, 'CPU')} and {plural(gpus, 'GPU')}; a worker needs "
            f"{options.threads} and {_resources(options)['num_gpus']} of them (--threads, --device)"
        )
    return options.workers or room


@contextlib.contextmanager
def _connected_ray() -> Iterator[Any]:
    """Yields the module ray, connected to the cluster at RAY_ADDRESS, or to a new one that ends with the block."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("--on ray needs Ray: pip install 'ray[data]'") from error
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    handler = signal.getsignal(signal.SIGTERM)
    own_cluster = {
        "address": "local", "num_cpus": available_threads(), "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }  # fmt: skip
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                **({} if "RAY_ADDRESS" in os.environ else own_cluster), logging_level=logging.ERROR, log_to_driver=False
            )
            break
        except Exception as error:  # Ray raises a plain Exception where a part of it does not start in time
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise GteError(f"Ray did not start: {error}") from error
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)  # Ray takes it; ours cleans up
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 2**20  # or Ray takes receipts for large, and holds workers back to save memory
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints what happened to its workers
            yield ray
    finally:
        ray.shutdown()


def _last_line(error: Exception) -> str:
    return next(line for line in reversed(str(error).splitlines()) if line.strip()).strip()
