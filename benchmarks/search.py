"""Exact search against its rivals: milliseconds, GB/s, GFLOP/s, share of the machine's peaks, memory; as JSON.

Every rival lives in a process of its own, pinned to the same cores with as many threads. All of them hold the same rows
and take turns, one search each, so that a machine which changes its speed changes it for all: the ratios of one run
are to be trusted, more than its milliseconds. Rivals that are not installed are left out, and said to be.

    python benchmarks/search.py                                 500,000 x 384, q 1 8 64 256, k 10
    python benchmarks/search.py --rows 10000 --dims 1024 --ks 1 10 100 --rivals ours-float32 numpy
    python benchmarks/search.py --growth                        how the cost grows with rows, queries, k and dim
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

import gte_sdk
from gte_sdk import _kernels

# What a rival reads of each row.
BYTES_OF_VALUE = {"ours-float16": 2.0, "ours-int8": 1.0, "faiss-sq8": 1.0, "ours-binary": 1 / 8, "faiss-binary": 1 / 8}
NAMES = (
    "ours-float32",
    "ours-float16",
    "ours-int8",
    "ours-binary",
    "ours-int8-rescore",
    "ours-binary-rescore",
    *("numpy", "torch", "faiss-flat", "faiss-sq8", "faiss-binary", "usearch", "hnswlib-brute-force"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Measurement(NamedTuple):
    rival: str
    rows: int
    dim: int
    queries: int
    k: int
    milliseconds: float
    gigabytes_per_second: float
    gigaflops: float
    share_of_read_bandwidth: float
    share_of_sgemm: float
    extra_megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384])
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--ks", type=int, nargs="+", default=[10])
    parser.add_argument("--rivals", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7, help="searches of each rival, of which the median counts")
    parser.add_argument("--growth", action="store_true", help="how our cost grows with rows, queries, k and dim")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(options.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    report: dict[str, Any] = {"machine": machine(options.threads)}
    print(json.dumps(report["machine"]), file=sys.stderr)
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
    results = [
        measurement
        for rows, dims, queries, ks in grids
        for row_count in rows
        for dim in dims
        for measurement in compare(options.rivals, row_count, dim, queries, ks, options, report["machine"])
    ]
    report["results"] = [measurement._asdict() for measurement in results]
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def compare(
    rivals: list[str],
    row_count: int,
    dim: int,
    queries: list[int],
    ks: list[int],
    options: argparse.Namespace,
    machine: dict[str, Any],
) -> list[Measurement]:
    """All rivals on one matrix, in turns."""
    measurements = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as folder:
        file = Path(folder) / "rows.npy"
        generator = np.random.default_rng(0)
        rows = generator.standard_normal((row_count, dim), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.save(file, rows)
        del rows
        workers = {}
        for rival in rivals:
            worker = start_worker(rival, file, options.threads)
            if answer(worker) == {"ready": True}:
                workers[rival] = worker
            else:
                print(f"{rival} is left out: it is not installed", file=sys.stderr)
        for query_count in queries:
            for k in ks:
                times: dict[str, list[float]] = {rival: [] for rival in workers}
                extra = dict.fromkeys(workers, 0.0)
                for turn in range(options.turns + 1):
                    for rival, worker in workers.items():
                        result = ask(worker, query_count, k)
                        extra[rival] = max(extra[rival], result["extra_megabytes"])
                        if turn > 0:
                            times[rival].append(result["milliseconds"])
                for rival in workers:
                    measurements.append(
                        measured(rival, row_count, dim, query_count, k, times[rival], extra[rival], machine)
                    )
                    print(describe(measurements[-1]), file=sys.stderr)
        for worker in workers.values():
            worker.communicate()
    return measurements


def measured(
    rival: str, rows: int, dim: int, queries: int, k: int, times: list[float], extra: float, machine: dict[str, Any]
) -> Measurement:
    milliseconds = statistics.median(times)
    gigabytes = rows * dim * BYTES_OF_VALUE.get(rival.removesuffix("-rescore"), 4.0) / milliseconds / 1e6
    gigaflops = 2 * rows * dim * queries / milliseconds / 1e6
    bandwidth_share = gigabytes / machine["read_gigabytes_per_second"]
    sgemm_share = gigaflops / machine["sgemm_gigaflops"]
    rounded = [round(value, 3) for value in (milliseconds, gigabytes, gigaflops, bandwidth_share, sgemm_share, extra)]
    return Measurement(rival, rows, dim, queries, k, *rounded)


def describe(m: Measurement) -> str:
    return (
        f"{m.rival:20} n={m.rows} d={m.dim} q={m.queries} k={m.k}: {m.milliseconds:.2f} ms, "
        f"{m.gigabytes_per_second:.1f} GB/s ({m.share_of_read_bandwidth:.0%}), {m.gigaflops:.0f} GFLOP/s "
        f"({m.share_of_sgemm:.0%} of sgemm), +{m.extra_megabytes:.0f} MB"
    )


def start_worker(rival: str, file: Path, threads: int) -> subprocess.Popen[str]:
    program = str(Path(__file__).with_name("search_rivals.py"))
    command = [sys.executable, program, rival, str(file), str(threads)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: "subprocess.Popen[str]", queries: int, k: int) -> dict[str, Any]:
    assert worker.stdin is not None
    worker.stdin.write(f"{queries} {k}\n")
    worker.stdin.flush()
    return answer(worker)


def answer(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdout is not None
    result: dict[str, Any] = json.loads(worker.stdout.readline() or "{}")
    return result


def machine(threads: int) -> dict[str, Any]:
    """What the machine is and can do, measured now."""
    versions = {"gte-sdk": gte_sdk.__version__}
    for name in ("numpy", "torch", "faiss-cpu", "usearch", "hnswlib"):
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
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
        "load_average": round(os.getloadavg()[0], 2),
        "read_gigabytes_per_second": read_bandwidth(threads),
        "sgemm_gigaflops": sgemm(),
    }


def read_bandwidth(threads: int) -> float:
    source = Path(__file__).with_name("read_bandwidth.cpp")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "read_bandwidth")
        subprocess.run([os.environ.get("CXX", "c++"), "-O3", "-pthread", str(source), "-o", program], check=True)
        return float(subprocess.run([program, str(threads), "1024"], check=True, capture_output=True).stdout)


def sgemm() -> float:
    """GFLOP/s of the best of numpy's matrix products in ten."""
    size = 2048
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    best = 1e9
    for _ in range(10):
        start = time.perf_counter()
        np.matmul(a, a)
        best = min(best, time.perf_counter() - start)
    return round(2 * size**3 / best / 1e9, 1)


if __name__ == "__main__":
    main()
