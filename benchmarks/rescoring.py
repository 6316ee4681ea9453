"""How many of the ten best rows the smaller row types keep, alone and rescored, on real embeddings.

    python benchmarks/rescoring.py DATA/train/stage1 [--passages 600] [--queries 5] [--save build/vectors]

Takes the first documents of each Parquet file of pairs (columns query and document) as rows, the queries of other pairs
of it as queries, embeds both with the bundled model, and compares each row type's ten best with those of float32 rows.
Prints a table, JSON last.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gte_sdk import Embedder, Index

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last, so that gte_sdk is the one that is installed

from benchmarks.search import recall

K = 10
CANDIDATES = (50, 100, 200, 300, 500, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="a folder of Parquet files of pairs")
    parser.add_argument("--passages", type=int, default=600, help="rows of each file")
    parser.add_argument("--queries", type=int, default=5, help="queries of each file")
    parser.add_argument("--model", default="gte-mini")
    parser.add_argument("--save", type=Path, help="a folder for rows.npy and queries.npy, for search.py --vectors")
    arguments = parser.parse_args()
    passages: list[str] = []
    questions: list[str] = []
    for file in sorted(arguments.sources.glob("*.parquet")):
        first = next(pq.ParquetFile(file).iter_batches(arguments.passages + arguments.queries))
        passages += first["document"].to_pylist()[: arguments.passages]
        questions += first["query"].to_pylist()[-arguments.queries :]
    embedder = Embedder(arguments.model, truncation="ignore")
    rows_ND, queries_QD = embedder.embed_documents(passages), embedder.embed_query(questions)
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
        np.save(arguments.save / "rows.npy", rows_ND)
        np.save(arguments.save / "queries.npy", queries_QD)
    print(f"{arguments.model}: {len(rows_ND):,} passages, {len(queries_QD)} queries, {embedder.dim} dimensions")

    def index_of(dtype: str) -> Index:
        index = Index(embedder.dim, dtype, keep_floats=dtype in ("int8", "binary"))
        index.add(rows_ND)
        return index

    best = index_of("float32").search(queries_QD, K).ids
    recalls: dict[str, float] = {}
    for dtype in ("float16", "int8", "binary"):
        index = index_of(dtype)
        recalls[dtype] = recall(best, index.search(queries_QD, K).ids)
        if dtype != "float16":
            for count in CANDIDATES:
                recalls[f"{dtype}, {count} rescored"] = recall(best, index.search(queries_QD, K, rescore=count).ids)
    for name, value in recalls.items():
        print(f"{name:24}{value:.4f}")
    print(json.dumps({"model": arguments.model, "passages": len(rows_ND), "queries": len(queries_QD), **recalls}))


if __name__ == "__main__":
    main()
