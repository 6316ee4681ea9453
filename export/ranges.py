"""Measures the range of int8 and uint8 vectors (gte_sdk/embedding/vector_types.py) on the bundled texts.

The calibration texts alone are not enough, because they are prose: their range clips gte-mini's vector of an empty text
to a cosine of .984. export/to_onnx.py records ranges itself. For a directory from before there were any:

    python -m export.ranges DIRECTORY
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the checkout last: its gte_sdk has no extension where the wheel is what is installed
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parents[1]))

import click
import numpy as np
from numpy.typing import NDArray

from export.directory.layout import update_gte_json
from export.parity.measure import CALIBRATION_TEXTS, PARITY_TEXTS, read_corpus
from gte_sdk import Embedder
from gte_sdk.runtime.engine import cut_rows


def write_ranges(directory: Path) -> None:
    """Embeds the texts as a user of the directory would, and records the limits in gte.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that fp16 is slow on a CPU
        embedder = Embedder(directory, device="cpu", truncation="ignore")
    vectors_ND = embedder.embed([*read_corpus(CALIBRATION_TEXTS), *read_corpus(PARITY_TEXTS)])
    limits = measure_limits([cut_rows(vectors_ND, dim) for dim in embedder.dims])
    update_gte_json(directory, {"int8_limits": limits})


def measure_limits(cut_vectors: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """The field int8_limits of gte.json: for vectors (n, dim) of each dimension, their largest magnitude."""
    return {str(vectors_ND.shape[1]): float(np.abs(vectors_ND).max()) for vectors_ND in cut_vectors}


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Measures the range of int8 vectors of the model in DIRECTORY and records it in gte.json."""
    write_ranges(directory)


if __name__ == "__main__":
    main()
