"""What training changed of a checkpoint, in float16: at most half the bytes, beside the start that everybody has.

    python -m training.encoders.changes write RUN/model START --output changes.safetensors
    python -m training.encoders.changes restore changes.safetensors START --output DIR

START is the checkpoint that the run began with; weights that stayed as they were, such as frozen token embeddings, are
not written. What is restored differs from the model by the rounding to float16: export what was restored, so that the
export can be made again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gte_sdk.atomic_file import replace_whole
from training.encoders.encoder import AnyEncoder
from training.encoders.encoder_files import load_encoder, resolve_directory, write_encoder


class ChangesError(ValueError):
    """A file of changes that is damaged, or belongs to another start. The message names it."""


def write_changes(encoder: AnyEncoder, start: AnyEncoder, path: Path) -> list[str]:
    """Writes the parameters of `encoder` that differ from those of `start`; returns their names.

    Raises ChangesError if the encoders have other parameters, or if one has no float16.
    """
    before = dict(start.named_parameters())
    after = dict(encoder.named_parameters())
    if wrong := sorted({name for name in {**before, **after} if _shape(before, name) != _shape(after, name)}):
        raise ChangesError(f"{wrong[0]} is of another shape, or missing, in the start; name the one of the run")
    changed = {
        name: weight.detach().half().contiguous() for name, weight in after.items() if not weight.equal(before[name])
    }
    if wrong := [name for name, weight in changed.items() if not weight.isfinite().all()]:
        raise ChangesError(f"{wrong[0]} has a number that is too large for float16, or none")
    settings = {"max_tokens": encoder.max_tokens, "matryoshka_dims": list(encoder.matryoshka_dims)}
    with replace_whole(path) as file:
        file.write(save(changed, {"settings": json.dumps(settings)}))
    return list(changed)


def restore(path: Path, start: AnyEncoder) -> AnyEncoder:
    """`start` with the parameters of the file. Raises ChangesError for a damaged file or another start."""
    parameters = dict(start.named_parameters())
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()["settings"])
            changed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        start.max_tokens, start.matryoshka_dims = int(settings["max_tokens"]), tuple(settings["matryoshka_dims"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ChangesError(f"{path} is no file of changes, or damaged: {error}") from error
    if wrong := [name for name in changed if _shape(parameters, name) != changed[name].shape]:
        raise ChangesError(f"{path} has {wrong[0]}, which the start does not have, or of another shape")
    with torch.no_grad():
        for name, weight in changed.items():
            parameters[name].copy_(weight)
    return start


def _shape(parameters: dict[str, torch.nn.Parameter], name: str) -> torch.Size | None:
    return parameters[name].shape if name in parameters else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.encoders.changes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("write", "restore"))
    parser.add_argument("model", help="write: the trained checkpoint; restore: the file of changes")
    parser.add_argument("start", help="the checkpoint that the run began with, a directory or Hub name")
    parser.add_argument("--output", type=Path, required=True, help="write: the file; restore: the directory")
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists; choose another --output")
    start = load_encoder(options.start)
    try:
        if options.action == "write":
            names = write_changes(load_encoder(options.model), start, options.output)
            print(f"{options.output}: {len(names)} weights, {options.output.stat().st_size / 1e6:.1f} MB")
        else:
            write_encoder(restore(Path(options.model), start), resolve_directory(options.start), options.output)
    except ChangesError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
