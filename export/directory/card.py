"""The model card, README.md of a model directory: what the model is, its origin, its quality and its limits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from training.encoders.encoder import AnyEncoder, StaticEncoder


class Origin(NamedTuple):
    """Where the weights come from."""

    source: str
    """A Hub name or another public name, never a path of this machine."""
    licence: str
    """An SPDX expression, or NOASSERTION if the licence is not known."""
    command: str
    """The command that makes the directory, run from the root of the checkout."""
    note: str
    """Markdown that the person exporting adds to the card. May be empty."""


class Shape(NamedTuple):
    """The facts about the model that its card states."""

    name: str
    architecture: str
    layers: int
    dim: int
    max_tokens: int
    pooling: str
    prompts: Mapping[str, str]
    matryoshka_dims: tuple[int, ...]


def describe_shape(name: str, encoder: AnyEncoder) -> Shape:
    """The shape of a model that the export calls `name`."""
    config: Any = None if isinstance(encoder, StaticEncoder) else encoder.backbone.config
    return Shape(
        name=name,
        architecture=config.model_type if config else "static token table",
        layers=config.num_hidden_layers if config else 0,
        dim=encoder.dim,
        max_tokens=encoder.max_tokens,
        pooling=encoder.pooling,
        prompts=encoder.prompts,
        matryoshka_dims=encoder.matryoshka_dims,
    )


def format_card(
    shape: Shape, origin: Origin, report: Mapping[str, Any], files: Mapping[str, str], plot: str | None = None
) -> str:
    """The text of the card.

    `report` is the content of parity.json, `files` maps each kept precision to its file, and `plot` is the file name of
    the picture of the distribution.
    """
    return "\n".join(
        [
            *_front_matter(shape, origin),
            f"# {shape.name}",
            "",
            f"Text embeddings: {_layers(shape)}{shape.dim} dimensions, unit length, at most {shape.max_tokens} tokens, "
            f"{shape.pooling} pooling. Exported to ONNX by gte-sdk.",
            "",
            *([origin.note.strip(), ""] if origin.note.strip() else []),
            *_usage(shape),
            *_parity(report, files, plot),
            *_limits(shape),
            "## Provenance and licence",
            "",
            f"Weights: {origin.source}. Licence: {origin.licence}. Made by",
            "",
            "```sh",
            origin.command,
            "```",
            "",
            "with " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()) + ". "
            "`gte.json` records the SHA-256 of every file.",
            "",
        ]
    )


def _front_matter(shape: Shape, origin: Origin) -> list[str]:
    licence = origin.licence.lower() if origin.licence != "NOASSERTION" else "unknown"
    base_model = [f"base_model: {origin.source.split()[0].rstrip(',')}"] if "/" in origin.source.split()[0] else []
    return [
        "---",
        f"license: {licence}",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-similarity, feature-extraction, onnx, gte-sdk]",
        *base_model,
        "---",
        "",
    ]


def _layers(shape: Shape) -> str:
    return f"{shape.architecture}, {shape.layers} layers, " if shape.layers else f"{shape.architecture}, "


def _usage(shape: Shape) -> list[str]:
    lines = [
        "```python",
        "import gte_sdk",
        "",
        f'embedder = gte_sdk.Embedder("{shape.name}")  # or the path of this directory',
    ]
    lines += ['vectors = embedder.embed(["a text", "another"])', "```", ""]
    if shape.matryoshka_dims:
        widths = ", ".join(map(str, shape.matryoshka_dims))
        lines += [
            f"Trained to be cut to {widths} numbers: `gte_sdk.Embedder(..., dim={shape.matryoshka_dims[-1]})`.",
            "",
        ]
    if shape.prompts:
        lines += ["Prompts, put before a text by `embed_query` and `embed_documents`:", ""]
        lines += [f"- {name}: `{prompt}`" for name, prompt in shape.prompts.items()]
        lines += [""]
    return lines


def _parity(report: Mapping[str, Any], files: Mapping[str, str], plot: str | None) -> list[str]:
    """The section on parity. It leaves speed to parity.json, because speed depends on the machine that exported."""
    lines = [
        "## Parity",
        "",
        f"Over {report['texts']} mixed texts; the fp32 graph differs from PyTorch by at most "
        f"{report['fp32_against_pytorch']['maximum_difference']:.1e}. Everything below is against fp32; the whole "
        "report, with speed and the machine it was measured on, is in `parity.json`.",
        "",
        "| file | MB | cosine mean | minimum | recall@10 | rank correlation | alone against in a batch |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, file, measured in _rows(report, files):
        lines.append(
            f"| `{file}` ({label}) | {measured['bytes'] / 1e6:.1f} | {measured['cosine']['mean']:.4f} "
            f"| {measured['cosine']['minimum']:.4f} | {measured['recall_at_10']:.3f} "
            f"| {measured['rank_correlation']:.4f} "
            f"| {measured['alone_against_in_batch']['maximum_difference']:.1e} |"
        )
    picture = [f"![1 - cosine to fp32 by text]({plot})", ""] if plot else _distributions(report, files)
    return [*lines, "", *picture, *_sts(report), *_kept_in_float(report)]


def _rows(report: Mapping[str, Any], files: Mapping[str, str]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Label, file and measurements of every kept graph, and of gte-sdk's own encoder on the int8 graph."""
    rows = [(precision, file, report["precisions"][precision]) for precision, file in files.items()]
    if "native" in report and "int8" in files:
        rows.append(("int8, gte-sdk's own encoder", files["int8"], report["native"]))
    return rows


