"""Checkpoints: a directory for each saved step, from which a killed run continues with the same losses.

`model/` is the encoder in a form that anyone can load. `state.pt` is the rest: exact weights, optimizer, mixture,
random states. A checkpoint is written beside its place and renamed, so the newest one is always whole. The two newest
are kept.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor

from training.encoders.encoder import AnyEncoder
from training.encoders.encoder_files import MODEL, write_encoder

KEPT = 2
CHECKPOINTS = "checkpoints"
_STATE = "state.pt"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StageState(TypedDict):
    """What a stage needs to continue in its middle."""

    mixture: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any]


class RunState(TypedDict):
    """What state.pt holds: tensors and plain values."""

    step: int
    """Of the whole run."""
    stage: str
    in_stage: StageState | None
    """None if the stage is finished."""
    metrics: dict[str, Any]
    """Of finished stages, by their names."""
    random: list[dict[str, Tensor]]
    """By process."""
    scaler: dict[str, Any] | None
    """Of the loss in fp16; a later stage starts with it too."""
    encoder: dict[str, Tensor]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read. The message names what is still good."""


def save_checkpoint(run: Path, encoder: AnyEncoder, tokenizer_directory: Path, state: RunState) -> Path:
    """Writes the checkpoint of `state["step"]` and deletes all but the KEPT newest.

    Raises CheckpointError if the disk is full or not writable; earlier checkpoints stay.
    """
    directory = _directory(run, state["step"])
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_encoder(encoder, tokenizer_directory, partial / MODEL)
        torch.save(state, partial / _STATE)
        for path in (path for path in partial.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"cannot write checkpoint {directory} ({error}); {_remedy(run)}") from error
    for old in _checkpoints(run)[:-KEPT]:
        shutil.rmtree(old)
    return directory


@contextmanager
def explain_full_disk(run: Path) -> Iterator[None]:
    """Turns a full disk, wherever in the run it shows, into a CheckpointError that names what is still good."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_ROOM:
            raise
        raise CheckpointError(f"cannot write to {run} ({error}); {_remedy(run)}") from error


def _remedy(run: Path) -> str:
    last = find_latest_checkpoint(run)
    good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return f"{good}: free space and run the same command to continue"


def find_latest_checkpoint(run: Path) -> Path | None:
    """The directory of the newest checkpoint, or None if there is none."""
    checkpoints = _checkpoints(run)
    return checkpoints[-1] if checkpoints else None


def load_state(checkpoint: Path) -> RunState:
    """The saved state, on the CPU. Only tensors and plain values are unpickled."""
    try:
        state: RunState = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"{checkpoint / _STATE} cannot be read ({error}); delete {checkpoint} to continue from the one before"
        ) from error
    return state


def _directory(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:08d}"


def _checkpoints(run: Path) -> list[Path]:
    states = (run / CHECKPOINTS).glob(f"step-*/{_STATE}")
    return sorted(path.parent for path in states if path.parent.suffix != ".partial")


def gather_random_states(accelerator: Accelerator) -> list[dict[str, Tensor]]:
    """The random state of every process, by rank. All processes must call it."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    if accelerator.num_processes == 1:
        return [state]
    states: list[dict[str, Tensor]] = [{} for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather_object(states, state)
    return states


def restore_random_state(states: list[dict[str, Tensor]], accelerator: Accelerator) -> None:
    """Sets this process's random state. Raises CheckpointError if the run had another number of processes."""
    if len(states) != accelerator.num_processes:
        raise CheckpointError(
            f"the run was started with {len(states)} processes, not {accelerator.num_processes}; use the same number, "
            "or the losses would differ"
        )
    state = states[accelerator.process_index]
    torch.set_rng_state(state["cpu"])
    if accelerator.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], accelerator.device)
