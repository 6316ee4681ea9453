"""What people do all day with an index: one query, filters, rows one by one, callers side by side; a table, JSON last.

    python benchmarks/small_searches.py [--rows 1000 10000 50000] [--dim 384] [--seconds 1]

Each rival runs in a process of its own, one after another in turns, with as many threads. A number is the median of
the calls of a turn, and of the turns the median. Rivals without a feature have no number for it.

For rivals: pip install faiss-cpu usearch
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RIVALS = ("gte_sdk", "numpy", "faiss", "usearch")
FILTERS = (0.001, 0.01, 0.1, 0.5)
CALLERS = 8
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each number of a turn")
    parser.add_argument("--rival", choices=RIVALS, help="measure one rival in this process: what the others start")
    options = parser.parse_args()
    if options.rival:
        print(json.dumps(measure(options.rival, options.rows[0], options.dim, options.threads, options.seconds)))
        return
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(variable, None)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    rivals = [name for name in RIVALS if importlib.util.find_spec(name)]
    results: dict[str, dict[str, dict[str, float]]] = {}
    for row_count in options.rows:
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in rivals}
        for _ in range(options.turns):
            for name in rivals:
                command = [sys.executable, __file__, "--rival", name, "--rows", str(row_count), "--dim"]
                command += [str(options.dim), "--threads", str(options.threads), "--seconds", str(options.seconds)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                turns[name].append(json.loads(done.stdout))
        results[str(row_count)] = {
            name: {what: round(statistics.median(turn[what] for turn in found), 1) for what in found[0]}
            for name, found in turns.items()
        }
        print(f"\n{row_count:,} x {options.dim}, microseconds\n\n| | {' | '.join(rivals)} |")
        print("|---" * (len(rivals) + 1) + "|")
        for what in results[str(row_count)]["gte_sdk"]:
            cells = [results[str(row_count)][name].get(what) for name in rivals]
            print(f"| {what} | {' | '.join('' if cell is None else f'{cell:,}' for cell in cells)} |")
    print(json.dumps({"dim": options.dim, "threads": options.threads, "microseconds": results}))


def measure(rival: str, row_count: int, dim: int, threads: int, seconds: float) -> dict[str, float]:
    """Microseconds by what was done."""
    generator = np.random.default_rng(0)
    rows_ND = generator.standard_normal((row_count, dim), dtype=np.float32)
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    query_D = np.ascontiguousarray(rows_ND[row_count // 2] + generator.standard_normal(dim, dtype=np.float32) * 0.05)
    masks = {share: generator.random(row_count) < share for share in FILTERS}
    search, add_one = {
        "gte_sdk": ours,
        "numpy": with_numpy,
        "faiss": with_faiss,
        "usearch": with_usearch,
    }[rival](rows_ND, threads)
    found = {"one query": median_of_calls(lambda: search(query_D, K, None), seconds)}
    found["one query, k = 1,000"] = median_of_calls(lambda: search(query_D, min(1_000, row_count), None), seconds)
    if rival in ("gte_sdk", "faiss"):
        for share, mask_N in masks.items():
            what = f"one query, a mask of {share:.1%}"
            found[what] = median_of_calls(lambda mask_N=mask_N: search(query_D, K, mask_N), seconds)  # type: ignore[misc]
    calls = 100
    found[f"a query of {calls} by {CALLERS} callers"] = side_by_side(lambda: search(query_D, K, None), calls)
    if add_one is not None:
        found["a row more"] = median_of_calls(lambda: add_one(rows_ND[:1]), seconds)
    return found


def median_of_calls(call: Callable[[], Any], seconds: float) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    for _ in range(5):
        call()
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def side_by_side(call: Callable[[], Any], calls: int) -> float:
    """The whole time by the number of calls, which the callers share."""
    left = iter(range(calls))

    def work() -> None:
        for _ in left:
            call()

    callers = [threading.Thread(target=work) for _ in range(CALLERS)]
    start = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return (time.perf_counter() - start) / calls * 1e6


Searcher = tuple[Callable[[Any, int, Any], Any], Callable[[Any], Any] | None]


def ours(rows_ND: Any, threads: int) -> Searcher:
    from gte_sdk import Index

    index = Index(rows_ND.shape[1])
    index.add(rows_ND)
    growing = Index(rows_ND.shape[1])
    growing.add(rows_ND)
    return lambda query, k, where: index.search(query, k, where=where, threads=threads), growing.add


def with_numpy(rows_ND: Any, threads: int) -> Searcher:
    def search(query_D: Any, k: int, where: Any) -> Any:
        scores_N = rows_ND @ query_D
        best_K = np.argpartition(-scores_N, k - 1)[:k]
        return best_K[np.argsort(-scores_N[best_K])]

    return search, None


def with_faiss(rows_ND: Any, threads: int) -> Searcher:
    import faiss

    faiss.omp_set_num_threads(threads)
    index, growing = faiss.IndexFlatIP(rows_ND.shape[1]), faiss.IndexFlatIP(rows_ND.shape[1])
    index.add(rows_ND)
    growing.add(rows_ND)

    def search(query_D: Any, k: int, where: Any) -> Any:
        if where is None:
            return index.search(query_D[None], k)
        selector = faiss.IDSelectorBitmap(np.packbits(where, bitorder="little"))
        return index.search(query_D[None], k, params=faiss.SearchParameters(sel=selector))

    return search, growing.add


def with_usearch(rows_ND: Any, threads: int) -> Searcher:
    """Its exact search over an array; a row more goes into its graph, which is not exact, so it is not measured."""
    from usearch.index import MetricKind, search

    return lambda query, k, where: search(rows_ND, query, k, MetricKind.IP, exact=True, threads=threads), None


if __name__ == "__main__":
    main()
