"""What export proves before it keeps a graph: fp32 against PyTorch, every other precision against fp32.

Measured over the 500 texts of parity_texts.jsonl (sentences, questions, documentation, code, many scripts, empty, very
long), tokenized and run as the SDK does it. The report becomes parity.json; `refusals` says what misses its threshold.
"""

import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gte_sdk import top_k_cosine
from gte_sdk.session import Graph, open_graph, run_graph
from gte_sdk.threads import available_threads
from gte_sdk.tokens import TokenBatch, batches_by_tokens, pad_batch, pad_token_id, tokenize
from training.encoder import AnyEncoder

PARITY_TEXTS = Path(__file__).with_name("parity_texts.jsonl")
CALIBRATION_TEXTS = Path(__file__).with_name("calibration_texts.jsonl")
BATCH_TOKENS = 4096
RECALL_DEPTH = 10
# How many texts, spread over all kinds, are embedded on their own too, and how many the speed is taken from.
SAMPLE_COUNT = 100
# Of 1 - cosine, which spreads over decades.
DISTANCE_EDGES = [0, 1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 2]
_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5)
_VERSIONS = ("gte-sdk", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
_INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")

Vectors = NDArray[np.float32]


class Thresholds(NamedTuple):
    fp32_difference: float = 1e-5
    """The largest absolute difference between a number of the fp32 graph's unit vectors and PyTorch's."""
    mean_cosine: float = 0.99
    """Of a text's vector to its fp32 vector, over all texts."""
    minimum_cosine: float = 0.95
    recall: float = 0.90
    """How many of a text's 10 nearest texts by fp32 are among the 10 nearest by the other precision, on average."""


class TokenizedCorpus(NamedTuple):
    ids: list[list[int]]
    pad_id: int

    @property
    def token_count(self) -> int:
        return sum(len(row) for row in self.ids)


def read_texts(path: Path) -> list[str]:
    """The field `text` of each line of a JSONL file."""
    return [str(json.loads(line)["text"]) for line in path.read_text(encoding="utf-8").splitlines()]


def tokenize_corpus(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> TokenizedCorpus:
    return TokenizedCorpus(tokenize(tokenizer, texts, max_tokens).ids, pad_token_id(tokenizer))


def token_batches(
    corpus: TokenizedCorpus, batch_tokens: int = BATCH_TOKENS
) -> list[tuple[NDArray[np.int64], TokenBatch]]:
    """(indices, batch) pairs that cover the corpus, longest texts first."""
    lengths = [len(row) for row in corpus.ids]
    return [
        (indices, pad_batch([corpus.ids[index] for index in indices], corpus.pad_id))
        for indices in batches_by_tokens(lengths, batch_tokens)
    ]


def measure(encoder: AnyEncoder, graphs: dict[str, Path], corpus: TokenizedCorpus) -> dict[str, Any]:
    """The report: `graphs` maps precision to ONNX file and holds "fp32", to which the others are compared."""
    opened = {precision: open_graph(path, "cpu", available_threads()) for precision, path in graphs.items()}
    reference = embed_with_graph(opened["fp32"], corpus)
    torch_difference = np.abs(reference - embed_with_torch(encoder, corpus)).max()
    precisions = {}
    for precision, path in graphs.items():
        vectors = reference if precision == "fp32" else embed_with_graph(opened[precision], corpus)
        precisions[precision] = {
            "bytes": path.stat().st_size,
            **_against(vectors, reference),
            "alone_against_in_batch": _batch_dependence(opened[precision], corpus, vectors),
            "speed": _speed(opened[precision], corpus),
        }
    return {
        "texts": len(corpus.ids),
        "tokens": corpus.token_count,
        "longest_text_tokens": max(len(row) for row in corpus.ids),
        "fp32_against_pytorch": {"maximum_difference": float(torch_difference)},
        "precisions": precisions,
        "machine": {"architecture": platform.machine(), "threads": available_threads(), **_processor()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
    }


def refusals(report: dict[str, Any], thresholds: Thresholds) -> list[str]:
    """One sentence for each threshold that the report misses; not-a-number misses every threshold."""
    difference = report["fp32_against_pytorch"]["maximum_difference"]
    problems = []
    if not difference <= thresholds.fp32_difference:
        problems.append(
            f"the fp32 graph differs from PyTorch by {difference:.2e}, more than {thresholds.fp32_difference:.0e}"
        )
    for precision, measured in report["precisions"].items():
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
        for indices, batch in token_batches(corpus):
            output = encoder(*(torch.from_numpy(array) for array in batch))
            rows.append((indices, output.sentence_embedding.numpy()))
    return _in_order(rows, len(corpus.ids))


def embed_with_graph(graph: Graph, corpus: TokenizedCorpus) -> Vectors:
    """(n, dim) float32 rows of the graph as the SDK runs it, in the corpus's order."""
    rows = [(indices, run_graph(graph, batch, "mean", normalized=True)) for indices, batch in token_batches(corpus)]
    return _in_order(rows, len(corpus.ids))


def _in_order(rows: Sequence[tuple[NDArray[np.int64], Vectors]], count: int) -> Vectors:
    vectors = np.empty((count, rows[0][1].shape[1]), dtype=np.float32)
    for indices, values in rows:
        vectors[indices] = values
    return vectors


def _against(vectors: Vectors, reference: Vectors) -> dict[str, Any]:
    cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), reference.astype(np.float64))
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
    """The share of each row's nearest other rows by `reference` that are its nearest by `vectors` too."""
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
    ranks, reference_ranks = (_ranks((rows @ rows.T)[pairs]) for rows in (vectors, reference))
    return float(np.corrcoef(ranks, reference_ranks)[0, 1])


def _ranks(values: Vectors) -> NDArray[np.float64]:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _batch_dependence(graph: Graph, corpus: TokenizedCorpus, in_batch: Vectors) -> dict[str, Any]:
    """How far vectors move when their texts are run one by one instead of in batches."""
    chosen = _sample(corpus)
    batches = [pad_batch([corpus.ids[index]], corpus.pad_id) for index in chosen]
    alone = np.concatenate([run_graph(graph, batch, "mean", normalized=True) for batch in batches])
    cosines = np.einsum("nd,nd->n", alone.astype(np.float64), in_batch[chosen].astype(np.float64))
    return {
        "texts": len(chosen),
        "maximum_difference": float(np.abs(alone - in_batch[chosen]).max()),
        "minimum_cosine": float(cosines.min()),
    }


def _sample(corpus: TokenizedCorpus) -> NDArray[np.int64]:
    return np.linspace(0, len(corpus.ids) - 1, min(SAMPLE_COUNT, len(corpus.ids))).astype(np.int64)


def _speed(graph: Graph, corpus: TokenizedCorpus) -> dict[str, float]:
    """The median of one text of median length, and the best of five passes over a sample in batches."""
    median = sorted(corpus.ids, key=len)[len(corpus.ids) // 2]
    sample = TokenizedCorpus([corpus.ids[index] for index in _sample(corpus)], corpus.pad_id)
    one_text = pad_batch([median], corpus.pad_id)
    single = sorted(_seconds(lambda: run_graph(graph, one_text, "mean", normalized=True)) for _ in range(21))
    passes = [_seconds(lambda: embed_with_graph(graph, sample)) for _ in range(5)]
    return {
        "milliseconds_one_text": round(single[len(single) // 2] * 1000, 3),
        "tokens_one_text": len(median),
        "tokens_per_second": round(sample.token_count / min(passes)),
    }


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _processor() -> dict[str, Any]:
    """Model name and the instruction sets that matter to integer arithmetic, where the system tells (Linux)."""
    file = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in file.read_text().splitlines()] if file.is_file() else []
    values = {name.strip(): value.strip() for name, _, value in reversed(fields)}
    flags = values.get("flags", values.get("Features", "")).split()
    return {
        "processor": values.get("model name", platform.processor()),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
    }
