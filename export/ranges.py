"""The range of int8 and uint8 vectors (gte_sdk/embedding/vector_types.py), measured on the bundled texts.

The texts of calibration alone are prose: on their range an empty text of gte-mini is clipped to a cosine of .984.

export/to_onnx.py writes it by itself. For a directory that was exported before there was any:

    python -m export.ranges DIRECTORY
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from export.directory.layout import update_gte_json
from export.parity.measure import CALIBRATION_TEXTS, PARITY_TEXTS, read_corpus
from gte_sdk import Embedder
from gte_sdk.runtime.engine import cut_rows


def write_ranges(directory: Path) -> None:
    """Embeds the texts as the directory's user would, and records the limits in gte.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fp16 is slow on the CPU that exports
        embedder = Embedder(directory, device="cpu", truncation="ignore")
    vectors_ND = embedder.embed([*read_corpus(CALIBRATION_TEXTS), *read_corpus(PARITY_TEXTS)])
    limits = measure_limits([cut_rows(vectors_ND, dim) for dim in embedder.dims])
    update_gte_json(directory, {"int8_limits": limits})


def measure_limits(cut_vectors: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """What gte.json records for vectors (n, dim) of each width: the largest magnitude of a value among them."""
    return {str(vectors_ND.shape[1]): float(np.abs(vectors_ND).max()) for vectors_ND in cut_vectors}


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Measures the range of int8 vectors of the model in DIRECTORY, and records it in gte.json."""
    write_ranges(directory)


if __name__ == "__main__":
    main()
