"""The range of int8 and uint8 vectors (gte_sdk/embedding/vector_types.py), measured on the bundled texts.

The texts of calibration alone are prose: on their range an empty text of gte-mini is clipped to a cosine of .984.

export/to_onnx.py writes it by itself. For a directory that was exported before there was any:

    python -m export.ranges DIRECTORY
"""

import warnings
from pathlib import Path

import click

from export.directory.layout import write_json
from export.parity.measure import CALIBRATION_TEXTS, PARITY_TEXTS, read_texts
from gte_sdk import Embedder
from gte_sdk.embedding.vector_types import measure_limits
from gte_sdk.model_files.directory import GTE_JSON, read_json
from gte_sdk.runtime.opening import cut_rows


def write_ranges(directory: Path) -> None:
    """Embeds the texts as the directory's user would, and records the limits in gte.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fp16 is slow on the CPU that exports
        embedder = Embedder(directory, device="cpu", truncation="ignore")
    vectors_ND = embedder.embed([*read_texts(CALIBRATION_TEXTS), *read_texts(PARITY_TEXTS)])
    fields = read_json(directory / GTE_JSON)
    fields["int8_limits"] = measure_limits([cut_rows(vectors_ND, dim) for dim in embedder.dims])
    write_json(directory / GTE_JSON, fields)


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Measures the range of int8 vectors of the model in DIRECTORY, and records it in gte.json."""
    write_ranges(directory)


if __name__ == "__main__":
    main()
