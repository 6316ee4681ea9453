"""Measures what the export must prove of a graph: fp32 against PyTorch, every other precision against fp32.

The texts are the 500 of parity_texts.jsonl (sentences, questions, documentation, code, many scripts, empty, very long),
tokenized and run as the SDK does it. The report becomes parity.json; `find_refusals` compares it with limits.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.external_data import graph_bytes
from export.parity.speed import describe_machine, measure_speed
from gte_sdk import top_k_cosine
from gte_sdk.errors import InputError
from gte_sdk.runtime.golden import row_cosines
from gte_sdk.runtime.native.engine import load_native, run_native
from gte_sdk.runtime.onnxruntime.graph import Graph, open_graph, run_graph
from gte_sdk.runtime.tokens import TokenBatch, batches_by_tokens, pad_batch, pad_token_id, tokenize
from gte_sdk.threads import available_threads
from training.encoders.encoder import AnyEncoder, Encoder
from training.evaluate.protocols import spearman

PARITY_TEXTS = Path(__file__).with_name("parity_texts.jsonl")
CALIBRATION_TEXTS = Path(__file__).with_name("calibration_texts.jsonl")
BATCH_TOKENS = 4096
RECALL_DEPTH = 10
# The number of texts, spread over all kinds, that are also embedded alone and that the speed is measured on.
SAMPLE_COUNT = 100
# Edges of the histogram of 1 - cosine, which spreads over decades.
DISTANCE_EDGES = [0, 1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 2]
_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5)
_VERSIONS = ("gte-sdk", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
# Names of the runs that are not a graph under ONNX Runtime; those are named after their precision.
PYTORCH, NATIVE = "pytorch", "native"

Vectors = NDArray[np.float32]
Run = Callable[[Sequence[Sequence[int]]], Vectors]
"""Token ids of n texts to (n, dim) float32 unit rows, in the same order."""


class Thresholds(NamedTuple):
    fp32_difference: float = 1e-5
    """The largest absolute difference between any number of the fp32 graph's unit vectors and PyTorch's."""
    mean_cosine: float = 0.99
    """Cosine of a text's vector to its fp32 vector, as the mean over all texts."""
    minimum_cosine: float = 0.95
    recall: float = 0.90
    """The mean share of a text's 10 nearest texts by fp32 that are among its 10 nearest by the other precision."""


class TokenizedCorpus(NamedTuple):
    ids: Sequence[Sequence[int]]
    pad_id: int

    @property
    def token_count(self) -> int:
        return sum(len(row) for row in self.ids)


def read_corpus(path: Path) -> list[str]:
    """The field `text` of each line of a .jsonl file, or the lines of any other file that are not empty.

    Raises InputError for a line without a text, with its number, and for a file without texts.
    """
    # Not splitlines(), which also splits at Unicode's line separators, inside a text.
    lines = [
        (number, line) for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()
    ]
    is_json = path.suffix == ".jsonl"
    texts = [_text_of(path, number, line) if is_json else line for number, line in lines]
    if not texts:
        raise InputError(f"{path} holds no texts")
    return texts


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}, line {number} is not {{"text": ...}}: {error!r}') from error
    if not isinstance(text, str):
        raise InputError(f"{path}, line {number}: text={text!r} is not a text")
    return text


