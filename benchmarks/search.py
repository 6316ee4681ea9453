"""Search against its rivals: milliseconds, GB/s, share of the machine's reads, memory, recall; two tables, then JSON.

Every rival lives in a process of its own, pinned to the same cores with as many threads. All of them hold the same rows
and take turns, one search each, so that a machine which changes its speed changes it for all: the ratios of one run
are to be trusted, more than its milliseconds. A pause lets the threads of the one before stop spinning. Programs that
only read the rows take turns too, and the fastest says what memory gives. Rivals that are not installed are left out,
and said to be.

    python benchmarks/search.py                                 500,000 x 384 random rows, q 1 8 64 256, k 10
    python benchmarks/search.py --rows 10000 --dims 1024 --ks 1 10 100 --rivals ours-float32 numpy-product
    python benchmarks/search.py --vectors build/vectors         real rows, with recall; see rescoring.py --save
    python benchmarks/search.py --growth                        how the cost grows with rows, queries, k and dim

For rivals: pip install torch faiss-cpu usearch hnswlib turbovec threadpoolctl
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gte_sdk
from gte_sdk import _kernels

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that gte_sdk is the one that is installed

from benchmarks.search_rivals import EXACT, FEWER_BITS, READERS, RIVALS

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
# They choose OpenBLAS's kernels for another CPU: some machines set them.
SLOWING_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
PACKAGES = ("numpy", "torch", "faiss-cpu", "usearch", "hnswlib", "turbovec")
READER = "reader"
# The threads of OpenBLAS and OpenMP spin after their work, and would take the next rival's processors.
PAUSE_SECONDS = 0.1
RECALL_AT = 10
# The rival whose rows are the best.
BEST = "ours-float32"
MOST_RANDOM_QUERIES = 4096


class Measurement(NamedTuple):
    rival: str
    rows: int
    dim: int
    queries: int
    k: int
    milliseconds: float
    gigabytes_per_second: float
    """Of what the rival stores."""
    share_of_reads: float
    gigaflops: float
    extra_megabytes: float
    """What the search adds to the process at its peak."""
    recall: float | None
    """The share of the best RECALL_AT rows that it finds. None for random rows and exact searches."""


class Worker:
    """A rival's process."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.is_ready = self._answer() == {"ready": True}

    def ask(self, question: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384])
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--ks", type=int, nargs="+", default=[10])
    parser.add_argument("--vectors", type=Path, help="a folder with rows.npy and queries.npy, in place of random ones")
    parser.add_argument("--rivals", nargs="+", default=[*EXACT, *FEWER_BITS], choices=RIVALS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7, help="searches of each rival, of which the median counts")
    parser.add_argument("--growth", action="store_true", help="how our cost grows with rows, queries, k and dim")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.vectors is not None and BEST not in options.rivals:
        parser.error(f"--vectors compares with what {BEST} finds; add it to --rivals")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(options.threads)
    for variable in SLOWING_VARIABLES:
        os.environ.pop(variable, None)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    about = machine(options.threads)
    print(json.dumps(about), file=sys.stderr)
    if options.growth:
        options.rivals = ["ours-float32", "ours-int8", "ours-binary"]
        grids = [
            ([10_000, 30_000, 100_000, 300_000, 1_000_000], [384], [1], [10]),
            ([100_000], [384], [1, 4, 16, 64, 256], [10]),
            ([100_000], [384], [16], [1, 10, 100, 1000]),
            ([100_000], [64, 128, 256, 512, 1024], [16], [10]),
        ]
    else:
        grids = [(options.rows, options.dims, options.queries, options.ks)]
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        if options.vectors is not None:
            measurements += compare(options.vectors, options.queries, options.ks, options)
            grids = []
        for rows, dims, queries, ks in grids:
            for row_count in rows:
                for dim in dims:
                    write_random(Path(folder), row_count, dim)
                    measurements += compare(Path(folder), queries, ks, options)
    report = {"machine": about, "results": [measurement._asdict() for measurement in measurements]}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_tables(measurements)
    print(json.dumps(report))


def write_random(folder: Path, row_count: int, dim: int) -> None:
    generator = np.random.default_rng(0)
    for name, count in (("rows", row_count), ("queries", MOST_RANDOM_QUERIES)):
        vectors = generator.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", vectors)


