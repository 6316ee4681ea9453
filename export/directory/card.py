"""The model card, README.md of a model directory: what it is, where it comes from, how good it is, what it cannot."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where the weights come from."""

    source: str
    """A Hub name or another public description; never a path of this machine."""
    licence: str
    """An SPDX expression, or NOASSERTION where nothing is known."""
    command: str
    """The command that made the directory, to be run from the checkout's root."""
    note: str
    """Markdown that the person exporting adds to the card; may be empty."""


class Shape(NamedTuple):
    """What a user must know of the model."""

    name: str
    architecture: str
    layers: int
    dim: int
    max_tokens: int
    pooling: str
    prompts: Mapping[str, str]
    matryoshka_dims: tuple[int, ...]


def format_card(
    shape: Shape, origin: Origin, report: Mapping[str, Any], files: Mapping[str, str], plot: str | None = None
) -> str:
    """The card's text. `report` is parity.json's content, `files` maps each precision that was kept to its file, `plot`
    is the file name of the distribution's picture."""
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
    """Speed is left to parity.json: it says more of the machine that exported than of the model."""
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
    """Label, file and measurements of everything that runs what was kept."""
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
    """A table of the nodes with weights that int8 leaves in float, and why."""
    kept = report["quantization"]["kept_in_float"] if "quantization" in report else {}
    if not kept:
        return []
    rows = [f"| `{node}` | {reason} |" for node, reason in kept.items()]
    return ["| kept in float | because |", "|---|---|", *rows, ""]


def _distributions(report: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    """A bar for each range of 1 - cosine to fp32, a text plot that a terminal and a card both show."""
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
    """What the command prints at its end: one line for everything that runs what was kept."""
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
