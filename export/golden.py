"""Writes the golden vectors of a model directory: those that each of its graphs gives for eight texts.

A user's machine that computes other vectors is found when it opens the model (gte_sdk/runtime/golden.py).
export/to_onnx.py writes golden vectors itself. For a directory from before there were any:

    python -m export.golden DIRECTORY
"""

import sys
import warnings
from pathlib import Path

if __name__ == "__main__":  # the checkout last: its gte_sdk has no extension where the wheel is what is installed
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parents[1]))

import click
import onnxruntime

from export.directory.layout import update_gte_json, write_json
from gte_sdk import Embedder
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import GOLDEN_JSON, available_variants, read_model_dir, variant_files
from gte_sdk.runtime.golden import Golden, GoldenVectors, golden_fields
from gte_sdk.runtime.int8.calibrate import bundled_texts
from gte_sdk.runtime.native.engine import ARITHMETIC


def write_golden(directory: Path) -> None:
    """Embeds the texts with every graph of a model directory, writes golden.json and records it in gte.json.

    Raises ModelFormatError for a directory without gte.json.
    """
    directory = directory.absolute()  # as an Embedder reports it
    description = read_model_dir(directory)
    if not description.files:
        raise ModelFormatError(f"{directory} has no gte.json; export the checkpoint with: python export/to_onnx.py")
    update_gte_json(directory, forget=[GOLDEN_JSON])  # the old ones must not judge what makes the new ones
    texts = bundled_texts("golden")
    vectors = {
        variant: _embed_texts(directory, variant, variant_files(description, variant), texts)
        for variant in available_variants(description)
    }
    write_json(directory / GOLDEN_JSON, golden_fields(Golden(texts, vectors)))
    update_gte_json(directory, record=[GOLDEN_JSON])


def _embed_texts(directory: Path, variant: str, files: list[str], texts: list[str]) -> GoldenVectors:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that fp16 is slow on a CPU
        for engine in ("auto", "onnxruntime"):  # "auto" may quantize fp32 instead of reading onnxruntime's int8
            embedder = Embedder(directory, variant=variant, engine=engine, device="cpu", truncation="ignore")
            if embedder.report().graph in [directory / file for file in files]:
                break
    made_by = ARITHMETIC if embedder.engine == "native" else f"onnxruntime {onnxruntime.__version__}"
    return GoldenVectors(made_by, embedder.encode(texts, prompt=""))  # as the check at opening


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Writes golden.json for the graphs in DIRECTORY and records it in gte.json."""
    write_golden(directory)


if __name__ == "__main__":
    main()
