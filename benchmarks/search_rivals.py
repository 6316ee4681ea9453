"""One rival of benchmarks/search.py in a process of its own: python search_rivals.py RIVAL ROWS.npy THREADS."""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = {
    "torch": "torch",
    "faiss-flat": "faiss",
    "faiss-sq8": "faiss",
    "faiss-binary": "faiss",
    "usearch": "usearch",
    "hnswlib-brute-force": "hnswlib",
}
RESCORED_CANDIDATES = 500


def main(rival: str, file: str, threads: int) -> None:
    """Prints {"ready": ...}, then a measured search for each line "queries k" of the standard input."""
    try:
        if rival in PACKAGES:
            importlib.import_module(PACKAGES[rival])
    except ImportError:
        print(json.dumps({"ready": False}), flush=True)
        return
    rows_ND = np.load(file)
    queries_QD = np.random.default_rng(1).standard_normal((4096, rows_ND.shape[1]), dtype=np.float32)
    queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
    search = searcher(rival, rows_ND, threads)
    del rows_ND
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        query_count, k = map(int, line.split())
        chosen = queries_QD[:query_count]
        before = resident_peak(reset=True)
        start = time.perf_counter()
        search(chosen, k)
        milliseconds = (time.perf_counter() - start) * 1e3
        extra = (resident_peak(reset=False) - before) / 1e6
        print(json.dumps({"milliseconds": milliseconds, "extra_megabytes": extra}), flush=True)


def resident_peak(*, reset: bool) -> int:
    """Bytes: the peak of resident memory; after a reset that is what is resident now. 0 where /proc is missing."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def searcher(rival: str, rows_ND: Any, threads: int) -> Callable[[Any, int], Any]:
    """The rival's search over its own form of the rows, ready for its first query; it alone is imported."""
    dim = rows_ND.shape[1]
    if rival == "ours-float32":
        from gte_sdk import top_k_cosine

        return lambda queries, k: top_k_cosine(queries, rows_ND, k, threads=threads)
    if rival.startswith("ours"):
        from gte_sdk import Index

        rescored = rival.endswith("-rescore")
        index = Index(dim, rival.split("-")[1], keep_floats=rescored)
        index.add(rows_ND)
        rescore = RESCORED_CANDIDATES if rescored else None
        return lambda queries, k: index.search(queries, k, rescore=rescore, threads=threads)
    if rival == "numpy":
        return lambda queries, k: numpy_search(queries, rows_ND, k)
    if rival == "torch":
        import torch

        torch.set_num_threads(threads)
        rows = torch.from_numpy(rows_ND)
        return lambda queries, k: torch.topk(torch.from_numpy(queries) @ rows.T, k)
    if rival.startswith("faiss"):
        return faiss_searcher(rival, rows_ND, threads)
    if rival == "usearch":
        from usearch.index import MetricKind, search  # type: ignore[attr-defined, unused-ignore]

        return lambda queries, k: search(rows_ND, queries, k, MetricKind.IP, exact=True, threads=threads)
    import hnswlib

    brute_force = hnswlib.BFIndex(space="ip", dim=dim)
    brute_force.init_index(max_elements=len(rows_ND))
    brute_force.add_items(rows_ND)
    brute_force.set_num_threads(threads)
    return lambda queries, k: brute_force.knn_query(queries, k)


def faiss_searcher(rival: str, rows_ND: Any, threads: int) -> Callable[[Any, int], Any]:
    import faiss

    faiss.omp_set_num_threads(threads)
    dim = rows_ND.shape[1]
    if rival == "faiss-binary":
        binary = faiss.IndexBinaryFlat(dim)
        binary.add(np.packbits(rows_ND < 0, axis=1))
        return lambda queries, k: binary.search(np.packbits(queries < 0, axis=1), k)
    index: Any = faiss.IndexFlatIP(dim)
    if rival == "faiss-sq8":
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        index.train(rows_ND[:100_000])
    index.add(rows_ND)
    return lambda queries, k: index.search(queries, k)


def numpy_search(queries_QD: Any, rows_ND: Any, k: int) -> Any:
    scores_QN = queries_QD @ rows_ND.T
    best_QK = np.argpartition(-scores_QN, k, axis=1)[:, :k]
    best_scores_QK = np.take_along_axis(scores_QN, best_QK, axis=1)
    order_QK = np.argsort(-best_scores_QK, axis=1)
    return np.take_along_axis(best_scores_QK, order_QK, axis=1), np.take_along_axis(best_QK, order_QK, axis=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
