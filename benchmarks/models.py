"""How good our models are beside what people embed with today: every evaluation set, by task type, and the speed.

    python benchmarks/models.py SETS --checkpoint DIR --int8 DIR [--models gte-mini,bm25] [--output build/models]

SETS is a directory of evaluation sets (TASK/NAME, see training/evaluate/protocols.py). --checkpoint is
all-MiniLM-L6-v2, from which the model2vec rival is distilled too; --int8 is what export/to_onnx.py made of it. Each
model runs in a process of its own and is pinned to --cores; its report stays in --output, so a model that was measured
is not measured again unless it is named in --models. --speed-only measures the speed of all again, one after another,
and keeps their scores. The last line of the output is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.embedding_texts import mixed_documents
from training.evaluate.protocols import (
    RANKED_DOCUMENTS,
    Embed,
    mean_average_precision,
    read_ranking_set,
    read_rows,
    score_ranking,
)
from training.evaluate.scores import evaluate, find_sets, summarize

SPEED_TEXTS = 4000
ROUNDS = 5
INT8_GRAPH = "model_quantized.onnx"
TASKS = ("sts", "retrieval", "code_search", "reranking", "pair_classification", "classification", "clustering")


class Opened(NamedTuple):
    embed: Embed
    embed_query: Embed
    dim: int
    size_mb: float
    """Of the files that hold the weights."""


def open_gte(name: str | Path, dim: int | None = None) -> Opened:
    from gte_sdk import Embedder
    from gte_sdk.model_files.directory import bundled_model_path, bundled_models

    embedder = Embedder(name, dim=dim, truncation="ignore")
    directory = bundled_model_path(str(name)) if str(name) in bundled_models() else Path(name)
    return Opened(
        embedder.embed_documents, embedder.embed_query, embedder.dim, megabytes(directory / "onnx" / INT8_GRAPH)
    )


def open_sentence_transformers(checkpoint: Path) -> Opened:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)

    def embed(texts: Sequence[str]) -> Any:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))

    return Opened(embed, embed, 384, megabytes(checkpoint / "model.safetensors"))


def open_model2vec(checkpoint: Path) -> Opened:
    """model2vec's own distillation of the backbone with its defaults, 256 dimensions as gte-nano has."""
    from model2vec.distill import distill

    model = distill(str(checkpoint), pca_dims=256)

    def embed(texts: Sequence[str]) -> Any:
        vectors_ND = model.encode(list(texts)).astype(np.float32)  # it gives what it stores, float16
        return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)

    return Opened(embed, embed, 256, model.embedding.nbytes / 1e6)


def open_model(name: str, checkpoint: Path, int8: Path) -> Opened:
    openers: dict[str, Callable[[], Opened]] = {
        "gte-mini": lambda: open_gte("gte-mini"),
        "gte-mini, 128 dimensions": lambda: open_gte("gte-mini", 128),
        "gte-nano": lambda: open_gte("gte-nano"),
        "all-MiniLM-L6-v2 fp32": lambda: open_sentence_transformers(checkpoint),
        "all-MiniLM-L6-v2 int8": lambda: open_gte(int8),
        "model2vec of all-MiniLM-L6-v2": lambda: open_model2vec(checkpoint),
    }
    return openers[name]()


MODELS = (
    "gte-mini",
    "gte-mini, 128 dimensions",
    "gte-nano",
    "all-MiniLM-L6-v2 fp32",
    "all-MiniLM-L6-v2 int8",
    "model2vec of all-MiniLM-L6-v2",
    "BM25",
)


def bm25_scores(sets: Sequence[Path]) -> dict[str, float]:
    """BM25 has no vectors, so only what ranks is measured: bm25s with its defaults and English stop words."""
    import bm25s

    def scores_of(documents: Sequence[str], queries: Sequence[str]) -> list[Any]:
        retriever = bm25s.BM25()
        retriever.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
        tokens = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        return [retriever.get_scores(query) if query else np.zeros(len(documents), np.float32) for query in tokens]

    scores = {}
    for path in sets:
        task = path.parent.name
        if task in ("retrieval", "code_search"):
            ranking = read_ranking_set(path)
            ranked = [
                np.argsort(-row, kind="stable")[:RANKED_DOCUMENTS]
                for row in scores_of(ranking.documents, ranking.queries)
            ]
            metrics = score_ranking(np.stack(ranked), ranking.grades)
            scores[f"{task}/{path.name}"] = 100 * metrics["ndcg@10" if task == "retrieval" else "mrr"]
        if task == "reranking":
            rows = list(read_rows(path / "test.jsonl"))
            candidates = list(dict.fromkeys(text for row in rows for text in (*row["positive"], *row["negative"])))
            numbers = {text: number for number, text in enumerate(candidates)}
            of_all = scores_of(candidates, [row["query"] for row in rows])
            own = [
                of_row[[numbers[text] for text in (*row["positive"], *row["negative"])]]
                for row, of_row in zip(rows, of_all, strict=True)
            ]
            scores[f"{task}/{path.name}"] = 100 * mean_average_precision(rows, own)
    return scores