def compare(folder: Path, queries: list[int], ks: list[int], options: argparse.Namespace) -> list[Measurement]:
    """All rivals on one matrix, in turns."""
    row_count, dim = np.load(folder / "rows.npy", mmap_mode="r").shape
    readers = [] if options.growth else list(READERS)
    workers = [start_reader(row_count * dim * 4, options.threads)]
    for name in [*options.rivals, *readers]:
        workers.append(Worker(name, rival_command(name, folder, options.threads)))
        if not workers[-1].is_ready:
            print(f"{name} is left out: it is not installed", file=sys.stderr)
            workers.pop().end()
    recalls = measure_recalls(workers) if options.vectors is not None else {}
    measurements = []
    for query_count in queries:
        for k in ks:
            times: dict[str, list[float]] = {worker.name: [] for worker in workers}
            extra = dict.fromkeys(times, 0.0)
            for turn in range(options.turns + 1):
                for worker in workers:
                    time.sleep(PAUSE_SECONDS)
                    result = worker.ask(f"time {query_count} {k}")
                    extra[worker.name] = max(extra[worker.name], result["extra_megabytes"])
                    if turn > 0:
                        times[worker.name].append(result["milliseconds"])
            medians = {name: statistics.median(each) for name, each in times.items()}
            # What reads all rows has read them, whatever else it does.
            all_of_it = (READER, *READERS, *EXACT)
            read_milliseconds = min(value for name, value in medians.items() if name in all_of_it)
            for name, milliseconds in medians.items():
                gigabytes = row_count * dim * (RIVALS[name].bytes_of_value if name in RIVALS else 4) / 1e9
                measurement = Measurement(
                    name,
                    row_count,
                    dim,
                    query_count,
                    k,
                    round(milliseconds, 4),
                    round(gigabytes / milliseconds * 1e3, 2),
                    round(gigabytes / milliseconds / (row_count * dim * 4 / 1e9 / read_milliseconds), 3),
                    round(2 * row_count * dim * query_count / milliseconds / 1e6, 1),
                    round(extra[name], 1),
                    recalls.get(name),
                )
                measurements.append(measurement)
                print(describe(measurement), file=sys.stderr)
    for worker in workers:
        worker.end()
    return measurements


def measure_recalls(workers: list[Worker]) -> dict[str, float]:
    """Against the rows that our exact search finds."""
    found = {
        worker.name: np.array(worker.ask(f"ids {RECALL_AT}")["ids"])
        for worker in workers
        if worker.name in FEWER_BITS or worker.name == BEST
    }
    best = found.pop(BEST)
    return {name: recall(best, ids) for name, ids in found.items()}


def recall(best_QK: NDArray[np.int64], found_QK: NDArray[np.int64]) -> float:
    """The mean share of the best that was found."""
    shares = [len(set(best) & set(found)) / len(best) for best, found in zip(best_QK.tolist(), found_QK, strict=True)]
    return round(float(np.mean(shares)), 4)


def describe(m: Measurement) -> str:
    return (
        f"{m.rival:20} n={m.rows} d={m.dim} q={m.queries} k={m.k}: {m.milliseconds:.3f} ms, "
        f"{m.gigabytes_per_second:.1f} GB/s ({m.share_of_reads:.0%}), {m.gigaflops:.0f} GFLOP/s, "
        f"+{m.extra_megabytes:.0f} MB" + ("" if m.recall is None else f", recall@{RECALL_AT} {m.recall:.4f}")
    )


def print_tables(measurements: list[Measurement]) -> None:
    """For each size and k, the exact searches and those of fewer bits, the fastest of one query first."""
    for size in dict.fromkeys((m.rows, m.dim, m.k) for m in measurements):
        chosen = [m for m in measurements if (m.rows, m.dim, m.k) == size]
        counts = list(dict.fromkeys(m.queries for m in chosen))
        for title, names in (("exact", EXACT), ("fewer bits", FEWER_BITS), ("readers", [READER, *READERS])):
            rows: dict[str, list[Measurement]] = {}
            for m in chosen:
                if m.rival in names:
                    rows.setdefault(m.rival, []).append(m)
            if rows:
                print(f"\n{size[0]:,} x {size[1]}, k = {size[2]}: {title}\n")
                heads = [f"{count} {'query' if count == 1 else 'queries'}, ms" for count in counts]
                print(f"| | {' | '.join(heads)} | GB/s of {counts[0]} | extra MB | recall@{RECALL_AT} |")
                print("|---" * (len(counts) + 4) + "|")
            for name, found in sorted(rows.items(), key=lambda row: row[1][0].milliseconds):
                cells = [f"{m.milliseconds:.3g}" if m.milliseconds < 100 else f"{m.milliseconds:,.0f}" for m in found]
                reads = f"{found[0].gigabytes_per_second:.1f} ({found[0].share_of_reads:.0%})"
                kept = "" if found[0].recall is None else f"{found[0].recall:.4f}"
                print(f"| {name} | {' | '.join(cells)} | {reads} | {found[-1].extra_megabytes:.0f} | {kept} |")


def rival_command(name: str, folder: Path, threads: int) -> list[str]:
    program = str(Path(__file__).with_name("search_rivals.py"))
    return [sys.executable, program, name, str(folder / "rows.npy"), str(folder / "queries.npy"), str(threads)]


def start_reader(bytes_of_rows: int, threads: int) -> Worker:
    source = Path(__file__).with_name("read_bandwidth.cpp")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "read_bandwidth")
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-O3", "-march=native", "-pthread", str(source), "-o", program], check=True)
        return Worker(READER, [program, str(threads), str(bytes_of_rows)])


def machine(threads: int) -> dict[str, Any]:
    """What the machine is."""
    versions = {"gte-sdk": gte_sdk.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "kernels": _kernels.search_instruction_sets()[-1],
        "openblas_core": openblas_core(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
        "load_average": round(os.getloadavg()[0], 2),
    }


def openblas_core() -> str:
    """The kernels that numpy's OpenBLAS runs in a new process, whose environment is the rivals'."""
    program = "import json, numpy, threadpoolctl; print(json.dumps(threadpoolctl.threadpool_info()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode != 0:
        return "unknown: threadpoolctl is not installed"
    libraries = [library for library in json.loads(done.stdout) if library["internal_api"] == "openblas"]
    return libraries[0]["architecture"] if libraries else "numpy has no OpenBLAS"


if __name__ == "__main__":
    main()
