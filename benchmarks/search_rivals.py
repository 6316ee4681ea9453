"""One rival of benchmarks/search.py in a process of its own: search_rivals.py RIVAL ROWS.npy QUERIES.npy THREADS.

It answers each line of the standard input with a line of JSON: "time 8 10" searches once with 8 queries for the 10
best, "ids 10" returns the 10 best rows of every query.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Scores and rows, or whatever the rival returns, of queries (q, d) and k.
Search = Callable[[Any, int], Any]


class Rival(NamedTuple):
    make: Callable[[str, Any, int], Search]
    """The search of a rival's name, rows (n, d) and number of threads, ready for its first query."""
    bytes_of_value: float
    """What it reads of each value of a row."""
    rows_of: Callable[[Any], Any] = lambda found: found[1]
    """The rows (q, k) in what a search returns."""


def main(name: str, rows_file: str, queries_file: str, threads: int) -> None:
    rows_ND, queries_QD = np.load(rows_file), np.load(queries_file)
    rival = RIVALS[name]
    try:
        search = rival.make(name, rows_ND, threads)
    except ImportError:
        print(json.dumps({"ready": False}), flush=True)
        return
    del rows_ND
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "ids":
            found = rival.rows_of(search(queries_QD, int(numbers[0])))
            print(json.dumps({"ids": np.asarray(found).tolist()}), flush=True)
            continue
        query_count, k = map(int, numbers)
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


def ours(name: str, rows_ND: Any, threads: int) -> Search:
    """gte_sdk.Index with the row type of the name: ours-binary+500 scores 500 candidates again in float32."""
    from gte_sdk import Index

    dtype, _, rescore = name.removeprefix("ours-").partition("+")
    index = Index(rows_ND.shape[1], dtype, keep_floats=bool(rescore))
    index.add(rows_ND)
    return lambda queries, k: index.search(queries, k, rescore=int(rescore) if rescore else None, threads=threads)


def ours_over_an_array(name: str, rows_ND: Any, threads: int) -> Search:
    from gte_sdk import top_k_cosine

    return lambda queries, k: top_k_cosine(queries, rows_ND, k, threads=threads)


def numpy_product(name: str, rows_ND: Any, threads: int) -> Search:
    """The scores of all rows, and nothing chosen among them: what `rows @ query` costs."""

    def product(queries_QD: Any, k: int) -> Any:
        return rows_ND @ queries_QD[0] if len(queries_QD) == 1 else queries_QD @ rows_ND.T

    return product


def numpy_selection(name: str, rows_ND: Any, threads: int) -> Search:
    def search(queries_QD: Any, k: int) -> Any:
        scores_QN = (rows_ND @ queries_QD[0])[None] if len(queries_QD) == 1 else queries_QD @ rows_ND.T
        best_QK = np.argpartition(-scores_QN, k, axis=1)[:, :k]
        best_scores_QK = np.take_along_axis(scores_QN, best_QK, axis=1)
        order_QK = np.argsort(-best_scores_QK, axis=1)
        return np.take_along_axis(best_scores_QK, order_QK, axis=1), np.take_along_axis(best_QK, order_QK, axis=1)

    return search


def torch_product(name: str, rows_ND: Any, threads: int) -> Search:
    import torch

    torch.set_num_threads(threads)
    rows = torch.from_numpy(rows_ND)
    return lambda queries, k: torch.topk(torch.from_numpy(queries) @ rows.T, k)


def torch_sum(name: str, rows_ND: Any, threads: int) -> Search:
    """No search: reads the rows once."""
    import torch

    torch.set_num_threads(threads)
    rows = torch.from_numpy(rows_ND)
    return lambda queries, k: rows.sum()


def faiss_index(name: str, rows_ND: Any, threads: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(threads)
    dim = rows_ND.shape[1]
    if name == "faiss-binary":
        binary = faiss.IndexBinaryFlat(dim)
        binary.add(np.packbits(rows_ND < 0, axis=1))
        return lambda queries, k: binary.search(np.packbits(queries < 0, axis=1), k)
    index: Any = faiss.IndexFlatIP(dim)
    if name == "faiss-sq8":
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    elif name == "faiss-pq4-fastscan":
        index = faiss.IndexPQFastScan(dim, dim, 4, faiss.METRIC_INNER_PRODUCT)
    index.train(rows_ND[:100_000])
    index.add(rows_ND)
    return lambda queries, k: index.search(queries, k)


def turbovec_index(name: str, rows_ND: Any, threads: int) -> Search:
    """As many threads as RAYON_NUM_THREADS says."""
    from turbovec import TurboQuantIndex

    index = TurboQuantIndex(dim=rows_ND.shape[1], bit_width=int(name.removeprefix("turbovec-")[0]))
    index.add(rows_ND)
    return lambda queries, k: index.search(queries, k=k)


def usearch_exact(name: str, rows_ND: Any, threads: int) -> Search:
    from usearch.index import MetricKind, search

    return lambda queries, k: search(rows_ND, queries, k, MetricKind.IP, exact=True, threads=threads)


def hnswlib_brute_force(name: str, rows_ND: Any, threads: int) -> Search:
    import hnswlib

    brute_force = hnswlib.BFIndex(space="ip", dim=rows_ND.shape[1])
    brute_force.init_index(max_elements=len(rows_ND))
    brute_force.add_items(rows_ND)
    brute_force.set_num_threads(threads)
    return lambda queries, k: brute_force.knn_query(queries, k)


EXACT = {
    "ours-float32": Rival(ours_over_an_array, 4),
    "numpy-product": Rival(numpy_product, 4),
    "numpy": Rival(numpy_selection, 4),
    "torch": Rival(torch_product, 4),
    "faiss-flat": Rival(faiss_index, 4),
    "usearch": Rival(usearch_exact, 4, lambda found: found.keys),
    "hnswlib-brute-force": Rival(hnswlib_brute_force, 4, lambda found: found[0]),
}
_ROW_TYPES = {
    "float16": 2,
    "int8": 1,
    "int8+50": 1,
    **{f"binary{more}": 1 / 8 for more in ("", "+100", "+200", "+500")},
}
# What is stored is smaller than the vectors, so some of the best rows may be missed.
FEWER_BITS = {
    **{f"ours-{name}": Rival(ours, size, lambda found: found.ids) for name, size in _ROW_TYPES.items()},
    "faiss-sq8": Rival(faiss_index, 1),
    "faiss-pq4-fastscan": Rival(faiss_index, 1 / 2),
    "faiss-binary": Rival(faiss_index, 1 / 8),
    "turbovec-4-bits": Rival(turbovec_index, 1 / 2),
    "turbovec-2-bits": Rival(turbovec_index, 1 / 4),
}
# What reads the rows and does hardly anything else; another one is read_bandwidth.cpp.
READERS = {"torch-sum": Rival(torch_sum, 4)}
RIVALS = {**EXACT, **FEWER_BITS, **READERS}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