def report_of(name: str, sets: Sequence[Path], checkpoint: Path, int8: Path) -> dict[str, Any]:
    """Scores, size and speed of one model, in this process; without sets no scores."""
    if name == "BM25":
        scores = bm25_scores(sets)
        return {"model": name, "summary": summarize(scores), "scores": scores}
    model = open_model(name, checkpoint, int8)
    report = {
        "model": name,
        "dimensions": model.dim,
        "size_mb": round(model.size_mb, 1),
        "tokens_per_second": round(tokens_per_second(model.embed, checkpoint)),
    }
    if not sets:
        return report
    scores = evaluate(sets, model.embed, model.embed_query)
    return {**report, "summary": summarize(scores), "scores": scores}


def tokens_per_second(embed: Embed, checkpoint: Path) -> float:
    """The median of ROUNDS over the standard library's docstrings; word pieces are counted by one tokenizer for all."""
    from tokenizers import Tokenizer

    texts = mixed_documents(SPEED_TEXTS)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))
    embed(texts[:64])
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        embed(texts)
        seconds.append(time.perf_counter() - started)
    return tokens / statistics.median(seconds)


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def table(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line a model, a column a task type."""
    head = ["model", "MB", "tokens/s", *(task.replace("_", " ") for task in TASKS), "mean"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for report in reports:
        summary = report["summary"]
        cells = [f"{summary[task]:.2f}" if task in summary else "" for task in TASKS]
        mean = f"{summary['mean_of_task_types']:.2f}" if all(task in summary for task in TASKS) else ""
        speed = f"{report['tokens_per_second']:,}" if "tokens_per_second" in report else ""
        lines.append(f"| {' | '.join([report['model'], str(report.get('size_mb', '')), speed, *cells, mean])} |")
    return "\n".join(lines)


def _is_due(name: str, named: Sequence[str], report: Path) -> bool:
    return name in named or (not named and not report.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="directory of TASK/NAME")
    parser.add_argument("--checkpoint", type=Path, required=True, help="all-MiniLM-L6-v2, a local directory")
    parser.add_argument("--int8", type=Path, required=True, help="its export")
    parser.add_argument("--models", help=f"measure these anew, of: {'; '.join(MODELS)} (separate with ;)")
    parser.add_argument("--speed-only", action="store_true", help="of the reports in --output")
    parser.add_argument("--output", type=Path, default=Path("build/models"))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
        sets = [] if options.speed_only else find_sets(["*/*"], options.sets)
        print(json.dumps(report_of(options.in_process, sets, options.checkpoint, options.int8)))
        return

    options.output.mkdir(parents=True, exist_ok=True)
    named = [name.strip() for name in options.models.split(";")] if options.models else []
    if unknown := set(named) - set(MODELS):
        parser.error(f"--models {', '.join(sorted(unknown))}: known are {'; '.join(MODELS)}")
    reports = []
    for name in MODELS:
        path = options.output / f"{name.replace(' ', '-').replace(',', '')}.json"
        kept = json.loads(path.read_text()) if options.speed_only and path.is_file() else {}
        if "tokens_per_second" in kept or (not options.speed_only and _is_due(name, named, path)):
            own = [sys.executable, "-m", "benchmarks.models", str(options.sets), "--in-process", name]
            own += ["--checkpoint", str(options.checkpoint), "--int8", str(options.int8), "--cores", str(options.cores)]
            own += ["--speed-only"] if options.speed_only else []
            done = subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True)
            report = {**kept, **json.loads(done.stdout.splitlines()[-1])}
            path.write_text(json.dumps(report, indent=1) + "\n")
        if path.is_file():
            reports.append(json.loads(path.read_text()))
            print(table(reports[-1:]).splitlines()[-1], flush=True)
    print(table(reports))
    versions = {name: version(name) for name in ("onnxruntime", "torch", "sentence-transformers", "numpy")}
    print(
        json.dumps({"machine": platform.processor(), "cores": options.cores, "versions": versions, "models": reports})
    )


if __name__ == "__main__":
    main()
