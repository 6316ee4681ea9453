"""How fast, how large and how soon: gte_sdk against other ways to run the same weights on the same texts.

    python benchmarks/embedding.py MODEL CHECKPOINT [--documents 2000] [--rivals gte-int8,sentence-transformers]

MODEL is a directory that export/to_onnx.py wrote from CHECKPOINT with both precisions. Every rival runs in a process
of its own, pinned to --cores, and reads at most 256 tokens of a text. Texts are the docstrings of Python's standard
library. Memory is the peak resident size of the rival's process. Documents per CPU second are what to compare on a
machine that does other things too. The last line of the output is JSON.
"""

import argparse
import ast
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 256
QUERIES = 200
# fastembed pads batches of 256 in the order of arrival: on all documents it would take minutes.
SLOW_RIVAL_DOCUMENTS = 300
PACKAGES = ("gte-sdk", "onnxruntime", "torch", "sentence-transformers", "fastembed", "openvino", "nncf", "numpy")

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def open_gte(model: Path, variant: str, engine: str) -> Embed:
    from gte_sdk import Embedder

    return Embedder(model, variant=variant, engine=engine, truncation="ignore", max_tokens=MAX_TOKENS).embed


def open_sentence_transformers(checkpoint: Path) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    return lambda texts: np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


def open_fastembed(model: Path, graph: str) -> Embed:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/model"),
        dim=384,
        model_file=graph,
    )
    embedding = TextEmbedding("local/model", specific_model_path=str(model), threads=len(os.sched_getaffinity(0)))
    return lambda texts: np.array(list(embedding.embed(list(texts))))


def open_openvino(model: Path) -> Embed:
    """OpenVINO's static int8, calibrated by NNCF on 300 of the texts; batches of 32, sorted by length."""
    import nncf
    import openvino

    from gte_sdk import tokens

    tokenizer = tokens.load_tokenizer(model / "tokenizer.json")

    def feed(ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        return dict(tokens.pad_batch(ids)._asdict())

    calibration = tokens.tokenize(tokenizer, documents(300, seed=9), MAX_TOKENS).ids
    core = openvino.Core()
    quantized = nncf.quantize(
        core.read_model(model / "onnx" / "model.onnx"),
        nncf.Dataset([feed([row]) for row in calibration]),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=300,
    )
    threads = len(os.sched_getaffinity(0))
    compiled = core.compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = tokens.tokenize(tokenizer, texts, MAX_TOKENS).ids
        vectors = np.empty((len(ids), 384), dtype=np.float32)
        for rows in tokens.batches_by_tokens([len(row) for row in ids], 1 << 20, 32):
            vectors[rows] = compiled(feed([ids[row] for row in rows]))["sentence_embedding"]
        return vectors

    return embed


RIVALS: dict[str, Callable[[Path, Path], Embed]] = {
    "gte-int8": lambda model, _: open_gte(model, "int8", "native"),
    "gte-int8-onnxruntime": lambda model, _: open_gte(model, "int8", "onnxruntime"),
    "gte-fp32": lambda model, _: open_gte(model, "fp32", "onnxruntime"),
    "openvino-int8": lambda model, _: open_openvino(model),
    "sentence-transformers": lambda _, checkpoint: open_sentence_transformers(checkpoint),
    "fastembed-int8": lambda model, _: open_fastembed(model, "onnx/model_quantized.onnx"),
    "fastembed-fp32": lambda model, _: open_fastembed(model, "onnx/model.onnx"),
}


def documents(count: int, seed: int = 1) -> list[str]:
    """Docstrings of the standard library, 20 to 2,500 characters, in random order."""
    found: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*/*.py")) + sorted(
        Path(sysconfig.get_path("stdlib")).glob("*.py")
    ):
        if path.parent.name in ("site-packages", "test", "idlelib", "lib2to3"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if 20 <= len(text) <= 2500:
                    found.add(text)
    texts = sorted(found)
    random.Random(seed).shuffle(texts)
    return (texts * (count // len(texts) + 1))[:count]


def measure(rival: str, model: Path, checkpoint: Path, document_count: int, repetitions: int) -> dict[str, Any]:
    """What one process measures of one rival."""
    texts = documents(min(document_count, SLOW_RIVAL_DOCUMENTS) if rival.startswith("fastembed") else document_count)
    queries = [text.split(".")[0][:60] for text in documents(QUERIES, seed=2)]
    started = time.perf_counter()
    embed = RIVALS[rival](model, checkpoint)
    embed(["first text"])
    opened_seconds = time.perf_counter() - started
    query_seconds = []
    for query in queries:
        start = time.perf_counter()
        embed([query])
        query_seconds.append(time.perf_counter() - start)
    document_seconds, processor_seconds = [], []
    for _ in range(repetitions):
        start, processor_start = time.perf_counter(), time.process_time()
        vectors = embed(texts)
        document_seconds.append(time.perf_counter() - start)
        processor_seconds.append(time.process_time() - processor_start)
    peak_megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(f"{os.environ['GTE_BENCHMARK_FOLDER']}/{rival}.npy", vectors[:SLOW_RIVAL_DOCUMENTS])
    return {
        "documents_per_second": round(len(texts) / statistics.median(document_seconds), 1),
        "documents_per_cpu_second": round(len(texts) / statistics.median(processor_seconds), 1),
        "documents": len(texts),
        "query_p50_ms": round(1000 * statistics.median(query_seconds), 2),
        "query_p99_ms": round(1000 * float(np.quantile(query_seconds, 0.99)), 2),
        "open_seconds": round(opened_seconds, 2),
        "peak_megabytes": round(peak_megabytes),
    }


def run_rival(rival: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, str(arguments.model), str(arguments.checkpoint), "--measure", rival]
    command += ["--documents", str(arguments.documents), "--repetitions", str(arguments.repetitions)]
    cores = {int(core) for core in arguments.cores.split(",")}
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(cores)
    )
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def pin(cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rivals", default=",".join(RIVALS))
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--folder", type=Path, default=Path("build/embedding"), help="where vectors are compared from")
    parser.add_argument("--measure", choices=list(RIVALS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        counts = arguments.documents, arguments.repetitions
        print(json.dumps(measure(arguments.measure, arguments.model, arguments.checkpoint, *counts)))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ["GTE_BENCHMARK_FOLDER"] = str(arguments.folder)
    results = {}
    print(f"{'':24}docs/s  docs/CPU s  query p50  p99 (ms)  open (s)  peak (MB)")
    for rival in arguments.rivals.split(","):
        row = results[rival] = run_rival(rival, arguments)
        print(
            f"{rival:22}{row['documents_per_second']:8.1f}{row['documents_per_cpu_second']:12.1f}"
            f"{row['query_p50_ms']:11.2f}{row['query_p99_ms']:10.2f}{row['open_seconds']:10.2f}{row['peak_megabytes']:11d}",
            flush=True,
        )
    reference = arguments.folder / "sentence-transformers.npy"
    if "sentence-transformers" in results:
        for rival, row in results.items():
            cosines = (np.load(reference) * np.load(arguments.folder / f"{rival}.npy")).sum(axis=1)
            row["cosine_to_sentence_transformers"] = [
                round(float(value), 5) for value in (cosines.mean(), cosines.min())
            ]
    versions = {name: installed(name) for name in PACKAGES}
    print(json.dumps({"processor": processor(), "cores": arguments.cores, "versions": versions, "rivals": results}))


if __name__ == "__main__":
    main()
