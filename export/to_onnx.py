"""One command from a checkpoint to a model directory: graph, quantization, parity, card.

    python export/to_onnx.py thenlper/gte-small --output models/gte-small

Everything is written into a hidden folder beside the output and renamed at the end, so that the output is there whole
or not at all. A graph that misses its parity threshold is refused.
"""

import errno
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if (
    __name__ == "__main__"
):  # run as a script: `export` and `training` are packages of the checkout, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
from click.core import ParameterSource
from safetensors import SafetensorError

from export import parity
from export.card import Origin, Shape, model_card, summary_table
from export.graph import OPSET, check_architecture, write_graph
from export.half import to_half
from export.layout import guess_licence, hash_weights, public_source, size_of, write_json, write_layout
from export.parity import CALIBRATION_TEXTS, PARITY_TEXTS, Thresholds
from export.quantize import quantize
from gte_sdk.errors import GteError
from gte_sdk.model_dir import (
    CARD,
    GRAPH_FILES,
    PARITY_JSON,
    TOKENIZER_JSON,
    fingerprint_of_weights,
    sha256_of_file,
    write_gte_json,
)
from gte_sdk.tokens import load_tokenizer
from training.encoder import AnyEncoder, StaticEncoder, load_encoder
from training.encoder_files import resolve_directory

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_BATCH_TOKENS = 2048
_DEFAULTS = Thresholds()


class ExportError(click.ClickException):
    """Something that the person exporting can put right; nothing was written."""


@click.command(context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]})
@click.argument("source")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The model directory to write.")
@click.option("--precision", default="fp32,int8", show_default=True, help="Graphs to keep: any of fp32,fp16,int8.")
@click.option("--no-quantize", is_flag=True, help="The same as --precision fp32.")
@click.option("--overwrite", is_flag=True, help="Replace the output where it exists; it is kept otherwise.")
@click.option("--name", help="The model's name in its card and in gte.json.  [default: the output's last part]")
@click.option("--license", "licence", help="SPDX expression.  [default: what the source's card says]")
@click.option("--source-name", help="How card and gte.json name the source, where that is a local directory.")
@click.option("--note", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Markdown for the card.")
@click.option("--max-tokens", type=click.IntRange(min=8), help="Read at most this many tokens of a text.")
@click.option("--opset", type=click.IntRange(min=18), default=OPSET, show_default=True, help="ONNX operator set.")
@click.option("--minimum-mean-cosine", type=float, default=_DEFAULTS.mean_cosine, show_default=True)
@click.option("--minimum-cosine", type=float, default=_DEFAULTS.minimum_cosine, show_default=True)
@click.option("--minimum-recall", type=float, default=_DEFAULTS.recall, show_default=True)
def main(
    source: str,
    output: Path,
    precision: str,
    no_quantize: bool,
    overwrite: bool,
    name: str | None,
    licence: str | None,
    source_name: str | None,
    note: Path | None,
    max_tokens: int | None,
    opset: int,
    minimum_mean_cosine: float,
    minimum_cosine: float,
    minimum_recall: float,
) -> None:
    """Turns a checkpoint into a model directory that gte-sdk, sentence-transformers, fastembed, optimum and
    transformers.js load: ONNX graphs with pooling and unit length inside, tokenizer, card, hashes, and a report
    (parity.json) of how close each graph is to PyTorch.

    SOURCE is a training checkpoint, a Hugging Face or sentence-transformers directory with safetensors weights, or a
    Hub name such as thenlper/gte-small.

    The three --minimum options say when a graph is refused: the cosine of its vectors to the fp32 ones, over 500
    bundled texts, and how many of a text's ten nearest texts stay the same. fp32 has to equal PyTorch to 1e-5.
    """
    kept = _parse_precisions("fp32" if no_quantize else precision)
    output = output.expanduser()
    name = name or output.resolve().name
    thresholds = Thresholds(mean_cosine=minimum_mean_cosine, minimum_cosine=minimum_cosine, recall=minimum_recall)
    with _one_line_errors(), _whole_or_nothing(output, overwrite) as directory:
        _hide_progress_bars()
        progress = _Progress(steps=4 + len(set(kept) - {"fp32"}))
        progress.step(f"reading {source}")
        source_directory = resolve_directory(source)
        encoder = _load(source_directory, max_tokens)
        tokenizer = load_tokenizer(source_directory / TOKENIZER_JSON)
        _check_space(directory, encoder)
        write_layout(encoder, source_directory, directory)

        # fp32 is what the others are made from and compared with, also where it is not kept.
        graphs = {precision: directory / GRAPH_FILES[precision][0] for precision in dict.fromkeys(["fp32", *kept])}
        graphs["fp32"].parent.mkdir()
        progress.step("tracing the fp32 graph")
        write_graph(encoder, graphs["fp32"], opset)
        if "fp16" in kept:
            progress.step("converting to fp16")
            to_half(graphs["fp32"], graphs["fp16"])
        if "int8" in kept:
            progress.step("calibrating and quantizing to int8")
            calibration = parity.tokenize_corpus(tokenizer, parity.read_texts(CALIBRATION_TEXTS), encoder.max_tokens)
            quantize(
                graphs["fp32"],
                graphs["int8"],
                [batch for _, batch in parity.token_batches(calibration, CALIBRATION_BATCH_TOKENS)],
            )

        progress.step("measuring parity")
        corpus = parity.tokenize_corpus(tokenizer, parity.read_texts(PARITY_TEXTS), encoder.max_tokens)
        report = parity.measure(encoder, graphs, corpus)
        if problems := parity.refusals(report, thresholds):
            raise ExportError("refused, nothing was written: " + "; ".join(problems))

        progress.step("writing card, parity.json and gte.json")
        origin = Origin(
            source=public_source(source, source_name),
            licence=licence or guess_licence(source_directory),
            command=_command(),
            note=note.read_text(encoding="utf-8") if note else "",
        )
        for unwanted in set(graphs) - set(kept):
            graphs[unwanted].unlink()
        shape = _shape(name, encoder)
        files = {precision: GRAPH_FILES[precision][0] for precision in kept}
        write_json(directory / PARITY_JSON, report)
        (directory / CARD).write_text(model_card(shape, origin, report, files), encoding="utf-8")
        weights_hash = hash_weights(encoder)
        write_gte_json(
            directory,
            name=name,
            dim=encoder.dim,
            max_tokens=encoder.max_tokens,
            pooling=encoder.pooling,
            prompts=encoder.prompts,
            fingerprint=fingerprint_of_weights(
                weights_hash, sha256_of_file(directory / TOKENIZER_JSON), encoder.pooling
            ),
            licence=origin.licence,
            provenance={
                "source": origin.source,
                "weights_sha256": weights_hash,
                "command": origin.command,
                "versions": report["versions"],
            },
        )
    click.echo(summary_table(report, files))
    click.echo(f"{output}: {size_of(output) / 1e6:.1f} MB")


def _hide_progress_bars() -> None:
    """transformers draws a bar for every file that it reads or writes, between our own steps."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class _Progress:
    """Numbered steps with the time each began."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.start = time.monotonic()

    def step(self, what: str) -> None:
        self.done += 1
        click.echo(f"[{self.done}/{self.steps}] {time.monotonic() - self.start:5.1f} s  {what}", err=True)


def _parse_precisions(text: str) -> list[str]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in PRECISIONS]
    if unknown or not wanted:
        raise click.BadParameter(f"{text!r}; give one or more of {', '.join(PRECISIONS)}", param_hint="--precision")
    return [precision for precision in PRECISIONS if precision in wanted]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turns what can go wrong with a given source or disk into one message."""
    try:
        yield
    except GteError as error:
        raise ExportError(str(error)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(f"no space is left on the disk of {error.filename or 'the output'}: free some") from error
        raise ExportError(f"{type(error).__name__}: {error}") from error


def _load(directory: Path, max_tokens: int | None) -> AnyEncoder:
    """The encoder of a supported architecture; what its readers say of a damaged one is one message."""
    check_architecture(directory)
    try:
        encoder = load_encoder(directory, max_tokens)
    except GteError:
        raise
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ExportError(f"{directory} could not be read: {type(error).__name__}: {error}") from error
    return encoder


@contextmanager
def _whole_or_nothing(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end, and is removed when anything fails."""
    if output.exists() and not overwrite:
        raise ExportError(f"{output} exists and is kept; pass --overwrite to replace it")
    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file; give a directory")
    output.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        built, replaced = workplace / "new", workplace / "old"
        built.mkdir()
        yield built
        if output.exists():
            output.rename(replaced)
        built.rename(output)
    finally:
        shutil.rmtree(workplace)


