"""Processes on one or several nodes: which of them works first, and files that must be on every node's disk.

Waiting here has no time limit that long work of another process could reach. NCCL's is ten minutes, and mining or
evaluation take longer. A process that dies ends the wait of the others at once, because its connections close.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import distributed as dist

from training.loss.gather import process_count

_CHUNK_BYTES = 2**26


class _File(NamedTuple):
    directory: int
    name: str
    """Relative to the directory."""
    size: int
    modified: int
    """In nanoseconds; kept in the copies, so that a shared disk and a copy from before are both recognised."""


def wait_for_all() -> None:
    """Returns when every process is here, however long it takes."""
    if process_count() > 1:
        dist.barrier(group=_patient_group())


@contextmanager
def first_on_each_node(accelerator: Accelerator) -> Iterator[None]:
    """One process of each node goes through the body before the others of its node, for caches on a node's own disk."""
    if not accelerator.is_local_main_process:
        wait_for_all()
    yield
    if accelerator.is_local_main_process:
        wait_for_all()


@contextmanager
def main_process_first(accelerator: Accelerator, *directories: Path) -> Iterator[None]:
    """The main process goes through the body before all others, which then have its `directories` on their disks.

    Copies are made only for nodes that do not share the main process's disk. There, files that the main process does
    not have are deleted from the directories.
    """
    if not accelerator.is_main_process:
        _share(directories, accelerator)
    yield
    if accelerator.is_main_process:
        _share(directories, accelerator)


def _share(directories: Sequence[Path], accelerator: Accelerator) -> None:
    if process_count() == 1:
        return
    own = _list_files(directories)
    told: list[Any] = [own]
    dist.broadcast_object_list(told, src=0, group=_patient_group())
    files: set[_File] = told[0]
    missing: list[Any] = [None] * process_count()
    dist.all_gather_object(missing, files - own, group=_patient_group())
    writes = accelerator.is_local_main_process
    if writes:
        names = {(file.directory, file.name) for file in files}
        for file in own:
            if (file.directory, file.name) not in names:
                (directories[file.directory] / file.name).unlink(missing_ok=True)
    for file in sorted(set().union(*missing)):
        path = directories[file.directory] / file.name
        _copy(file, path, accelerator.is_main_process, writes and file not in own)
    wait_for_all()


def _list_files(directories: Sequence[Path]) -> set[_File]:
    return {
        _File(number, path.relative_to(directory).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for number, directory in enumerate(directories)
        for path in directory.rglob("*")
        if path.is_file()
    }


def _copy(file: _File, path: Path, sends: bool, writes: bool) -> None:
    """The main process sends the file to all others, and those that `writes` say so write it."""
    source = path.open("rb") if sends else None
    partial = path.with_name(f".{path.name}.partial")
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"")
    for start in range(0, file.size, _CHUNK_BYTES):
        part = torch.empty(min(_CHUNK_BYTES, file.size - start), dtype=torch.uint8)
        if source:
            source.readinto(part.numpy().data)
        dist.broadcast(part, src=0, group=_patient_group())
        if writes:
            with partial.open("ab") as target:
                target.write(part.numpy().data)
    if source:
        source.close()
    if writes:
        os.utime(partial, ns=(file.modified, file.modified))
        partial.replace(path)


@cache  # one for the life of the process: every process makes it at its first wait
def _patient_group() -> Any:
    return dist.new_group(backend="gloo", timeout=timedelta(days=30))
