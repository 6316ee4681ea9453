"""How good our models are beside what people embed with today: every evaluation set, by task type, and the speed.

    python -m benchmarks.models SETS --start DIR --trained DIR --teacher DIR [--models 'gte-mini;BM25'] [--output DIR]

SETS is a directory of evaluation sets (TASK/NAME, see training/evaluate/protocols.py). --start is all-MiniLM-L6-v2,
from which the model2vec rival is distilled too, --trained gte-mini's checkpoint and --teacher all-mpnet-base-v2. Each
model runs in a process of its own and is pinned to --cores; its report stays in --output, so a model that was measured
is not measured again unless it is named in --models. --speed-only measures the speed of all again, one after another,
and keeps their scores. Means come first over sets out of domain, then over all. The last line is JSON.
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
IN_DOMAIN = (
    "classification/CLINC150",
    "classification/HWU64",
    "code_search/CodeNN-Python-SO",
    "code_search/CodeNN-SQL",
    "code_search/SEDE",
)
"""Sets whose training split, or other questions of whose source, gte-mini was trained on."""
TASKS = ("sts", "retrieval", "code_search", "reranking", "pair_classification", "classification", "clustering")


class Opened(NamedTuple):
    embed: Embed
    embed_query: Embed
    dim: int
    size_mb: float
    """Of the files that hold the weights."""


def open_gte(name: str | Path, variant: str = "auto", dim: int | None = None) -> Opened:
    """A bundled model, or a checkpoint on our own engine."""
    from gte_sdk import Embedder
    from gte_sdk.model_files.directory import bundled_model_path, bundled_models

    embedder = Embedder(name, variant=variant, dim=dim, truncation="ignore")
    bundled = str(name) in bundled_models()
    weights = bundled_model_path(str(name)) / "onnx" if bundled else Path(name) / "model.safetensors"
    size_mb = megabytes(weights) if bundled or variant == "fp32" else 0.0
    return Opened(embedder.embed_documents, embedder.embed_query, embedder.dim, size_mb)


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


class Checkpoints(NamedTuple):
    start: Path
    trained: Path
    teacher: Path


MODELS: dict[str, Callable[[Checkpoints], Opened]] = {
    "gte-mini": lambda of: open_gte("gte-mini"),
    "gte-mini, 128 dimensions": lambda of: open_gte("gte-mini", dim=128),
    "gte-mini, its checkpoint in fp32": lambda of: open_gte(of.trained, "fp32"),
    "gte-nano": lambda of: open_gte("gte-nano"),
    "all-MiniLM-L6-v2, fp32": lambda of: open_sentence_transformers(of.start),
    "all-MiniLM-L6-v2, our int8": lambda of: open_gte(of.start, "int8"),
    "all-mpnet-base-v2, our int8": lambda of: open_gte(of.teacher, "int8"),
    "model2vec of all-MiniLM-L6-v2": lambda of: open_model2vec(of.start),
}
BM25 = "BM25"


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


def report_of(name: str, sets: Sequence[Path], checkpoints: Checkpoints) -> dict[str, Any]:
    """Scores, size and speed of one model, in this process; without sets no scores."""
    if name == BM25:
        return {"model": name, "scores": bm25_scores(sets)}
    model = MODELS[name](checkpoints)
    report = {
        "model": name,
        "dimensions": model.dim,
        "size_mb": round(model.size_mb, 1),
        "tokens_per_second": round(tokens_per_second(model.embed, checkpoints.start)),
    }
    return {**report, "scores": evaluate(sets, model.embed, model.embed_query)} if sets else report


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
    """Markdown, a line a model, a column a task type; of the sets that are out of domain, but for the last column."""
    tasks = [task.replace("_", " ") for task in TASKS]
    lines = _head(["model", "MB", "tokens/s", *tasks, "mean", "mean with in-domain sets"])
    for report in reports:
        scores = report["scores"]
        summary = summarize({name: score for name, score in scores.items() if name not in IN_DOMAIN})
        cells = [f"{summary[task]:.2f}" if task in summary else "" for task in TASKS]
        whole = all(task in summary for task in TASKS)
        means = [f"{of['mean_of_task_types']:.2f}" if whole else "" for of in (summary, summarize(scores))]
        speed = f"{report['tokens_per_second']:,}" if "tokens_per_second" in report else ""
        lines.append(f"| {' | '.join([report['model'], str(report.get('size_mb') or ''), speed, *cells, *means])} |")
    return "\n".join(lines)


def table_of_sets(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line a set, a column a model; sets that are in domain have a star."""
    lines = _head(["set", *(report["model"] for report in reports)])
    for name in reports[0]["scores"]:
        star = " *" if name in IN_DOMAIN else ""
        cells = [f"{report['scores'][name]:.2f}" if name in report["scores"] else "" for report in reports]
        lines.append(f"| {name.replace('_', ' ').replace('/', ': ')}{star} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |", f"|{'---|' * len(cells)}"]


def _is_due(name: str, named: Sequence[str], report: Path) -> bool:
    return name in named or (not named and not report.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="directory of TASK/NAME")
    parser.add_argument("--start", type=Path, required=True, help="all-MiniLM-L6-v2, a local directory")
    parser.add_argument("--trained", type=Path, required=True, help="gte-mini before its export")
    parser.add_argument("--teacher", type=Path, required=True, help="all-mpnet-base-v2, a local directory")
    parser.add_argument("--models", help=f"measure these anew, of: {'; '.join([*MODELS, BM25])} (separate with ;)")
    parser.add_argument("--speed-only", action="store_true", help="of the reports in --output")
    parser.add_argument("--output", type=Path, default=Path("build/models"))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkpoints = Checkpoints(options.start, options.trained, options.teacher)
    if options.in_process:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
        sets = [] if options.speed_only else find_sets(["*/*"], options.sets)
        print(json.dumps(report_of(options.in_process, sets, checkpoints)))
        return

    options.output.mkdir(parents=True, exist_ok=True)
    named = [name.strip() for name in options.models.split(";")] if options.models else []
    if unknown := set(named) - {*MODELS, BM25}:
        parser.error(f"--models {', '.join(sorted(unknown))}: known are {'; '.join([*MODELS, BM25])}")
    reports = []
    for name in (*MODELS, BM25):
        path = options.output / f"{name.replace(' ', '-').replace(',', '')}.json"
        kept = json.loads(path.read_text()) if options.speed_only and path.is_file() else {}
        if "tokens_per_second" in kept or (not options.speed_only and _is_due(name, named, path)):
            own = [sys.executable, "-m", "benchmarks.models", str(options.sets), "--in-process", name]
            own += ["--start", options.start, "--trained", options.trained, "--teacher", options.teacher]
            own += ["--cores", str(options.cores), *(["--speed-only"] if options.speed_only else [])]
            done = subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True)
            report = {**kept, **json.loads(done.stdout.splitlines()[-1])}
            path.write_text(json.dumps(report, indent=1) + "\n")
        if path.is_file():
            reports.append(json.loads(path.read_text()))
            print(table(reports[-1:]).splitlines()[-1], flush=True)
    print(table(reports), table_of_sets(reports), sep="\n\n")
    versions = {name: version(name) for name in ("onnxruntime", "torch", "sentence-transformers", "numpy")}
    print(
        json.dumps({"machine": platform.processor(), "cores": options.cores, "versions": versions, "models": reports})
    )


if __name__ == "__main__":
    main()
