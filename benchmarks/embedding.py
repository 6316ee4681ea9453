"""How fast, how large and how soon: gte_sdk against other ways to run the same weights on the same texts.

    python benchmarks/embedding.py MODEL CHECKPOINT [--rivals gte-int8,fastembed-int8] [--python ENVIRONMENT/bin/python]

MODEL is a directory that export/to_onnx.py wrote from CHECKPOINT with both precisions. The rivals of
embedding_rivals.py take --turns turns, each in a process of its own, pinned to --cores, on queries one by one, mixed
documents, long documents and code. What one run measures is kept in --folder, so that rivals which need other packages
are added by another --python; the table at the end is of all that the folder holds, by the medians over the turns.

Memory is the resident size of the rival's process. A rival that is slow embeds fewer documents, and the table says how
many. The share of the peak is what the model's products on real tokens take at the rate of matmul_peak.cpp on the same
cores, measured in the same run.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that gte_sdk is the one that is installed

from benchmarks import embedding_texts as texts
from benchmarks.embedding_rivals import RIVALS, Embed

QUERIES, LONG_DOCUMENTS, CODE = 300, 100, 300
SLOW_DOCUMENTS = 512
REFERENCE = "sentence-transformers"
IDLE_SECONDS = 2.0
PACKAGES = (
    "gte-sdk", "onnxruntime", "torch", "transformers", "sentence-transformers", "fastembed", "openvino", "nncf",
    "optimum", "optimum-onnx", "optimum-intel", "tokenizers", "numpy",
)  # fmt: skip


def measure(rival: str, model: Path, checkpoint: Path, documents: list[str], repetitions: int) -> dict[str, Any]:
    """What one process measures of one rival."""
    started = time.perf_counter()
    embed = RIVALS[rival].open(model, checkpoint)
    embed(["first text"])
    opened = time.perf_counter() - started
    query_ms = [1000 * seconds(embed, [query])[0] for query in texts.queries(QUERIES)]
    runs, resident = [], []
    for _ in range(repetitions):
        runs.append(seconds(embed, documents))
        resident.append(resident_megabytes())
    # The peak is that of the mixed documents, before longer ones come.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    idle_start = time.process_time()
    time.sleep(IDLE_SECONDS)
    idle = time.process_time() - idle_start
    others = {"long documents": texts.long_documents(LONG_DOCUMENTS), "code": texts.code(CODE)}
    return {
        "open_seconds": round(opened, 2),
        "query_p50_ms": round(statistics.median(query_ms), 2),
        "query_p99_ms": round(float(np.quantile(query_ms, 0.99)), 2),
        "documents": len(documents),
        "wall_seconds": [round(wall, 3) for wall, _ in runs],
        "cpu_seconds": [round(cpu, 3) for _, cpu in runs],
        "resident_megabytes": resident,
        "peak_megabytes": round(peak),
        "idle_cpu_percent": round(100 * idle / IDLE_SECONDS, 2),
        "others": {name: [round(value, 3) for value in seconds(embed, some)] for name, some in others.items()},
        "vectors": np.asarray(embed(documents[:SLOW_DOCUMENTS])).tolist(),
    }


def seconds(embed: Embed, some: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    start, cpu_start = time.perf_counter(), time.process_time()
    embed(some)
    return time.perf_counter() - start, time.process_time() - cpu_start


def resident_megabytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def run_rival(rival: str, arguments: argparse.Namespace, cores: set[int]) -> dict[str, Any]:
    command = [arguments.python, __file__, str(arguments.model), str(arguments.checkpoint), "--measure", rival]
    command += ["--documents", str(arguments.documents), "--repetitions", str(arguments.repetitions)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        command,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def merged(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of all turns: every run of the documents, the greatest peak, the medians of the rest."""

    def median(key: str) -> float:
        return float(statistics.median(turn[key] for turn in turns))

    return {
        **turns[-1],
        **{key: median(key) for key in ("open_seconds", "query_p50_ms", "query_p99_ms", "idle_cpu_percent")},
        **{key: [run for turn in turns for run in turn[key]] for key in ("wall_seconds", "cpu_seconds")},
        "peak_megabytes": max(turn["peak_megabytes"] for turn in turns),
        "others": {
            name: [statistics.median(turn["others"][name][number] for turn in turns) for number in range(2)]
            for name in turns[0]["others"]
        },
    }