def tokenize_corpus(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> TokenizedCorpus:
    return TokenizedCorpus(tokenize(tokenizer, texts, max_tokens).ids, pad_token_id(tokenizer))


def make_batches(
    corpus: TokenizedCorpus, batch_tokens: int = BATCH_TOKENS
) -> list[tuple[NDArray[np.int64], TokenBatch]]:
    """Pairs (indices, batch) that cover the corpus, longest texts first."""
    lengths = [len(row) for row in corpus.ids]
    return [
        (indices, pad_batch([corpus.ids[index] for index in indices], corpus.pad_id))
        for indices in batches_by_tokens(lengths, batch_tokens)
    ]


def open_runs(
    encoder: AnyEncoder, graphs: Mapping[str, Path], config: Mapping[str, Any], pad_id: int
) -> dict[str, Run]:
    """Functions from token ids to vectors, by name: PyTorch, ONNX Runtime for each graph, and the SDK's own encoder if
    it can run the int8 graph.

    `graphs` maps precisions to ONNX files. `config` is the content of config.json.
    """
    threads = available_threads()
    runs: dict[str, Run] = {PYTORCH: lambda ids: embed_with_torch(encoder, TokenizedCorpus(ids, pad_id))}
    for precision, path in graphs.items():
        runs[precision] = _run_of(open_graph(path, "cpu", threads), pad_id)
    has_dense = isinstance(encoder, Encoder) and encoder.dense is not None
    if "int8" in graphs and not has_dense:
        model = load_native(graphs["int8"], config, encoder.pooling, threads)
        if model is not None:
            runs[NATIVE] = lambda ids: run_native(model, ids)
    return runs


def _run_of(graph: Graph, pad_id: int) -> Run:
    return lambda ids: embed_with_graph(graph, TokenizedCorpus(ids, pad_id))


def measure(runs: Mapping[str, Run], graphs: Mapping[str, Path], corpus: TokenizedCorpus) -> dict[str, Any]:
    """The report. `runs` come from open_runs and include PyTorch and "fp32", which the others are compared with."""
    reference = runs["fp32"](corpus.ids)
    torch_difference = np.abs(reference - runs[PYTORCH](corpus.ids)).max()
    sample = _sample(corpus)
    measured = {}
    for name, run in runs.items():
        if name == PYTORCH:
            continue
        vectors = reference if name == "fp32" else run(corpus.ids)
        measured[name] = {
            "bytes": graph_bytes(graphs["int8" if name == NATIVE else name]),
            **_compare(vectors, reference),
            "alone_against_in_batch": _measure_batch_dependence(run, corpus, vectors),
            "speed": measure_speed(run, corpus.ids, [corpus.ids[index] for index in sample]),
        }
    own = {NATIVE: measured.pop(NATIVE)} if NATIVE in measured else {}
    return {
        "texts": len(corpus.ids),
        "tokens": corpus.token_count,
        "longest_text_tokens": max(len(row) for row in corpus.ids),
        "fp32_against_pytorch": {"maximum_difference": float(torch_difference)},
        "precisions": measured,
        **own,
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
    }


def find_refusals(report: dict[str, Any], thresholds: Thresholds) -> list[str]:
    """A sentence for each threshold that the report misses. NaN misses every threshold."""
    difference = report["fp32_against_pytorch"]["maximum_difference"]
    problems = []
    if not difference <= thresholds.fp32_difference:
        problems.append(
            f"the fp32 graph differs from PyTorch by {difference:.2e}, more than {thresholds.fp32_difference:.0e}"
        )
    own = {"int8 on the SDK's own encoder": report[NATIVE]} if NATIVE in report else {}
    for precision, measured in {**report["precisions"], **own}.items():
        for name, value, limit in (
            ("mean cosine to fp32", measured["cosine"]["mean"], thresholds.mean_cosine),
            ("minimum cosine to fp32", measured["cosine"]["minimum"], thresholds.minimum_cosine),
            (f"recall@{RECALL_DEPTH} against fp32", measured["recall_at_10"], thresholds.recall),
        ):
            if not value >= limit:
                problems.append(f"{precision} has {name} {value:.4f}, less than {limit:.4f}")
    return problems


def embed_with_torch(encoder: AnyEncoder, corpus: TokenizedCorpus) -> Vectors:
    """(n, dim) float32 rows of the encoder itself, in the corpus's order."""
    rows: list[tuple[NDArray[np.int64], Vectors]] = []
    encoder.eval()
    with torch.inference_mode():
        for indices, batch in make_batches(corpus):
            output = encoder(*(torch.from_numpy(array) for array in batch))
            rows.append((indices, output.sentence_embedding.numpy()))
    return _in_order(rows, len(corpus.ids))


def embed_with_graph(graph: Graph, corpus: TokenizedCorpus) -> Vectors:
    """(n, dim) float32 rows of the graph as the SDK runs it, in the corpus's order."""
    rows = [(indices, run_graph(graph, batch, "mean", normalized=True)) for indices, batch in make_batches(corpus)]
    return _in_order(rows, len(corpus.ids))


def _in_order(rows: Sequence[tuple[NDArray[np.int64], Vectors]], count: int) -> Vectors:
    vectors = np.empty((count, rows[0][1].shape[1]), dtype=np.float32)
    for indices, values in rows:
        vectors[indices] = values
    return vectors


def _compare(vectors: Vectors, reference: Vectors) -> dict[str, Any]:
    cosines = row_cosines(vectors, reference)
    counts, _ = np.histogram(np.clip(1 - cosines, 0, 2), bins=DISTANCE_EDGES)
    return {
        "cosine": {
            "mean": float(cosines.mean()),
            "minimum": float(cosines.min()),
            "quantiles": {str(quantile): float(np.quantile(cosines, quantile)) for quantile in _QUANTILES},
            "distribution": {"one_minus_cosine_edges": DISTANCE_EDGES, "counts": counts.tolist()},
        },
        "recall_at_10": _recall(vectors, reference),
        "rank_correlation": _rank_correlation(vectors, reference),
    }


def _recall(vectors: Vectors, reference: Vectors) -> float:
    """The mean share of a row's nearest other rows by `reference` that are among its nearest by `vectors` too."""
    depth = min(RECALL_DEPTH, len(reference) - 1)
    found = [set(row) for row in _nearest_others(vectors, depth)]
    wanted = [set(row) for row in _nearest_others(reference, depth)]
    return float(np.mean([len(got & expected) / depth for got, expected in zip(found, wanted, strict=True)]))


def _nearest_others(vectors: Vectors, depth: int) -> list[list[int]]:
    if not np.isfinite(vectors).all():
        return [[] for _ in vectors]
    indices = top_k_cosine(vectors, vectors, depth + 1)[1]
    return [[int(index) for index in row if index != own][:depth] for own, row in enumerate(indices)]


def _rank_correlation(vectors: Vectors, reference: Vectors) -> float:
    """Spearman's correlation of the cosines between all pairs of different texts."""
    pairs = np.triu_indices(len(reference), k=1)
    return spearman((vectors @ vectors.T)[pairs], (reference @ reference.T)[pairs])


def _measure_batch_dependence(run: Run, corpus: TokenizedCorpus, in_batch: Vectors) -> dict[str, Any]:
    """How far vectors move if their texts are run one by one instead of in batches."""
    chosen = _sample(corpus)
    alone = np.concatenate([run([corpus.ids[index]]) for index in chosen])
    return {
        "texts": len(chosen),
        "maximum_difference": float(np.abs(alone - in_batch[chosen]).max()),
        "minimum_cosine": float(row_cosines(alone, in_batch[chosen]).min()),
    }


def _sample(corpus: TokenizedCorpus) -> NDArray[np.int64]:
    return np.linspace(0, len(corpus.ids) - 1, min(SAMPLE_COUNT, len(corpus.ids))).astype(np.int64)
