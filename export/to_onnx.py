"""The command that turns a checkpoint into a model directory: graph, quantization, parity, card.

    python export/to_onnx.py thenlper/gte-small --output models/gte-small

Everything is written into a hidden folder beside the output, which is renamed at the end: the output appears whole or
not at all. A graph that misses a parity threshold is refused.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the checkout last: its gte_sdk has no extension where the wheel is what is installed
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parents[1]))

import click
from click.core import ParameterSource

from export.directory.card import Origin, describe_shape, format_card, format_summary
from export.directory.layout import hash_weights, measure_size, name_source, write_json, write_layout
from export.directory.output import ExportError, check_space, explain_errors
from export.external_data import remove_graph
from export.golden import write_golden
from export.graphs.half import convert_to_half
from export.graphs.onnxruntime_int8 import INSTRUCTION_SETS, quantize_with_onnxruntime
from export.graphs.optimum_graph import write_optimum_graph
from export.graphs.quantize import QuantizationSummary, quantize
from export.graphs.trace import OPSET, write_graph
from export.parity import measure as parity
from export.parity.measure import CALIBRATION_TEXTS, PARITY_TEXTS, Thresholds
from export.parity.plot import plot_distribution
from export.parity.sts import measure_sts, read_sts
from export.ranges import write_ranges
from export.source import find_source, load_source
from gte_sdk.atomic_file import replace_directory
from gte_sdk.model_files.directory import (
    CARD,
    GRAPH_FILES,
    PARITY_JSON,
    TOKENIZER_JSON,
    fingerprint_of_weights,
    sha256_of_file,
    write_gte_json,
)
from gte_sdk.model_files.published import CONFIG_JSON, POOLING_MODES, read_json
from gte_sdk.runtime.int8.card import guess_licence
from gte_sdk.runtime.tokens import TokenBatch, load_tokenizer
from training.encoders.encoder import Encoder, Pooling

PRECISIONS = ("fp32", "fp16", "int8")
EXPORTERS = ("trace", "optimum")
QUANTIZATIONS = ("per-token", "dynamic", "static")
PARITY_PNG = "parity.png"
CALIBRATION_BATCH_TOKENS = 2048
_DEFAULTS = Thresholds()
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]})
@click.argument("source")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The model directory to write.")
@click.option("--precision", default="fp32,int8", show_default=True, help="Graphs to keep, of fp32, fp16 and int8.")
@click.option("--no-quantize", is_flag=True, help="Same as --precision fp32.")
@click.option(
    "--exporter",
    type=click.Choice(EXPORTERS),
    default="trace",
    show_default=True,
    help="What makes the fp32 graph: our tracer, or optimum-onnx, which knows more architectures.",
)
@click.option(
    "--quantization",
    type=click.Choice(QUANTIZATIONS),
    default="per-token",
    show_default=True,
    help="How to make int8: ours, with one scale per token, or ONNX Runtime's dynamic or static kind.",
)
@click.option(
    "--instruction-set",
    type=click.Choice(list(INSTRUCTION_SETS)),
    help="CPUs that a dynamic or static graph is for.  [default: avx2, correct on every CPU]",
)
@click.option(
    "--calibration", type=_FILE, help='Texts to calibrate on: JSON Lines with {"text": ...}, or one text per line.'
)
@click.option("--sts", type=_FILE, help='Pairs to measure quality on: JSON Lines with {"a", "b", "score"}.')
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--name", help="Name of the model in its card and in gte.json.  [default: the last part of the output]")
@click.option("--license", "licence", help="SPDX expression.  [default: from the source's card]")
@click.option("--source-name", help="Name for a local source in the card and in gte.json.")
@click.option("--note", type=_FILE, help="File with Markdown for the card.")
@click.option("--max-tokens", type=click.IntRange(min=8), help="Read at most this many tokens of a text.")
@click.option(
    "--pooling",
    type=click.Choice(POOLING_MODES),
    help="How the vectors are pooled, for a source that does not say it.",
)
@click.option(
    "--matryoshka-dims",
    help="Dimensions that vectors may be cut to, such as 256,128.  [default: those that training recorded]",
)
@click.option(
    "--opset", type=click.IntRange(min=18), default=OPSET, show_default=True, help="Version of ONNX's operators."
)
@click.option(
    "--minimum-mean-cosine", type=float, default=_DEFAULTS.mean_cosine, show_default=True, help="Least mean cosine."
)
@click.option(
    "--minimum-cosine",
    type=float,
    default=_DEFAULTS.minimum_cosine,
    show_default=True,
    help="Least cosine of any text.",
)
@click.option(
    "--minimum-recall", type=float, default=_DEFAULTS.recall, show_default=True, help="Least share of the ten nearest."
)
def main(
    source: str,
    output: Path,
    precision: str,
    no_quantize: bool,
    exporter: str,
    quantization: str,
    instruction_set: str | None,
    calibration: Path | None,
    sts: Path | None,
    overwrite: bool,
    name: str | None,
    licence: str | None,
    source_name: str | None,
    note: Path | None,
    max_tokens: int | None,
    pooling: Pooling | None,
    matryoshka_dims: str | None,
    opset: int,
    minimum_mean_cosine: float,
    minimum_cosine: float,
    minimum_recall: float,
) -> None:
    """Turns a checkpoint into a model directory that gte-sdk, sentence-transformers, fastembed, optimum and
    transformers.js can load: ONNX graphs with pooling and unit length inside, tokenizer, card, hashes, and parity.json,
    which reports how close each graph is to PyTorch.

    SOURCE is a training run or checkpoint, a Hugging Face or sentence-transformers directory with safetensors weights,
    or a Hub name such as thenlper/gte-small.

    The three --minimum options say when a graph is refused. They are measured over 500 bundled texts: the cosine of a
    text's vector to its fp32 vector, and the share of its ten nearest texts that stay the same. fp32 must equal PyTorch
    to 1e-5.
    """
    kept = _parse_precisions("fp32" if no_quantize else precision)
    if instruction_set and quantization == "per-token":
        raise click.BadParameter("the per-token graph is the same for every CPU", param_hint="--instruction-set")
    output = output.expanduser()
    name = name or output.resolve().name
    thresholds = Thresholds(mean_cosine=minimum_mean_cosine, minimum_cosine=minimum_cosine, recall=minimum_recall)
    with explain_errors(), replace_directory(output, overwrite) as directory:
        _hide_progress_bars()
        progress = _Progress(steps=4 + len(set(kept) - {"fp32"}))
        progress.step(f"reading {source}")
        source_directory = find_source(source)
        encoder = load_source(source_directory, max_tokens, pooling, exporter == "optimum")
        if matryoshka_dims is not None:
            encoder.matryoshka_dims = _parse_dims(matryoshka_dims, encoder.dim)
        tokenizer = load_tokenizer(source_directory / TOKENIZER_JSON)
        # Both are read before the work begins, so that a bad line is reported at once.
        calibration_texts = parity.read_corpus(calibration or CALIBRATION_TEXTS)
        sts_set = read_sts(sts, tokenizer, encoder.max_tokens) if sts else None
        needs_one_file = ["--precision fp16"] if "fp16" in kept else []
        if "int8" in kept and quantization != "per-token":
            needs_one_file.append(f"--quantization {quantization}")
        check_space(directory, encoder, needs_one_file)
        write_layout(encoder, source_directory, directory)

        # The other graphs are made from fp32 and compared with it, even if it is not kept.
        names = {precision: GRAPH_FILES[precision][0] for precision in dict.fromkeys(["fp32", *kept])}
        if "int8" in kept and quantization != "per-token":
            names["int8"] = INSTRUCTION_SETS[instruction_set or "avx2"].file
        graphs = {precision: directory / graph_name for precision, graph_name in names.items()}
        graphs["fp32"].parent.mkdir()
        progress.step("tracing the fp32 graph")
        if exporter == "optimum":
            assert isinstance(encoder, Encoder)  # optimum knows no token table, so load_source refused it
            write_optimum_graph(encoder, graphs["fp32"], opset)
        else:
            write_graph(encoder, graphs["fp32"], opset)
        if "fp16" in kept:
            progress.step("converting to fp16")
            convert_to_half(graphs["fp32"], graphs["fp16"])
        summary = None
        if "int8" in kept:
            progress.step(f"calibrating and quantizing to int8 ({quantization})")
            corpus = parity.tokenize_corpus(tokenizer, calibration_texts, encoder.max_tokens)
            batches = [batch for _, batch in parity.make_batches(corpus, CALIBRATION_BATCH_TOKENS)]
            summary = _quantize(graphs, quantization, instruction_set or "avx2", batches)

        progress.step("measuring parity")
        corpus = parity.tokenize_corpus(tokenizer, parity.read_corpus(PARITY_TEXTS), encoder.max_tokens)
        runs = parity.open_runs(encoder, graphs, read_json(directory / CONFIG_JSON), corpus.pad_id)
        report = parity.measure(runs, graphs, corpus)
        if sts_set:
            report["sts"] = measure_sts(runs, sts_set)
        if summary:
            calibrated_on = calibration.name if calibration else "bundled"
            report["quantization"] = {"method": quantization, "calibration": calibrated_on, **summary._asdict()}
        if problems := parity.find_refusals(report, thresholds):
            raise ExportError("refused, nothing was written: " + "; ".join(problems))

        progress.step("writing card, parity.json and gte.json")
        del runs
        for unwanted in set(graphs) - set(kept):
            remove_graph(graphs[unwanted])
        origin = Origin(
            source=name_source(source, source_name),
            licence=licence or guess_licence(source_directory),
            command=_format_command(),
            note=note.read_text(encoding="utf-8") if note else "",
        )
        shape = describe_shape(name, encoder)
        files = {precision: names[precision] for precision in kept}
        write_json(directory / PARITY_JSON, report)
        plotted = _plot(report, directory / PARITY_PNG)
        card = format_card(shape, origin, report, files, PARITY_PNG if plotted else None)
        (directory / CARD).write_text(card, encoding="utf-8")
        weights_hash = hash_weights(encoder)
        write_gte_json(
            directory,
            name=name,
            dim=encoder.dim,
            max_tokens=encoder.max_tokens,
            pooling=encoder.pooling,
            prompts=encoder.prompts,
            matryoshka_dims=encoder.matryoshka_dims,
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
        write_ranges(directory)
        write_golden(directory)
    click.echo(format_summary(report, files))
    click.echo(f"{output}: {measure_size(output) / 1e6:.1f} MB")


def _quantize(
    graphs: dict[str, Path], quantization: str, instruction_set: str, batches: list[TokenBatch]
) -> QuantizationSummary:
    if quantization == "per-token":
        return quantize(graphs["fp32"], graphs["int8"], batches)
    calibration = batches if quantization == "static" else None
    return quantize_with_onnxruntime(graphs["fp32"], graphs["int8"], instruction_set, calibration)


def _plot(report: dict[str, Any], path: Path) -> bool:
    """Draws the picture, which is optional: without matplotlib the export goes on and reports what is missing."""
    try:
        return plot_distribution(report, path)
    except ImportError:
        click.echo(f"{path.name} is left out because matplotlib is missing: pip install 'gte-sdk[export]'", err=True)
        return False


def _hide_progress_bars() -> None:
    """Hides the bars that transformers draws for every file, between our own steps."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class _Progress:
    """Prints numbered steps with the time at which each began."""

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


def _parse_dims(text: str, dim: int) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= dim for part in parts):
        raise ExportError(f"--matryoshka-dims {text!r}; give whole numbers from 1 to {dim}: 256,128,64")
    return tuple(sorted({int(part) for part in parts}, reverse=True))


def _format_command() -> str:
    """This command line without paths of this machine: SOURCE for a local source, the last part of absolute paths."""
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