def measure_here(arguments: argparse.Namespace) -> None:
    count = min(arguments.documents, SLOW_DOCUMENTS) if RIVALS[arguments.measure].slow else arguments.documents
    documents = texts.mixed_documents(count)
    result = measure(arguments.measure, arguments.model, arguments.checkpoint, documents, arguments.repetitions)
    result["versions"] = {name: found for name in PACKAGES if (found := installed(name))}
    print(json.dumps(result))


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Costs:
    """Tokens of the workloads as the model reads them, and the machine's time for the products they need."""

    def __init__(self, model: Path, build: Path) -> None:
        from gte_sdk.model_files.directory import read_model_dir
        from gte_sdk.runtime import tokens

        self._tokenizer = tokens.load_tokenizer(model / "tokenizer.json")
        self._most = read_model_dir(model).max_tokens
        config = json.loads((model / "config.json").read_text())
        width, wide = config["hidden_size"], config["intermediate_size"]
        self._layers, self._width = config["num_hidden_layers"], width
        self._per_token = 2 * self._layers * (4 * width * width + 2 * width * wide)
        program = build / "matmul_peak"
        source = Path(__file__).with_name("matmul_peak.cpp")
        subprocess.run(["g++", "-O2", "-march=native", str(source), "-o", str(program)], check=True)
        rates = subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        self.billions_a_core = {"fp32": float(rates[0]), "int8": float(rates[1])}

    def lengths(self, some: list[str]) -> list[int]:
        from gte_sdk.runtime import tokens

        return [len(row) for row in tokens.tokenize(self._tokenizer, some, self._most).ids]

    def ideal_seconds(self, lengths: list[int], precision: str) -> float:
        """CPU seconds of the products with weights in that precision; those of attention are float ones in both."""
        weights = self._per_token * sum(lengths) / self.billions_a_core[precision]
        attention = 4 * self._layers * self._width * sum(n * n for n in lengths) / self.billions_a_core["fp32"]
        return float(weights + attention) / 1e9


def summarize(rival: str, result: dict[str, Any], costs: Costs) -> dict[str, Any]:
    """What the table shows, from the medians."""
    documents = texts.mixed_documents(result["documents"])
    lengths = costs.lengths(documents)
    wall, cpu = statistics.median(result["wall_seconds"]), statistics.median(result["cpu_seconds"])
    others = {
        "long documents/s": len(texts.long_documents(LONG_DOCUMENTS)) / result["others"]["long documents"][0],
        "code/s": CODE / result["others"]["code"][0],
    }
    precision = "int8" if "int8" in rival else "fp32"
    return {
        "documents/s": round(len(documents) / wall, 1),
        "documents/CPU s": round(len(documents) / cpu, 1),
        "tokens/s": round(sum(lengths) / wall),
        "query p50 (ms)": result["query_p50_ms"],
        "p99 (ms)": result["query_p99_ms"],
        **{name: round(value, 1) for name, value in others.items()},
        "peak memory (MB)": result["peak_megabytes"],
        "first, last repetition (MB)": f"{result['resident_megabytes'][0]}, {result['resident_megabytes'][-1]}",
        "idle CPU (%)": result["idle_cpu_percent"],
        "share of peak": f"{100 * costs.ideal_seconds(lengths, precision) / cpu:.0f} %",
        "opened (s)": result["open_seconds"],
        "measured": f"{len(documents):,} x {len(result['wall_seconds'])}",
    }


def cosines(vectors: list[list[float]], reference: list[list[float]]) -> str:
    """Mean and least cosine to the reference's vectors of the same texts."""
    count = min(len(vectors), len(reference))
    both = (np.array(vectors[:count]) * np.array(reference[:count])).sum(axis=1)
    return f"{both.mean():.4f}, {both.min():.4f}"


def print_table(folder: Path, costs: Costs) -> None:
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    reference = results.get(REFERENCE)
    header: list[str] = []
    for rival in sorted(results, key=list(RIVALS).index):
        row = summarize(rival, results[rival], costs)
        row["cosine to torch, mean and least"] = (
            cosines(results[rival]["vectors"], reference["vectors"]) if reference else ""
        )
        if not header:
            header = list(row)
            print("| | " + " | ".join(header) + " |\n|" + "---|" * (len(header) + 1))
        print(f"| {rival} | " + " | ".join(str(value) for value in row.values()) + " |")
    versions: dict[str, set[str]] = {}
    for result in results.values():
        for name, found in result["versions"].items():
            versions.setdefault(name, set()).add(found)
    print(f"\n{processor()}; peak of one core in billions of operations a second: {costs.billions_a_core}")
    print(", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items())))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=1, help="passes over the documents in one turn")
    parser.add_argument("--rivals", default=",".join(RIVALS), help="none: only the table of what the folder holds")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the rivals' packages")
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--folder", type=Path, default=Path("build/embedding"))
    parser.add_argument("--measure", choices=list(RIVALS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_here(arguments)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cores = {int(core) for core in arguments.cores.split(",")}
    rivals = arguments.rivals.split(",") if arguments.rivals != "none" else []
    results: dict[str, list[dict[str, Any]]] = {rival: [] for rival in rivals}
    for _ in range(arguments.turns):
        for rival in rivals:
            result = run_rival(rival, arguments, cores)
            results[rival].append(result)
            done = f"{result['documents']} documents in {result['wall_seconds']} s"
            print(f"{rival}: {done}", file=sys.stderr, flush=True)
            (arguments.folder / f"{rival}.json").write_text(json.dumps(merged(results[rival])))
    print_table(arguments.folder, Costs(arguments.model, arguments.folder))


if __name__ == "__main__":
    main()