def _check_space(directory: Path, encoder: AnyEncoder) -> None:
    """The fp32 graph, the observed copy of it while calibrating, the levelled copy and the int8 graph live together."""
    needed = int(3.5 * sum(tensor.numel() * tensor.element_size() for tensor in encoder.parameters()))
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ExportError(f"{free / 1e6:.0f} MB are free beside the output, and the export needs {needed / 1e6:.0f} MB")


def _shape(name: str, encoder: AnyEncoder) -> Shape:
    config: Any = None if isinstance(encoder, StaticEncoder) else encoder.backbone.config
    return Shape(
        name=name,
        architecture=config.model_type if config else "static token table",
        layers=config.num_hidden_layers if config else 0,
        dim=encoder.dim,
        max_tokens=encoder.max_tokens,
        pooling=encoder.pooling,
        prompts=encoder.prompts,
    )


def _command() -> str:
    """This command line with SOURCE where a directory of this machine stands, and of absolute paths the last part."""
    context = click.get_current_context()
    words = ["python", "export/to_onnx.py"]
    for parameter in context.command.params:
        if context.get_parameter_source(parameter.name or "") is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[parameter.name or ""]
        if parameter.param_type_name == "argument":
            words.append("SOURCE" if Path(value).expanduser().exists() else value)
            continue
        words.append(parameter.opts[-1])
        if isinstance(value, Path):
            words.append(value.name if value.is_absolute() else value.as_posix())
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


if __name__ == "__main__":
    main()