def _sts(report: Mapping[str, Any]) -> list[str]:
    if "sts" not in report:
        return []
    sts = report["sts"]
    correlations = ", ".join(f"{name} {value:.4f}" for name, value in sts["spearman"].items())
    return [f"Spearman's correlation on the {sts['pairs']} pairs of {sts['set']}: {correlations}.", ""]


def _kept_in_float(report: Mapping[str, Any]) -> list[str]:
    """A table of the nodes with weights that stay in float in the int8 graph, and why."""
    kept = report["quantization"]["kept_in_float"] if "quantization" in report else {}
    if not kept:
        return []
    rows = [f"| `{node}` | {reason} |" for node, reason in kept.items()]
    return ["| kept in float | because |", "|---|---|", *rows, ""]


def _distributions(report: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    """A plot in text, for terminals and cards: a bar for each range of 1 - cosine to fp32."""
    lines = []
    for label, _, measured in _rows(report, files):
        if label == "fp32":
            continue
        distribution = measured["cosine"]["distribution"]
        edges, counts = distribution["one_minus_cosine_edges"], distribution["counts"]
        lines += [f"{label}: texts by 1 - cosine to fp32", ""]
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                lines.append(f"    {low:7.0e} to {high:5.0e} {count:5} {'#' * -(-40 * count // max(counts))}")
        lines.append("")
    return lines


def _limits(shape: Shape) -> list[str]:
    return [
        "## Limits",
        "",
        f"What is beyond {shape.max_tokens} tokens is not read (the SDK warns, and says how much). Vectors can be "
        "compared only with vectors of the same fingerprint (`gte.json`). Similarity is what the training texts "
        "taught, biases included; it is no statement of fact.",
        "",
    ]


def format_summary(report: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The summary that the command prints at its end, a line for each of `_rows`."""
    lines = [
        "",
        f"fp32 against PyTorch: largest difference {report['fp32_against_pytorch']['maximum_difference']:.1e}",
        f"{'':28}{'MB':>6}{'cosine mean':>13}{'minimum':>9}{'recall@10':>11}{'rank corr.':>12}{'tokens/s':>11}",
    ]
    for label, _, measured in _rows(report, files):
        lines.append(
            f"{label:28}{measured['bytes'] / 1e6:6.1f}{measured['cosine']['mean']:13.5f}"
            f"{measured['cosine']['minimum']:9.5f}{measured['recall_at_10']:11.4f}"
            f"{measured['rank_correlation']:12.5f}{measured['speed']['tokens_per_second']:11,}"
        )
    return "\n".join([*lines, "", *_distributions(report, files), *_sts(report), *_kept_in_float(report)])
