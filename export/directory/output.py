"""The output directory: room for it, and one message for whatever prevents it."""

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from export.external_data import exceeds_one_file
from gte_sdk.errors import GteError
from training.encoders.encoder import AnyEncoder


class ExportError(click.ClickException):
    """An error that the person exporting can fix. Nothing was written."""


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turns errors of the source or the disk into one message."""
    try:
        yield
    except GteError as error:
        overwrite = "; pass --overwrite to replace it" if error.remedy == "overwrite" else ""
        raise ExportError(f"{error}{overwrite}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(f"no space is left on the disk of {error.filename or 'the output'}; free some") from error
        raise ExportError(f"{type(error).__name__}: {error}") from error


def check_space(directory: Path, encoder: AnyEncoder, needs_one_file: Sequence[str]) -> None:
    """Raises ExportError if the disk has no room for the graphs, or an ONNX file none for the weights.

    The fp32 graph, what it is made of or its copy for calibration, and the int8 graph exist at the same time.
    needs_one_file: what was asked for that is not made of a graph with external data.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.parameters())
    if needs_one_file and exceeds_one_file(size):
        raise ExportError(
            f"the weights take {size / 1e9:.2f} GB, which is more than one ONNX file holds, and "
            f"{' and '.join(needs_one_file)} need one; fp32 and per-token int8 do not"
        )
    needed = int(3.5 * size)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ExportError(f"{free / 1e6:.0f} MB are free beside the output, but the export needs {needed / 1e6:.0f} MB")
